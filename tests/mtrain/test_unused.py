"""Options that were given and have no effect are said, by whatever command they were given to."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import click
import pytest

from mtrain.cli import group
from mtrain.cli.evaluate import unused_in_evaluation
from mtrain.cli.scores import MODES
from mtrain.cli.sweep import unused_in_sweep
from mtrain.cli.unused_options import AT_THE_END
from mtrain.config import FitConfig
from mtrain.evaluation.comparing.comparisons import compare
from mtrain.runs.run_folder import Run
from mtrain.sweep.command import forget_failed
from mtrain.sweep.store import Store
from mtrain.transfers import modes, request
from mtrain.transfers.results import results
from tests.mtrain.pools import write_task
from tests.mtrain.sweeps import write_sweep
from tests.mtrain.test_damage import SETTINGS, made, mtrain, place
from tests.mtrain.test_fit import Notes

__all__ = ["made", "place"]


def unused(*words: str) -> list[str]:
    found = mtrain(*words)
    assert found.exit_code == 0, found.exception
    return re.findall(r"^(--\S+) is not used: ", found.stderr, flags=re.MULTILINE)


def test_every_mode_says_which_options_it_reads() -> None:
    assert list(request.READS) == list(modes.MODES) == MODES
    parameters = {parameter.name for parameter in group.commands["transfer"].params}
    assert parameters >= request.CHOICES
    assert set(request.unread(["svm", "finetune", "dense"])) == set()
    assert set(request.unread(["svm", "finetune"])) == {"steps"}
    assert set(request.unread(["knn"])) == {
        "solver",
        "epochs",
        "rates",
        "batch",
        "early_stop",
        "seed",
        "steps",
        "tune",
        "layer_decay",
    }
    assert "seed" not in request.unread(["svm"], "random")


def test_options_of_other_modes_are_said(place: Path) -> None:
    given = ["--epochs", "3", "--lr", "0.1", "--seed", "4", "--solver", "sklearn", "--batch", "8"]
    words = ["transfer", "--mode", "knn", "--target", "Gamma", "--workers", "0"]
    assert unused(*words, *given) == ["--solver", "--epochs", "--lr", "--batch", "--seed"]
    assert unused(*words) == ["--workers"]  # the features are known
    for quiet in ("--quiet", "--json"):
        assert mtrain(*words, *given, quiet).stderr == ""


def test_a_command_that_fails_says_nothing_of_what_it_did_not_come_to(place: Path) -> None:
    for words in (["--mode", "dense", "--target", "Gamma", "--target", "Alpha"], ["--target", "Nowhere"]):
        found = mtrain("transfer", *words, "--workers", "0", "--device", "cpu", "--check-images")
        assert found.exit_code == 1
        assert "is not used" not in found.stderr


def test_a_seed_draws_the_random_weights_that_are_requested_and_each_keeps_its_result(place: Path) -> None:
    words = ["transfer", "--mode", "knn", "--target", "Gamma", "--workers", "0", "--weights", "random", "--json"]
    found = []
    for seed in ([], ["--seed", "0"], ["--seed", "7"]):
        assert unused(*words[:-1], *seed, "--quiet") == []
        (one,) = json.loads(mtrain(*words, *seed).stdout)
        found.append(one)
    digests = [one["identity"]["weights_digest"] for one in found]
    assert digests[0] == digests[1] != digests[2]  # the run's own seed is 0
    assert len(list(Path("runs/toy/transfer").glob("Gamma-knn-random-*.json"))) == 2
    (row,) = (one for one in compare(results(Run(Path("runs/toy")))) if one.mode == "knn" and "random" in one.results)
    assert row.scores["random"] == pytest.approx((found[1]["score"] + found[2]["score"]) / 2)


def test_settings_without_an_effect_are_said(place: Path) -> None:
    words = ["fit", "--run", "other", "--optimizer", "adamw", "--momentum", "0.5", "--batchnorm", "frozen"]
    words += ["--adapt-batches", "3", "--warmup", "0", "--warmup-lr", "0.1", "--iterations", "1", "--batch", "4"]
    words += ["--size", "32", "--workers", "0", "--backbone", "shufflenet_v2_x0_5", "--weights", "random"]
    words += ["--sync-batchnorm", "--leave-out", "Gamma"]
    assert sorted(unused(*words)) == ["--adapt-batches", "--momentum", "--sync-batchnorm", "--warmup-lr"]
    assert unused("report", "--run", "toy", "--evaluations", "elsewhere") == ["--evaluations"]


def test_memory_for_images_of_a_finished_run_is_said(place: Path) -> None:
    assert unused("fit", "--run", "toy", "--resident", "1") == ["--resident"]


SHARED = {
    "layer_decay",
    "checkpointing",
    "compile",
    "sync_batchnorm",
    "gradients",
    "log_cosines",
}  # settings of the training of the network


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({}, {"validate_every"}),
        ({"joint": ("Lung",), "optimizer": "adamw"}, {"momentum"}),
        ({"validate_every": 0, "batchnorm": "train"}, {"adapt_batches"}),
        ({"validate_every": 0, "batchnorm": "per-task"}, set()),
        ({"train_on": "train", "iterations": 4, "warmup": 4}, {"joint", "lr", "tau", "schedule", *SHARED}),
        ({"train_on": "train"}, {"joint"}),
        ({"train_on": "train", "tune": "heads"}, {"joint", "batchnorm", "adapt_batches", *SHARED}),
        (
            {"train_on": "train", "tune": "heads", "features": "cached", "resident": 1},
            {"joint", "batchnorm", "adapt_batches", "resident", *SHARED},
        ),
    ],
)
def test_what_has_no_effect_beside_other_settings(settings: dict[str, Any], idle: set[str]) -> None:
    assert set(FitConfig(shards="x", **settings).idle()) == idle


def test_a_setting_without_an_effect_in_a_file_of_settings_is_said(place: Path) -> None:
    Path("some.toml").write_text('optimizer = "adamw"\nmomentum = 0.5\nwarmup_lr = 1e-3\nwarmup = 0\n')
    words = [
        word
        for name, value in SETTINGS.items()
        if name != "warmup"
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    found = mtrain("fit", "--config", "some.toml", "--run", "other", "--leave-out", "Gamma", *words)
    assert found.exit_code == 0, found.exception
    assert "some.toml: momentum is not used: --optimizer adamw has none\n" in found.stderr
    assert "warmup_lr" not in found.stderr  # its default


def test_settings_without_an_effect_on_this_network_or_pool_are_said(place: Path) -> None:
    words = ["fit", "--run", "other", "--leave-out", "Gamma", "--leave-out", "Beta", "--temperature", "2"]
    words += ["--task-weight", "Alpha=3", "--backbone", "timm:test_vit", "--backbone-option", "img_size=32"]
    words += ["--batchnorm", "frozen", "--iterations", "1", "--warmup", "0", "--batch", "4", "--size", "32"]
    words += ["--workers", "0", "--weights", "random", "--device", "cpu", "--sync-batchnorm"]
    words += ["--gradients", "upgrad", "--log-cosines", "1"]
    found = mtrain(*words)
    assert found.exit_code == 0, found.exception
    said = re.findall(r"^(--\S+.*) is not used: (.*)$", found.stderr, flags=re.MULTILINE)
    none = "timm:test_vit has no batch normalization"
    assert sorted(said) == [
        ("--batchnorm frozen", none),
        ("--gradients upgrad", "Alpha is the only task"),
        ("--log-cosines", "Alpha is the only task"),
        ("--sync-batchnorm", none),
        ("--task-weight", "Alpha is the only task"),
        ("--temperature", "Alpha is the only task"),
    ]
    assert not [event for event in Run(Path("runs/other")).events() if event["event"] == "cosines"]


def test_a_temperature_is_for_tasks_of_different_sizes(place: Path) -> None:
    words = ["fit", "--run", "other", "--leave-out", "Gamma", "--temperature", "2", "--warmup", "0"]
    words += [
        word
        for name, value in SETTINGS.items()
        if name != "warmup"
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    assert "--temperature is not used: all tasks have the same number of images\n" in mtrain(*words).stderr


# Most commands are run twice, the second time with all that follows the bar: options that have no effect there.
SHARDS = "--cache c --cache-size 1GB --no-check-images --workers 0 --device cpu"
TUNING = "--epochs 3 --lr 0.1 --batch 8 --early-stop 1"
TARGET = "--target shards/Gamma | --shards shards"
SITUATIONS = [
    f"transfer --mode knn {TARGET} {SHARDS} {TUNING} --steps 5 --seed 4 --solver sklearn",
    f"transfer --mode svm {TARGET} {SHARDS} {TUNING} --steps 5 --seed 4",
    # the device decides in which precision features are computed, and so which cached ones are taken
    f"features --task shards/Gamma --device cpu | --shards shards {SHARDS.replace(' --device cpu', '')}",
    f"audit-labels --task shards/Gamma --device cpu | --shards shards {SHARDS.replace(' --device cpu', '')}",
    "robustness --target shards/Gamma --by part --pattern ^gamma-(?P<part>train|val) --device cpu"
    f" | --shards shards {SHARDS.replace(' --device cpu', '')}",
    f"evaluate --run toy --mode svm --no-baseline {TARGET} {SHARDS} {TUNING} --seeds 3 --sweeps x",
    "evaluate --run toy --mode scratch --epochs 1 --lr 0.1 --batch 4 --seeds 1 | --baseline --solver sklearn",
    f"compare --run toy --run toy --mode knn {TARGET} --size 32 --solver sklearn --cache c --workers 1"
    " --pattern (?P<x>.) --k 2",
    "influence --samples 2 --dimensions 2 --workers 0 | --subsets 10 --cache c",
    "fit --run toy | " + SHARDS + " --log mlflow",
    "fit --print-config | " + SHARDS + " --log mlflow",
    "report | --sweeps x --evaluations x",
    "report --sweep grid | --runs runs --run toy --shards shards",
    "watch --once | --sweeps x --every 3",
    "watch --sweep grid | --runs runs --run toy --every 3",
    f"select | --incomplete --shards shards {SHARDS.partition('1GB ')[2]}",
    "export | --accept-licence",
    "predict --task Alpha picture.png --patch 32 | --class class-1 --mpp 1 --mpp-override 1 --tissue 0.5",
]


def parameters(command: str) -> dict[str, click.Parameter]:
    """The options and arguments of a command by all their spellings."""
    found = group.commands[command]
    every = found.get_params(click.Context(found))
    return {flag: one for one in every for flag in (*one.opts, *one.secondary_opts)}


def named(situation: str) -> set[str]:
    """The parameters after the bar."""
    command, given = situation.split()[0], situation.partition(" | ")[2]
    known = parameters(command)
    return {str(known[word].name) for word in given.split() if word.startswith("--")}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_option_without_an_effect_is_said_once(
    place: Path, situation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtrain.services.check_installed", lambda _names: None)
    for variable in ("MTRAIN_CACHE", "MTRAIN_CACHE_SIZE", "MTRAIN_CHECK_IMAGES"):
        monkeypatch.setenv(variable, "")  # options set them
    if "grid" in situation or "select" in situation:
        write_sweep(place / "sweeps" / "grid", lambda *_cell: 0.5, sets=(("Lung",), ("Breast",)))
    if "predict" in situation:
        write_task(place / "one", sizes={"train": 1})
        Path("picture.png").write_bytes(next(iter(images_of(place / "one"))))
    command, _, given = situation.partition(" | ")
    if not situation.startswith(("report", "export", "influence")):  # which know no results
        first = mtrain(*command.split())
        assert first.exit_code == 0, first.exception
        assert " is not used: " not in first.stderr
    second = mtrain(*command.split(), *given.split())
    assert second.exit_code == 0, second.exception
    known = parameters(situation.split()[0])
    said = re.findall(r"^(--[\w-]+)\S* is not used: ", second.stderr, flags=re.MULTILINE)
    assert sorted(str(known[flag].name) for flag in said) == sorted(named(situation))


# what always has an effect: on what is done, where, or what is printed
EVERYWHERE = {"runs", "sweeps", "quiet", "as_json", "out", "help_all", "help", "_click_default_help"}
ALWAYS = {
    "fit": {
        "name",
        "config_file",
        "print_config",
        "shards",
        "leave_out",
        "tasks",
        "drop",
        "train_on",
        "backbone",
        "backbone_options",
        "weights",
        "weights_key",
        "iterations",
        "warmup",
        "weight_decay",
        "batch",
        "size",
        "accumulate",
        "seed",
        "stream",
        "skip_corrupt",
        "checkpoint_every",
        "log_every",
        "tune",
        "optimizer",
        "ema",
        "label_smoothing",
        "class_balanced",
        "rotations",
        "stain_jitter",
        "colour_jitter",
        "dense",
        "loss_scale",
        "features",
    },
    "watch": {"name", "sweep", "once"},
    # settings that `FitConfig.idle` does not name, and those that choose the training
    "release": {
        "sweep",
        "shards",
        "seeds",
        "backbone",
        "backbone_options",
        "weights",
        "weights_key",
        "iterations",
        "warmup",
        "batch",
        "size",
        "creators",
    },
    # a size or an option of a network, and a key of weights, are refused where they have no effect
    "transfer": {"mode", "name", "target", "backbone", "backbone_options", "size", "weights", "weights_key", "final"},
    "features": {"name", "tasks", "backbone", "backbone_options", "size", "weights", "weights_key", "dtype"},
    "evaluate": {"names", "sweep", "target", "modes", "evaluations"},
    "audit-labels": {"name", "tasks", "backbone", "backbone_options", "size", "weights", "weights_key"},
    "robustness": {
        "name",
        "names",
        "by",
        "pattern",
        "table",
        "k",
        "backbone",
        "backbone_options",
        "size",
        "weights",
        "weights_key",
    },
    "breakhis": {
        "name",
        "shards",
        "backbone",
        "backbone_options",
        "size",
        "weights",
        "weights_key",
        "mode",
        "evaluations",
    },
    "compare": {"backbones", "names", "targets", "mode", "by", "paper"},
    "influence": {"name", "target", "shards", "layers", "samples", "dimensions", "verify", "matrix", "alone", "seed"},
    "sweep": {"file", "sbatch"},
    "select": {"name", "soup"},
    "soup": {"names", "name", "removed", "factor"},
    "report": {"sweep", "paper"},  # --shards of a run: test_report.py
    "export": {"run", "to", "task", "push"},
    "predict": {"paths", "name", "task", "dense"},  # --features: test_predict.py
    "backbones": {"action", "name"},
}
ELSEWHERE = {  # said, as these tests show
    "fit": {
        "momentum",
        "adapt_batches",
        "warmup_lr",
        "lr",
        "tau",
        "schedule",
        "joint",
        "validate_every",
        "batchnorm",
        "temperature",
        "task_weights",
        "graph",
        "resident",
        *SHARED,
    },
    "release": {"lr", "tau", "evaluations", "accepted"},  # test_release.py
    "sweep": {
        "shards",
        "only_plan",
        "jobs",
        "engine",
        "address",
        "cpus",
        "part",
        "retry_failed",
        "parts",
        "race",
        "status",
    },
    "compare": {"table"},  # like --pattern
    "soup": {"shards"},  # test_soups.py
    "predict": {"features", "patch"},  # the latter of tasks that state their size
}


@pytest.mark.parametrize("command", list(group.commands))
def test_no_option_is_forgotten(command: str) -> None:
    said = {name for one in SITUATIONS if one.split()[0] == command for name in named(one)}
    said |= ELSEWHERE.get(command, set()) | set(AT_THE_END)
    if command in ("transfer", "evaluate", "breakhis", "compare"):
        said |= request.CHOICES
    always = EVERYWHERE | ALWAYS.get(command, set())
    every = {str(one.name) for one in parameters(command).values()}
    assert every - said - always == set()
    assert ALWAYS.get(command, set()) <= every


def test_a_sweep_says_what_does_not_go_with_what_it_does() -> None:
    nothing = {"sbatch": None, "only_plan": False, "status": False}
    running = {"jobs", "engine", "address", "cpus", "retry_failed"}
    assert unused_in_sweep(nothing).keys() == {"parts"}
    assert unused_in_sweep(nothing | {"only_plan": True}).keys() == {"parts", *running}
    assert unused_in_sweep(nothing | {"sbatch": "x"}).keys() == {"only_plan", "part", *running}
    assert unused_in_sweep(nothing | {"status": True}).keys() == {"parts", "shards", "race", *running}
    assert "runs" in unused_in_evaluation(["svm"], baseline=True, of_sweep=True)


def test_nothing_to_try_again_is_said(tmp_path: Path) -> None:
    notes = Notes()
    forget_failed(Store(tmp_path), [], notes)
    assert notes.said == ["--retry-failed is not used: no cell has failed"]


def images_of(folder: Path) -> list[bytes]:
    found = []
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            found += [tar.extractfile(one).read() for one in tar if one.name.endswith("png")]  # type: ignore[union-attr]
    return found
