"""The command line: what it says, what it answers with, and one line for every mistake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock
from urllib.error import URLError

import click
import pytest

from dpconvert import card as cards
from mtrain import cli
from mtrain.config import FitConfig
from mtrain.disk import documents
from mtrain.runs.run_folder import Run
from mtrain.runs.run_names import new_name, newest_run
from mtrain.settings import as_toml, fit_config, read_settings
from mtrain.train.fit import fit
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.test_fit import Notes

TINY = [
    "--backbone=shufflenet_v2_x0_5",
    "--weights=random",
    "--iterations=2",
    "--batch=4",
    "--size=32",
    "--adapt-batches=1",
    "--workers=0",
]


class Answer(NamedTuple):
    """How a command ended and what it said."""

    status: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def mtrain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*words: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["mtrain", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Answer(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards/ and the finished run runs/toy, which left Gamma and its relative Delta out."""
    folder = tmp_path_factory.mktemp("trained")
    write_pool(folder / "shards")
    write_task(folder / "shards" / "Delta", related=["Gamma"], seed=7)
    settings = FitConfig(
        shards=str(folder / "shards"),
        leave_out=("Gamma",),
        backbone="shufflenet_v2_x0_5",
        weights="random",
        iterations=2,
        batch=4,
        size=32,
        adapt_batches=1,
        workers=0,
    )
    fit(settings, Run(folder / "runs" / "toy"), Notes())
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with copies of them."""
    shutil.copytree(trained, tmp_path / "here")
    run = Run(tmp_path / "here" / "runs" / "toy")
    run.write("config.json", json.loads(json.dumps(run.about()).replace(str(trained), str(tmp_path / "here"))))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


# --- help ---


def test_help_loads_no_torch_and_is_quick() -> None:
    code = (
        "import sys; sys.argv = ['mtrain', '--help']\n"
        "from mtrain.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'numpy', 'pydantic', 'sklearn'} & sys.modules.keys(), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mtrain fit --shards shards/ --leave-out Lung" in done.stdout


@pytest.mark.parametrize("name", sorted(cli.group.commands))
def test_every_command_has_help_with_an_example_and_every_option_a_word(mtrain: Command, name: str) -> None:
    answer = mtrain(name, "--help")
    assert answer.status == 0
    assert f"Example: mtrain {name}" in answer.out
    command = cli.group.commands[name]
    for option in command.get_params(click.Context(command)):
        assert not isinstance(option, click.Option) or option.help, option.name


def test_every_setting_of_a_training_is_an_option_with_its_own_help_and_default() -> None:
    options = {option.name: option for option in cli.train.fit.get_params(click.Context(cli.train.fit))}
    for name, field in FitConfig.model_fields.items():
        option = options[name]
        assert isinstance(option, click.Option)
        assert (option.help or "").startswith(str(field.description).removesuffix("."))
    assert (options["lr"].help or "").endswith("[default: 1e-4]")  # type: ignore[attr-defined]
    assert (options["warmup"].help or "").endswith("[default: a tenth of the iterations]")  # type: ignore[attr-defined]


# --- settings in a file ---


def test_settings_come_from_a_file_and_options_override_it(mtrain: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('lr = 1e-3\nbackbone = "resnet18"\nleave_out = ["Lung", "\\"A\\""]\ntask_weights = {Lung = 2}\n')
    printed = mtrain("fit", "--config", str(file), "--lr", "0.5", "--print-config").out
    found = tomllib.loads(printed)
    assert (found["lr"], found["backbone"], found["leave_out"]) == (0.5, "resnet18", ["Lung", '"A"'])
    assert (found["task_weights"], found["warmup"]) == ({"Lung": 2.0}, 5000)
    assert "# Learning rate of the shared network.\nlr = 0.5\n" in printed
    file.write_text(printed)
    assert mtrain("fit", "--config", str(file), "--print-config").out == printed


def test_the_settings_of_a_run_serve_another(place: Path, mtrain: Command) -> None:
    printed = mtrain("fit", "--config", str(place / "runs/toy/config.json"), "--print-config").out
    known = Run(place / "runs" / "toy").config()
    assert FitConfig.model_validate(tomllib.loads(printed)) == known
    assert mtrain("fit", "--config", str(place / "runs/toy"), "--print-config").out == printed


def test_every_setting_survives_its_way_through_a_file(mtrain: Command, tmp_path: Path) -> None:
    """Each with a value other than its default, in as many files as they need: some exclude one another."""
    together = {
        "shards": '/data/\\"s"',
        "leave_out": ["Lung, left", "\u00e9"],
        "tasks": ["A"],
        "train_on": "train",
        "backbone": "resnet18",
        "weights": "random",
        "iterations": 70,
        "warmup": 3,
        "warmup_lr": 1e-7,
        "lr": 3e-5,
        "tau": 2.5,
        "batch": 24,
        "size": 32,
        "accumulate": 2,
        "adapt_batches": 0,
        "seed": 9,
        "device": "cpu",
        "workers": 0,
        "resident": 0.5,
        "skip_corrupt": 4,
        "checkpoint_every": 7,
        "validate_every": 0,
        "log_every": 9,
        "log_cosines": 5,
        "tune": "last:2",
        "layer_decay": 0.75,
        "optimizer": "adamw",
        "schedule": "cosine",
        "ema": 0.99,
        "gradients": "upgrad",
        "task_weights": {"A": 2.0},
        "colour_jitter": 0.25,
        "stain_jitter": 0.1,
        "label_smoothing": 0.1,
        "weight_decay": 1e-3,
        "rotations": True,
    }
    alone: list[dict[str, Any]] = [
        {"backbone": "timm:vit_tiny_patch16_224", "backbone_options": {"qkv_bias": False, "depth": 2}},
        {"tune": "lora:4:8"},
        {"joint": ["Lung"]},
        {"sync_batchnorm": True},
        {"compile": True},
        {"graph": False},
        {"stream": True},
        {"dense": True},
        {"tune": "heads", "features": "cached"},
        {"batchnorm": "frozen"},
        {"class_balanced": True},
        {"checkpointing": True},
        {"temperature": 2.0},
        {"loss_scale": "log-classes"},
        {"momentum": 0.5},
        {"drop": "/x/a.json"},
        {"weights": "/x/w.pth", "weights_key": "teacher"},
    ]
    for number, settings in enumerate([together, *alone]):
        known = fit_config(None, settings)
        file = tmp_path / f"{number}.toml"
        file.write_text(as_toml(known))
        assert fit_config(None, read_settings(file)) == known
    assert {name for one in [together, *alone] for name in one} == set(FitConfig.model_fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lrr = 1", "lrr: is not known here (did you mean 'lr'?); found 1"),
        ("lr = 'x'", "lr: must be a number; found 'x'"),
        ("batch = 1", "batch: must be at least 2; found 1"),
        ("lr =", "not TOML: Invalid value"),
        (None, "no such file of settings; `mtrain fit --print-config` prints every setting\n"),
        ("seeds = [0]\nleave_out = ['Lung']", "describes a sweep, not one training run; `mtrain sweep FILE` runs it\n"),
        ("task_weightz = {Lung = 2}", "task_weightz: is not known here (did you mean 'task_weights'?); `mtrain fit"),
    ],
)
def test_a_wrong_file_of_settings_is_one_line(text: str | None, said: str, mtrain: Command, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "a.toml").write_text(text)
    answer = mtrain("fit", "--config", str(tmp_path / "a.toml"))
    assert (answer.status, answer.out) == (1, "")
    assert f"a.toml: {said}" in answer.err


# --- the commands ---


def test_a_training_a_transfer_and_a_report_with_next_to_no_options(place: Path, mtrain: Command) -> None:
    shutil.rmtree(place / "runs")
    name = "shufflenet_v2_x0_5-without-Gamma-001"
    answer = mtrain("fit", "--leave-out", "Gamma", *TINY)
    assert (answer.status, answer.out) == (0, f"{name}: finished -> runs/{name}\n")
    assert "Delta is left out too: related to Gamma" in answer.err
    answer = mtrain("transfer", "--mode", "svm", "--workers", "0")
    assert answer.status == 0
    first, second = (line for line in answer.out.splitlines() if not line.startswith("note"))
    assert first.startswith("Delta: ROC AUC ")
    assert second.startswith("Gamma: accuracy ")
    assert f"(svm, weights of run {name}, C = " in second
    answer = mtrain("report")
    assert "| Gamma | left out | 3 | 24 | 8 | 8 |" in answer.out
    assert answer.out.endswith(f"\nruns/{name}/report.html\n")
    assert mtrain("fit", "--leave-out", "Gamma", *TINY).out.startswith("shufflenet_v2_x0_5-without-Gamma-002: finished")


def test_runs_without_a_name_that_start_at_once_take_different_ones(place: Path, mtrain: Command) -> None:
    """Both look for a name before either has written anything."""
    config = fit_config(None, {"leave_out": ("Gamma",), "backbone": "shufflenet_v2_x0_5"})
    names = {new_name(place / "new", config) for _ in range(3)}
    assert names == {f"shufflenet_v2_x0_5-without-Gamma-{number:03}" for number in (1, 2, 3)}
    answer = mtrain("fit", "--runs", "other", "--shards", "nowhere", *TINY)
    assert (answer.status, list((place / "other").glob("*"))) == (1, []), "what has failed keeps no name"


def test_a_transfer_takes_the_newest_run_and_answers_programs_in_json(place: Path, mtrain: Command) -> None:
    shutil.copytree(place / "runs" / "toy", place / "runs" / "older")
    for name, seconds in (("older", 1), ("toy", 2)):
        os.utime(place / "runs" / name / "config.json", (seconds, seconds))
    answer = mtrain("transfer", "--json", "--workers", "0")
    found = json.loads(answer.out)
    assert [result["task"] for result in found] == ["Delta", "Gamma"]
    assert (place / "runs" / "toy" / "transfer" / "Gamma-svm-run.json").is_file()
    assert not (place / "runs" / "older" / "transfer").exists()
    assert answer.err == ""


def test_what_scores_passes_over_a_release_that_is_newer(place: Path, mtrain: Command) -> None:
    shutil.copytree(place / "runs" / "toy", place / "runs" / "release")
    path = place / "runs" / "release" / "config.json"
    about = json.loads(path.read_text()) | {"trained_on": {"Alpha": ["train", "val", "test"]}, "left_out": []}
    documents.write_document(path, {name: value for name, value in about.items() if name != documents.DIGEST})
    os.utime(path, (2**31, 2**31))
    assert newest_run(place / "runs").name == "release"
    assert newest_run(place / "runs", to_score=True).name == "toy"
    assert "(svm, weights of run toy, C = " in mtrain("transfer", "--target", "Gamma", "--workers", "0").out
    shutil.rmtree(place / "runs" / "toy")
    assert newest_run(place / "runs", to_score=True).name == "release"


def test_a_run_goes_on_by_its_name_alone_and_says_when_it_is_finished(place: Path, mtrain: Command) -> None:
    answer = mtrain("fit", "--run", "toy")
    assert (answer.status, answer.out) == (0, "toy: finished -> runs/toy\n")
    assert "toy: already finished, nothing to do" in answer.err


def test_runs_are_listed_with_their_state(place: Path, mtrain: Command) -> None:
    for name in ("cut", "killed"):
        shutil.copytree(place / "runs" / "toy", place / "runs" / name)
    (place / "runs" / "cut" / "config.json").write_text("{")
    (place / "runs" / "killed" / "state.json").write_text('{"state": "running", "iteration": 1}')
    lines = sorted(mtrain("runs").out.splitlines())
    assert lines[0].startswith("cut: damaged (runs/cut/config.json: cannot be read: ")
    assert lines[1:] == [
        "killed: stopped, 1 of 2, left out: Delta, Gamma",
        "toy: finished, 2 of 2, left out: Delta, Gamma",
    ]
    rows = {row["run"]: row for row in json.loads(mtrain("runs", "--json").out)}
    assert rows["toy"] == {"run": "toy", "state": "finished", "iteration": 2, "of": 2, "left_out": ["Delta", "Gamma"]}
    assert mtrain("runs", "--runs", "elsewhere").out == "no run in elsewhere\n"


# --- mistakes ---


def damaged_card(place: Path) -> None:
    (place / "shards" / "Beta" / cards.FILE_NAME).write_text('{"task": ')


def damaged_index(place: Path) -> None:
    path = place / "shards" / "Beta" / cards.INDEX_NAME
    path.write_bytes(bytes(path.stat().st_size))


def cut_shard(place: Path) -> None:
    path = place / "shards" / "Beta" / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-1024])


def broken_image(place: Path) -> None:
    for path in (place / "shards" / "Beta").glob("train-*.tar"):
        path.write_bytes(bytes(path.stat().st_size))


def task_without_training_set(place: Path) -> None:
    write_task(place / "shards" / "Beta", sizes={"test": 4})


def unfinished_run(place: Path) -> None:
    Run(place / "runs" / "toy").write("state.json", {"state": "stopped", "iteration": 1})


def damaged_run(place: Path) -> None:
    (place / "runs" / "toy" / "config.json").write_text("[]")


def strange_config(place: Path) -> None:
    Run(place / "runs" / "toy").write("config.json", {"config": {"colour": 1}})


def no_weights_file(place: Path) -> None:
    (place / "bad.pth").write_bytes(b"hello")
    (place / "bad.safetensors").write_bytes(b"hello, this is not what you want")


def nothing(place: Path) -> None:
    pass


MISTAKES: list[tuple[Callable[[Path], None], Sequence[str], str]] = [
    (
        nothing,
        ["fit", "--shards", "absent"],
        "absent: no such folder of shards; give the folder of the tasks with --shards, or convert a source with",
    ),
    (
        nothing,
        ["fit", "--shards", "runs/toy/checkpoints"],
        "runs/toy/checkpoints: no task in this folder; give the folder",
    ),
    (nothing, ["fit", "--leave-out", "Gama"], "no task 'Gama' in the pool; did you mean Gamma"),
    (nothing, ["fit", *(f"--leave-out={name}" for name in ("Alpha", "Beta", "Gamma"))], "every task is left out"),
    (nothing, ["fit", "--backbone", "resnet51"], "no network 'resnet51'; did you mean resnet50"),
    (nothing, ["fit", "--backbone", "timm:resnet19"], "no network 'timm:resnet19' in timm"),
    (nothing, ["fit", "--device", "gpu"], "no device 'gpu'; use auto, cpu, cuda"),
    (nothing, ["fit", "--device", "cuda:99"], "no device 'cuda:99' here; found "),
    (nothing, ["fit", "--iterations", "-5"], "--iterations: must be at least 1; found -5"),
    (nothing, ["fit", "--iterations=5", "--warmup=9"], "--warmup: longer than the training of 5 iterations; found 9"),
    (nothing, ["fit", "--lr", "nan"], "--lr: must be a finite number; found nan"),
    (nothing, ["fit", "--batch", "1"], "--batch: must be at least 2; found 1"),
    (nothing, ["fit", "--run", "../toy"], "invalid run name '../toy'; give a plain name"),
    (nothing, ["fit", "--run", "toy", "--lr", "7"], "other settings: lr (0.0001 in the run, 7.0 requested); give"),
    (nothing, ["fit", "--weights", "absent.pth"], "absent.pth: no such weights file; give imagenet, random or"),
    (no_weights_file, ["fit", "--weights", "bad.pth"], "bad.pth: not a weights file"),
    (no_weights_file, ["fit", "--weights", "bad.safetensors"], "bad.safetensors: not a weights file"),
    (task_without_training_set, ["fit"], "Beta: this task has no training set; leave it out with --leave-out"),
    (damaged_card, ["fit"], "Beta/task.json: not a task card; convert the source again"),
    (
        damaged_index,
        ["fit"],
        "Beta/index.parquet: the index has changed since it was written; convert the source again",
    ),
    (cut_shard, ["fit"], "Beta/train-000000.tar: changed since it was written; expected"),
    (broken_image, ["fit", *TINY], "Beta: cannot read image beta-train-"),
    (damaged_run, ["fit", "--run", "toy"], "runs/toy/config.json: cannot be read: not a JSON object; restore"),
    (strange_config, ["transfer", "--target", "Gamma"], "runs/toy/config.json: not a run's configuration"),
    (nothing, ["transfer", "--run", "tot"], "runs: no run named 'tot'; existing runs: toy"),
    (nothing, ["transfer", "--runs", "elsewhere"], "elsewhere: no run in this folder; train one with `mtrain fit`"),
    (nothing, ["transfer", "--target", "Gama"], "no task 'Gama' in the pool; did you mean Gamma"),
    (nothing, ["transfer", "--weights", "absent.pth"], "absent.pth: no such weights file"),
    (no_weights_file, ["transfer", "--weights", "bad.safetensors"], "bad.safetensors: not a weights file"),
    (
        unfinished_run,
        ["transfer"],
        "runs/toy: this run is not finished; resume it with: mtrain fit --runs runs --run toy",
    ),
    (cut_shard, ["transfer"], "Beta/train-000000.tar: changed since it was written"),
    (nothing, ["report", "--run", "tot"], "runs: no run named 'tot'; existing runs: toy"),
    (damaged_run, ["report"], "runs/toy/config.json: cannot be read: not a JSON object; restore"),
    (nothing, ["report", "--out", "/dev/null/page.html"], "cannot be written: "),
]


@pytest.mark.parametrize(
    ("spoil", "words", "said"), MISTAKES, ids=[f"{' '.join(w)[:40]}-{i}" for i, (_, w, _) in enumerate(MISTAKES)]
)
def test_a_mistake_is_answered_in_one_line(
    place: Path, mtrain: Command, spoil: Callable[[Path], None], words: Sequence[str], said: str
) -> None:
    spoil(place)
    before = set((place / "runs").iterdir())
    answer = mtrain(*words, *(["-q"] if words[0] == "fit" else []))
    assert answer.status == 1
    assert answer.out == ""
    assert answer.err.startswith("mtrain: error: ")
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert set((place / "runs").iterdir()) == before


TOLD_BEFORE_TORCH = [
    ("transfer --run tot", "runs: no run named 'tot'; existing runs: toy"),
    ("transfer --target Gama", "no task 'Gama' in the pool; did you mean Gamma"),
    ("transfer --shards nowhere", "nowhere: no such folder of shards"),
    ("transfer --weights absent.pth", "absent.pth: no such weights file"),
    ("transfer --mode scratch --weights imagenet", "--mode scratch takes no --weights"),
    ("features --run tot", "runs: no run named 'tot'; existing runs: toy"),
    ("features --task Gama", "no task 'Gama' in the pool; did you mean Gamma"),
    ("features --weights absent.pth", "absent.pth: no such weights file"),
    ("evaluate", "nothing to evaluate; give either --run NAME (repeatable) or --sweep NAME"),
    ("evaluate --run tot", "runs: no run named 'tot'; existing runs: toy"),
    ("evaluate --run toy --target Gama", "no task 'Gama' in the pool; did you mean Gamma"),
    ("evaluate --sweep nothing", "nothing"),
    ("breakhis --shards nowhere", "nowhere: no"),
    ("sweep papr", "papr: no such sweep file; give a TOML file, or one of paper"),
    ("sweep small.toml --shards nowhere", "nowhere: no such folder of shards"),
    ("sweep small.toml --part 3/2", "--part is I/N with I from 1 to N; found 3/2"),
    ("sweep small.toml --cpus 2", "--address and --cpus are for --engine ray"),
    (
        "sweep wrong.toml",
        "wrong.toml: grid.rate: is not known here (known: backbone, dense, gradients, layer_decay,",
    ),
    ("select --sweeps nowhere", "nowhere: no sweep"),
    ("soup toy tot --name both", "runs: no run named 'tot'; existing runs: toy"),
    ("report --run tot", "runs: no run named 'tot'; existing runs: toy"),
    ("report --sweep nothing", "nothing"),
    ("report --out /dev/null/page.html", "cannot be written: "),
    ("export tot", "runs: no run named 'tot'; existing runs: toy"),
    (
        "export --task Gamma",
        "this run has no head for 'Gamma': it was not trained on that task; choose one of its tasks: Alpha",
    ),
    ("predict picture.png --run tot", "runs: no run named 'tot'; existing runs: toy"),
    ("release --sweep nothing", "nothing"),
]
SMALL = 'shards = "shards"\nleave_out = ["Gamma"]\nseeds = [0]\n[fit]\nwarmup = 1\n[grid]\n'


def test_a_wrong_argument_is_reported_before_torch_is_loaded(place: Path, tmp_path: Path) -> None:
    """All of them one after the other in a process where torch cannot be imported."""
    (place / "small.toml").write_text(SMALL)
    (place / "wrong.toml").write_text(f"{SMALL}rate = [1]\n")
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "torch.py").write_text("raise AssertionError('torch is imported')")
    code = (
        "import json, sys; from mtrain.cli import main\n"
        "for line in json.load(sys.stdin):\n"
        "    sys.argv = ['mtrain', *line.split()]\n"
        "    try: main()\n"
        "    except SystemExit as stop: assert stop.code == 1, line\n"
        "    else: raise AssertionError(line)\n"
    )
    path = f"{tmp_path / 'without'}{os.pathsep}{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([line for line, _ in TOLD_BEFORE_TORCH]),
        cwd=place,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    answers = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    for (line, said), answered in zip(TOLD_BEFORE_TORCH, answers, strict=True):
        assert answered.startswith("mtrain: error: "), line
        assert said in answered, line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "--iterations", "many"], "'many' is not a valid integer"),
        (["fit", "--bach", "8"], "--bach"),
        (["transfer", "--mode", "forest"], "'forest' is not one of 'svm', 'logistic', "),
        (["trane"], "No such command 'trane'"),
    ],
)
def test_what_is_no_command_or_option_is_answered_with_usage(mtrain: Command, words: Sequence[str], said: str) -> None:
    answer = mtrain(*words)
    assert answer.status == 2
    assert said in answer.err.replace("\n", " ")


def test_weights_that_cannot_be_downloaded_are_answered_with_what_else_to_give(
    mtrain: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = Mock(side_effect=URLError("no network"))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    answer = mtrain("fit", "--backbone", "resnet18")
    assert answer.status == 1
    assert (
        "the ImageNet weights of resnet18 are not available: <urlopen error no network>; give --weights FILE"
        in answer.err
    )
    assert answer.err.count("\n") == 1


def test_an_interrupt_says_so(mtrain: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mtrain.train.fit.fit", interrupted)
    answer = mtrain("fit")
    assert (answer.status, answer.err.strip()) == (130, "mtrain: stopped")
