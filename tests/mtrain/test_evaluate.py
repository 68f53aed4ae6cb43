"""The final evaluation: what it writes, and that nothing before it can read a test set."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from mtrain import cli
from mtrain.cli.transfer_lines import evaluation_lines, transfer_lines
from mtrain.config import FitConfig
from mtrain.data.batches.images import Images
from mtrain.data.pool import find_task, open_pool
from mtrain.data.task import Permit, Task, open_task, with_test
from mtrain.errors import RunError, ShardError, UsageError
from mtrain.evaluation import evaluate
from mtrain.evaluation.evaluate import EvaluateRequest, jobs, winners
from mtrain.evaluation.paper_tables import read_evaluations, table
from mtrain.model import network
from mtrain.model.backbones import Body
from mtrain.model.network import SharedNetwork
from mtrain.predict.classifier import Classifier
from mtrain.runs.run_folder import Run
from mtrain.scoring.metrics import accuracy
from mtrain.train.fit import fit
from mtrain.transfers.features import features
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.request import targets, with_set
from mtrain.transfers.results import results
from mtrain.transfers.transfer import TransferOptions, source_of, transfer
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.test_fit import Notes

PACKAGE = Path(evaluate.__file__).parents[1]
RECIPE = Recipe(epochs=2, rates=(0.05, 0.01), batch=8, device="cpu")
OPTIONS = TransferOptions(workers=0, recipe=RECIPE)


def tiny_network(name: str, weights: str = "imagenet", _key: str | None = None) -> SharedNetwork:
    """In place of networks by name: weights are "imagenet", "random" or a file."""
    if weights == "imagenet":
        torch.manual_seed(12345)
    layers = [nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    body = nn.Sequential(*layers)
    if str(weights) not in ("imagenet", "random"):
        network.load_weights(body, Path(weights), name)
    return SharedNetwork(name, Body(body))


@pytest.fixture(autouse=True)
def networks_are_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mtrain.train.start", "mtrain.transfers.transfer", "mtrain.predict.classifier"):
        monkeypatch.setattr(f"{module}.shared_network", tiny_network)


def trained(folder: Path, name: str, leave_out: tuple[str, ...] = ("Gamma",), **changed: Any) -> Run:
    """A finished run of a few iterations."""
    settings = FitConfig(
        **{
            "shards": str(folder / "shards"),
            "leave_out": leave_out,
            "backbone": "tiny",
            "weights": "random",
            "iterations": 3,
            "batch": 8,
            "size": 32,
            "adapt_batches": 1,
            "workers": 0,
            "validate_every": 0,
            "device": "cpu",
        }
        | changed
    )
    run = Run(folder / "runs" / name)
    assert fit(settings, run, Notes()) == "finished"
    return run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_pool(tmp_path / "shards")
    return tmp_path


def target(place: Path, name: str = "Gamma") -> Task:
    return find_task(open_pool(place / "shards"), name)


def asked(place: Path, *modes: str, **changed: Any) -> EvaluateRequest:
    return EvaluateRequest(modes, **({"options": OPTIONS, "out": place / "evaluations", "seeds": 2} | changed))


def content(place: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((place / "evaluations").glob("*/*.json"))]


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as kept:
        return dict(kept)


def test_predictions_that_were_changed_are_made_again_and_not_copied(place: Path) -> None:
    run = trained(place, "a")
    evaluate.evaluate([run], target(place), asked(place, "svm", baseline=False), Notes())
    (copied,) = (place / "evaluations").glob("*/*.npz")
    (path,) = (run.path / "transfer").glob("*.npz")
    assert content(place)[0]["predictions"] == hashlib.sha256(copied.read_bytes()).hexdigest()
    first = path.read_bytes()
    data = bytearray(first)
    data[200] ^= 1
    path.write_bytes(data)
    said = Notes()
    evaluate.evaluate([run], target(place), asked(place, "svm", baseline=False), said)
    assert path.read_bytes() == copied.read_bytes() == first
    assert any(
        "predictions that are gone, or changed since they were written; they are made again" in one for one in said.said
    )


# --- what nothing but the final steps can read ---


@functools.cache
def names_in_the_package() -> dict[str, set[str]]:
    """Module -> every name in it, outside comments and strings."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        plain = {name for node in nodes for name in (getattr(node, "attr", ""), getattr(node, "id", ""))}
        imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        found[str(path.relative_to(PACKAGE))] = plain | imported
    return found


def mentions(name: str) -> set[str]:
    return {module for module, names in names_in_the_package().items() if name in names}


def test_the_door_to_test_sets_is_named_in_the_final_steps_alone() -> None:
    task, evaluating = "data/task.py", "evaluation/evaluate.py"
    doors = {"evaluation/breakhis.py", "data/dataset.py", evaluating, "export/release.py"}
    assert mentions("with_test") - {task} == doors
    assert mentions("Permit") - {task} == doors
    assert mentions("ShardDataset") <= {"__init__.py", "data/dataset.py"}  # for users: no step of ours goes through it
    assert mentions("opened") - {evaluating, task} == {"cli/transfer_work.py"}  # of `mtrain transfer --final`
    assert [mentions(step) - {task} for step in ("EVALUATE", "BREAKHIS", "RELEASE")] == [
        {evaluating},
        {"evaluation/breakhis.py"},
        {"export/release.py"},
    ]


def test_no_step_before_a_release_can_reach_what_it_opens() -> None:
    """Its pool of everything is made and used in its own module, which the command line alone imports."""
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"mtrain\.export\.release\b|import release\b", path.read_text())
    }
    assert users == {"cli/train.py"}


def test_a_task_offers_no_test_set_until_it_is_opened(place: Path) -> None:
    task = target(place)
    assert set(task.rows) == {"train", "val"}
    assert task.sizes["test"] == 8
    opened = with_test(task, Permit.EVALUATE)
    assert len(opened.rows["test"]) == 8
    assert set(task.rows) == {"train", "val"}
    with pytest.raises(AssertionError):
        with_test(task, "mtrain evaluate")  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="only the final steps"):
        transfer(source_of(trained(place, "toy"), "run"), task, TransferOptions(final=True, workers=0), Notes())


def test_everything_before_works_without_any_test_tar(place: Path) -> None:
    for path in place.glob("shards/*/test-*.tar"):
        path.unlink()
    run = trained(place, "toy", validate_every=1)
    (task,) = targets(run, None, ())
    for mode in ("svm", "logistic", "knn", "fewshot", "finetune"):
        assert (
            transfer(source_of(run, "run"), task, TransferOptions(mode, workers=0, recipe=RECIPE), Notes())["set"]
            == "val"
        )
    with pytest.raises(ShardError, match=r"test-000000.tar: missing"):
        evaluate.evaluate([run], task, asked(place, "svm"), Notes())


# --- what is evaluated ---


def test_winner_and_baseline_are_scored_by_svm_and_finetune_on_the_test_set(place: Path) -> None:
    runs = [trained(place, f"seed{seed}", seed=seed) for seed in (3, 4)]
    found = evaluate.evaluate(runs, target(place), asked(place, "svm", "finetune"), Notes())
    assert [(one["mode"], one["source"], one["seed"]) for one in found] == [
        ("svm", "multitask", 3),
        ("svm", "multitask", 4),
        ("svm", "imagenet", 0),
        ("finetune", "multitask", 3),
        ("finetune", "multitask", 4),
        ("finetune", "imagenet", 0),
        ("finetune", "imagenet", 1),
    ]
    assert {one["set"] for one in found} == {"test"}
    assert [one["n_train"] for one in found] == [32] * 3 + [24] * 4
    assert len(content(place)) == 7
    assert len(read_evaluations(place / "evaluations")) == 7
    for path in (place / "evaluations" / "Gamma").glob("*.npz"):
        kept, told = arrays(path), json.loads(path.with_suffix(".json").read_bytes())
        assert list(kept["key"]) == [f"gamma-test-{i:05d}" for i in range(8)]
        assert told["score"] == told["scores"]["accuracy"] == accuracy(kept["label"], kept["decisions"].argmax(1))
        assert told["groups"] == 2
        low, high = told["intervals"]["accuracy"]
        assert low <= told["score"] <= high


@pytest.mark.parametrize("mode", ["svm", "finetune", "scratch"])
def test_a_table_states_the_images_of_train_and_val_whatever_the_mode_trained_on(place: Path, mode: str) -> None:
    evaluate.evaluate([trained(place, "toy")], target(place), asked(place, mode), Notes())
    (row,) = table(read_evaluations(place / "evaluations"), "tiny")
    assert (row.task, row.size) == ("Gamma", 24 + 8)


def test_a_baseline_without_weights_is_reported_before_the_runs_are_scored(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, source = trained(place, "toy"), evaluate.source_of

    def without_hub(run: Run, weights: str, seed: int | None = None) -> Any:
        if weights == "imagenet":
            raise RunError("the ImageNet weights are not available")
        return source(run, weights, seed)

    monkeypatch.setattr(evaluate, "source_of", without_hub)
    with pytest.raises(RunError, match="not available"):
        evaluate.evaluate([run], target(place), asked(place, "svm", "finetune"), Notes())
    assert not (run.path / "transfer").exists()
    found = evaluate.evaluate([run], target(place), asked(place, "svm", baseline=False), Notes())
    assert [one["source"] for one in found] == ["multitask"]


def test_an_evaluation_is_recognised_and_a_seed_more_is_added_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, notes = [trained(place, "toy")], Notes()
    wanted = asked(place, "svm", "scratch", seeds=1)
    first = evaluate.evaluate(runs, target(place), wanted, Notes())
    again = evaluate.evaluate(runs, target(place), asked(place, "svm", "scratch", seeds=2), notes)
    assert sum("existing result reused" in note for note in notes.said) == 3
    assert again[: len(first)] == first
    assert [(one["source"], one["seed"]) for one in again] == [
        ("multitask", 0),
        ("imagenet", 0),
        ("random", 0),
        ("random", 1),
    ]
    assert again[2]["identity"]["weights_digest"] != again[3]["identity"]["weights_digest"]


def test_joint_is_the_head_that_the_run_trained(place: Path) -> None:
    run = trained(place, "joint", leave_out=(), joint=("Gamma",), iterations=40, lr=3e-2, warmup=0)
    (found,) = evaluate.evaluate([run], target(place), asked(place, "joint"), Notes())
    assert (found["mode"], found["source"], found["n_train"]) == ("joint", "multitask", 24)
    assert (found["training"]["lr"], len(found["training"]["pool"])) == (3e-2, 24)
    assert found["score"] >= 0.75  # the colour of a toy image tells its class
    (task,) = targets(run, None, ["Gamma"])
    scored = transfer(source_of(run, "run"), task, TransferOptions("joint", workers=0), Notes())
    assert scored["set"] == "val"
    assert [t.name for t in targets(run, None, (), "joint")] == ["Gamma"], "the val sets of others were trained on"
    assert [result["mode"] for result in results(run)] == ["joint", "joint"]
    shutil.rmtree(run.checkpoints)
    (run.path / "transfer" / "Gamma-joint-run.json").unlink()
    run.heads.unlink()
    with pytest.raises(RunError, match="this run kept no heads"):
        transfer(source_of(run, "run"), task, TransferOptions("joint", workers=0), Notes())


@pytest.mark.parametrize("changed", [{"ema": 0.9}, {"batchnorm": "per-task"}])
def test_joint_answers_as_predict_does_and_needs_no_checkpoint(place: Path, changed: dict[str, Any]) -> None:
    """The weights of a run with `--ema` are averaged: so is the head that goes with them, but not the checkpoint's."""
    run = trained(
        place, "averaged", leave_out=(), joint=("Gamma",), iterations=12, lr=3e-2, warmup=0, seed=1, **changed
    )
    shutil.rmtree(run.checkpoints)
    task = find_task(open_pool(place / "shards"), "Gamma")
    scored = transfer(source_of(run, "run"), task, TransferOptions("joint", workers=0, recipe=RECIPE), Notes())
    with np.load(run.path / "transfer" / "Gamma-joint-run.npz", allow_pickle=False) as kept:
        found = kept["probabilities"]
    rows = task.rows["val"]
    images = Images([(task, rows)])
    classifier = Classifier(run, "Gamma", "cpu")
    expected = classifier.answer([images.decode(number) for number in range(len(rows))])
    assert np.allclose(found, expected, atol=1e-5)
    assert scored["score"] == accuracy(rows.label, expected.argmax(1))


def test_no_score_of_a_set_that_was_trained_on_is_given(place: Path, tmp_path: Path) -> None:
    run = trained(place, "both", leave_out=(), joint=("Beta",))
    assert run.trained_on() == {"Alpha": ("train", "val"), "Beta": ("train",), "Gamma": ("train", "val")}
    source, options = source_of(run, "run"), TransferOptions(workers=0, recipe=RECIPE)
    for mode in ("svm", "knn", "finetune", "joint"):
        with pytest.raises(
            UsageError, match=r"these weights were trained on the val set of Gamma: a score on it says nothing"
        ):
            transfer(source, target(place), replace(options, mode=mode), Notes())
    with pytest.raises(UsageError, match=r"shared.safetensors: |these weights were trained on the val set of Gamma"):
        transfer(source_of(run, str(run.weights)), target(place), options, Notes())
    bare = dataclasses.replace(target(place), rows={**target(place).rows, "val": target(place).rows["val"].take([])})
    with pytest.raises(UsageError, match=r"these weights were trained on the train set of Gamma"):
        transfer(source, bare, options, Notes())  # without a validation set the training set is what is scored
    with pytest.raises(UsageError, match=r"this task has no val set"):
        transfer(source, bare, replace(options, mode="joint"), Notes())  # but not by the run's own head
    assert not list(run.path.glob("transfer/*.json"))
    beta = find_task(open_pool(place / "shards"), "Beta")
    assert transfer(source, beta, options, Notes())["set"] == "val"
    assert transfer(source_of(run, "imagenet"), target(place), options, Notes())["set"] == "val"
    (opened,) = evaluate.opened([target(place)])
    assert transfer(source, opened, replace(options, final=True), Notes())["set"] == "test"
    with pytest.raises(
        UsageError, match=r"trained on train and val of Gamma; joint training uses only the training set; "
    ):
        transfer(source, opened, replace(options, final=True, mode="joint"), Notes())


def test_a_run_without_a_joint_task_is_asked_for_all_to_say_why(place: Path) -> None:
    run = trained(place, "whole", leave_out=())
    assert [task.name for task in targets(run, None, (), "joint")] == ["Alpha", "Beta", "Gamma"]


def test_tasks_of_a_run_without_the_scored_set_are_passed_over(place: Path) -> None:
    tasks = open_pool(place / "shards").tasks
    bare = write_task(place / "more" / "Bare", sizes={"train": 8, "test": 8})
    tasks = (*tasks, open_task(bare))
    found, notes = with_set(tasks, "val")
    assert [task.name for task in found] == ["Alpha", "Beta", "Gamma"]
    assert notes == ["Bare is not scored: it has no val set"]
    assert with_set(tasks, "test") == (list(tasks), [])
    assert with_set(tasks[3:], "val") == (list(tasks[3:]), [])  # the mode says why it takes none


def test_a_run_of_before_the_choice_trained_on_the_training_sets(place: Path) -> None:
    run = trained(place, "old", train_on="train")
    about = run.about()
    del about["trained_on"], about["config"]["train_on"], about["config"]["joint"]
    run.write("config.json", about)
    assert run.trained_on() == {"Alpha": ("train",), "Beta": ("train",)}
    assert run.config().train_on == "train"
    assert fit(run.config(), run, Notes()) == "finished"


def test_runs_are_distinguished_by_what_they_trained_on(place: Path) -> None:
    apart, whole = trained(place, "apart"), trained(place, "whole", leave_out=())
    planned = list(jobs([apart, whole], target(place), asked(place, "svm", "joint", baseline=False)))
    assert [(job.mode, job.run.name) for job in planned] == [("svm", "apart"), ("joint", "whole")]
    with pytest.raises(UsageError, match="joint: no run given has trained on Gamma"):
        list(jobs([apart], target(place), asked(place, "joint")))
    with pytest.raises(UsageError, match="finetune: no run given has left out Gamma"):
        list(jobs([whole], target(place), asked(place, "finetune")))
    with pytest.raises(RunError, match="this run was not trained on Gamma"):
        transfer(source_of(apart, "run"), target(place), TransferOptions("joint", workers=0), Notes())


def test_the_winner_of_a_target_is_what_was_selected_for_it(tmp_path: Path) -> None:
    models = [{"seed": seed, "cell": "c", "run": f"runs/{seed}"} for seed in (0, 1)]
    targets_ = {
        "Gamma": {"winner": None, "by_backbone": {"a": {"models": models}, "b": None}},
        "Beta": {"by_backbone": {"a": None}},
    }
    with pytest.raises(RunError, match="nothing has been selected; run `mtrain select` first"):
        winners(tmp_path, "Gamma")
    (tmp_path / "selected.json").write_text(json.dumps({"targets": targets_}))
    assert [run.path for run in winners(tmp_path, "Gamma")] == [tmp_path / "runs" / "0", tmp_path / "runs" / "1"]
    assert evaluate.selected_targets(tmp_path) == ["Beta", "Gamma"]
    with pytest.raises(RunError, match="no model is chosen for Beta"):
        winners(tmp_path, "Beta")
    with pytest.raises(RunError, match="no selection for Delta: no 'Delta'"):
        winners(tmp_path, "Delta")


# --- the commands ---


@pytest.fixture
def mtrain(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The program in the folder that holds shards/ and runs/; answers what it prints."""
    monkeypatch.chdir(place)

    def call(*words: str) -> str:
        answer = CliRunner().invoke(cli.group, [*words, "--quiet", "--workers", "0"], catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    return call


TUNING = ("--epochs", "1", "--lr", "0.05", "--batch", "8")


def test_transfers_by_every_mode_say_what_they_chose(place: Path, mtrain: Callable[..., str]) -> None:
    trained(place, "toy")
    said = {
        mode: mtrain("transfer", "--mode", mode, *TUNING)
        for mode in ("knn", "logistic", "fewshot", "finetune", "scratch")
    }
    assert re.search(
        r"Gamma: accuracy \d\.\d+ \[\d\.\d+, \d\.\d+\] on val \(knn, weights of run toy, k = \d+\)", said["knn"]
    )
    assert re.search(r"logistic, weights of run toy, C = \S+\)", said["logistic"])
    assert re.search(r"^    4 per class: \d\.\d+ \+- \d\.\d+$", said["fewshot"], re.MULTILINE)
    assert "(finetune, weights of run toy, lr 0.05, epoch 1)" in said["finetune"]
    assert "(scratch, weights random in the network of toy, lr 0.05, epoch 1)" in said["scratch"]
    stated = [json.loads(path.read_text()) for path in (place / "runs/toy/transfer").glob("Gamma-*.json")]
    sizes = {(one["mode"], one["samples"], one["groups"]) for one in stated}
    assert len(sizes) == 5  # of every mode, few-shot included
    assert len({(samples, groups) for _, samples, groups in sizes}) == 1
    told = json.loads((place / "runs/toy/transfer/Gamma-knn-run.json").read_text())
    assert {"accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "recall_0", "calibration_error"} <= told[
        "scores"
    ].keys()
    (path,) = (place / "runs/toy/transfer").glob("Gamma-finetune-run-seed0-*.npz")  # of other settings than the usual
    kept = arrays(path)
    np.testing.assert_allclose(kept["probabilities"].sum(1), 1)


def test_evaluate_joins_runs_and_baselines_and_answers_programs(place: Path, mtrain: Callable[..., str]) -> None:
    trained(place, "toy")
    said = mtrain("evaluate", "--run", "toy", "--mode", "svm")
    assert [line.partition("(")[2] for line in said.splitlines()] == [
        "svm, multitask, run toy, tiny, seed 0)",
        "svm, imagenet, tiny, seed 0)",
    ]
    again = json.loads(mtrain("evaluate", "--run", "toy", "--mode", "svm", "--no-baseline", "--json"))
    assert [one["source"] for one in again] == ["multitask"]
    assert mtrain("transfer", "--final").startswith("Gamma: accuracy")
    with pytest.raises(UsageError, match="nothing to evaluate"):
        mtrain("evaluate")
    with pytest.raises(UsageError, match="--lr: invalid; expected positive, distinct numbers; found 0"):
        mtrain("evaluate", "--run", "toy", "--lr", "0")
    with pytest.raises(UsageError, match="--mode scratch takes no --weights"):
        mtrain("transfer", "--mode", "scratch", "--weights", "imagenet")


def test_evaluate_says_before_it_starts_how_much_there_is_to_do(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    trained(place, "toy")
    trained(place, "other", seed=1)
    words = ["evaluate", "--run", "toy", "--run", "other", "--seeds", "3", "--workers", "0", *TUNING]
    answer = CliRunner().invoke(cli.group, words, catch_exceptions=False)
    assert answer.stderr.splitlines()[0] == (
        "8 transfers on 1 test set: 3 svm, 5 finetune; "
        "finetune at 1 learning rate, up to 1 epoch each; finished ones are kept"
    )


def test_each_task_has_its_notes_and_states_those_of_several_runs_once() -> None:
    result = {"mode": "eva", "weights": "run", "metric": "accuracy", "set": "val", "score": None, "notes": ["few"]}
    results = [result | {"task": task, "epochs": 2, "epoch": 1, "seed": seed} for task in "AB" for seed in (0, 1)]
    lines = transfer_lines(results, Run(Path("toy")))
    assert [line[0] if "eva" in line else line for line in lines] == ["A", "note: few", "A", "B", "note: few", "B"]


def test_each_note_on_evaluations_is_a_line_with_their_number() -> None:
    one = {
        "task": "Gamma",
        "metric": "accuracy",
        "score": 0.5,
        "set": "test",
        "mode": "svm",
        "source": "multitask",
        "backbone": "tiny",
        "run": "runs/toy",
        "seed": 0,
        "scores": {"accuracy": 0.5},
        "intervals": {},
        "notes": ["few groups"],
    }
    assert evaluation_lines([one, {**one, "seed": 1}, {**one, "notes": []}])[3:] == [
        "note: Gamma, 2 evaluations: few groups"
    ]


def test_evaluate_takes_the_winner_of_a_sweep(place: Path, mtrain: Callable[..., str]) -> None:
    run = trained(place, "toy")
    shutil.copytree(run.path, place / "sweeps" / "small" / "runs" / "toy")
    chosen = {"models": [{"seed": 0, "cell": "c", "run": "runs/toy"}]}
    for name, content_ in (
        ("sweep.json", {}),
        ("selected.json", {"targets": {"Gamma": {"by_backbone": {"tiny": chosen}}}}),
    ):
        (place / "sweeps" / "small" / name).write_text(json.dumps(content_))
    assert mtrain("evaluate", "--sweep", "small", "--mode", "svm", "--no-baseline").startswith("Gamma: accuracy")
    (told,) = content(place)
    assert told["run"] == "sweeps/small/runs/toy"


@pytest.mark.parametrize(
    "words", [["transfer"], ["transfer", "--mode", "knn"], ["features"], ["evaluate", "--run", "toy", "--mode", "svm"]]
)
def test_the_device_is_the_one_that_was_requested(place: Path, mtrain: Callable[..., str], words: list[str]) -> None:
    trained(place, "toy")
    with pytest.raises(UsageError, match=r"no device 'cuda:99' here; found .*; use --device auto or cpu"):
        mtrain(*words, "--device", "cuda:99")
    assert mtrain(*words, "--device", "cpu")


def test_features_are_written_with_what_their_rows_are(place: Path, mtrain: Callable[..., str]) -> None:
    run = trained(place, "toy")
    said = mtrain("features", "--dtype", "float16")
    assert said.split() == ["features/Gamma-train.npy", "features/Gamma-val.npy"]
    found = np.load(place / "features" / "Gamma-val.npy")
    assert (found.shape, found.dtype) == ((8, 32), np.float16)
    lines = (place / "features" / "Gamma-val.csv").read_text().splitlines()
    assert lines[:2] == ["key,label,group", "gamma-val-00000,0,toy:val-0"]
    mtrain("features", "--out", "wide")
    wide = np.load(place / "wide" / "Gamma-val.npy")
    assert wide.dtype == np.float32
    np.testing.assert_allclose(found, wide, atol=1e-2)
    with torch.no_grad():
        source = source_of(run, "run")
        source.network.body[0].bias.add_(1e7)
    with pytest.raises(UsageError, match="too large for float16; use float32"):
        features(source.network, target(place), "val", size=32, cache=place, workers=0, report=Notes(), dtype="float16")
