"""Sweeps that leave out tasks with masks and points: cells, choice, test sets and page, through the commands."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from torch import nn

from mtrain.cli import group
from mtrain.cli.transfer_work import other_decoder
from mtrain.disk.documents import read_document, write_document
from mtrain.errors import RunError, UsageError
from mtrain.evaluation import paper_tables
from mtrain.evaluation.paper_tables import read_evaluations
from mtrain.evaluation.selecting import selection
from mtrain.model.backbones import Body
from mtrain.model.dense.dense_file import load_dense
from mtrain.model.network import SharedNetwork, load_weights
from mtrain.runs.run_folder import Run
from mtrain.scoring import bootstrap
from mtrain.sweep.cells import Cell, cells_of
from mtrain.sweep.left_out import left_out_sets
from mtrain.sweep.spec import Transfer, load_sweep
from mtrain.sweep.store import Store
from mtrain.sweep.sweep_cost import images_of
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.pretrained import TransferOptions
from tests.mtrain.dense_networks import body
from tests.mtrain.dense_pools import write_dense_task, write_mixed_pool
from tests.mtrain.pools import write_pool
from tests.mtrain.sweeps import changed_sweep

USERS = ("mtrain.train.start", "mtrain.transfers.transfer", "mtrain.sweep.cell_run", "mtrain.sweep.sweep_cost")
TINY = """
leave_out = ["Masks", "Points"]
seeds = [0]

[grid]
backbone = ["toy"]
lr = [1e-2]
warmup = [true]
dense = [true, false]

[fit]
weights = "random"
iterations = 4
warmup = 2
batch = 8
size = 16
workers = 0
device = "cpu"

[transfer]
mode = "dense"
steps = 3
batch = 8
"""


def toy(name: str, weights: str = "imagenet", _key: str | None = None) -> SharedNetwork:
    """In place of networks by name: weights are "imagenet", "random" or a file of a run."""
    if weights == "imagenet":
        torch.manual_seed(12345)
    inside = body()
    if weights not in ("imagenet", "random"):
        load_weights(inside, Path(weights), name)
    return SharedNetwork(name, Body(inside))


@pytest.fixture(scope="module")
def networks_are_toys() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for module in USERS:
            patched.setattr(f"{module}.shared_network", toy)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, networks_are_toys: None) -> Path:
    """A folder with shards/ and the finished sweep sweeps/tiny, with its choice."""
    folder = tmp_path_factory.mktemp("dense-sweep")
    write_mixed_pool(folder / "shards")
    write_dense_task(folder / "shards" / "Both", seed=9)
    (folder / "tiny.toml").write_text(TINY)
    for command in (["sweep", str(folder / "tiny.toml"), "--shards", str(folder / "shards")], ["select"]):
        answer = invoked(folder, *command)
        assert answer.exit_code == 0, answer.output
    return folder


def invoked(folder: Path, command: str, *options: str) -> Result:
    return CliRunner().invoke(group, [command, *options, "--sweeps", str(folder / "sweeps")])


@pytest.fixture
def cells(folder: Path, tmp_path: Path) -> Callable[..., list[Cell]]:
    """The cells of the tiny sweep, with lines of its file changed."""

    def changed(*changes: tuple[str, str], shards: Path = folder / "shards") -> list[Cell]:
        sweep = changed_sweep(TINY, changes, tmp_path / "tiny.toml", shards)
        return cells_of(sweep, left_out_sets(sweep))

    return changed


def store_of(folder: Path) -> Store:
    return Store(folder / "sweeps" / "tiny")


def results_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "sweeps" / "tiny" / "cells").glob("*.json"))]


# --- cells ---


def test_each_cell_has_the_metric_of_its_task_on_the_validation_set(folder: Path) -> None:
    results = results_of(folder)
    assert len(results) == 4
    assert {one["combination"]["dense"] for one in results} == {True, False}
    for one in results:
        (task,) = one["left_out"]
        found = one["scores"][task]
        assert (found["metric"], found["set"]) == ({"Masks": "dice", "Points": "f1"}[task], "val")
        assert found["score"] == found["scores"][found["metric"]]
        assert one["transfer"] == {"mode": "dense", "steps": 3, "batch": 8}


def test_masks_in_the_pool_are_trained_on_where_the_grid_says_so(folder: Path) -> None:
    store = store_of(folder)
    for one in results_of(folder):
        dense = store.path / one["run"] / "dense.safetensors"
        assert dense.is_file() == one["combination"]["dense"]
        if dense.is_file():
            assert set(load_dense(dense).heads) == {"Both", "Masks", "Points"} - set(one["left_out"])


def test_settings_of_the_decoder_change_the_score_alone(cells: Callable[..., list[Cell]]) -> None:
    plain, longer = cells(), cells(("steps = 3", "steps = 4"))
    assert {cell.training for cell in plain} == {cell.training for cell in longer}
    assert not {cell.digest for cell in plain} & {cell.digest for cell in longer}
    assert {cell.digest for cell in cells(("steps = 3", 'steps = 3\nsolver = "sklearn"'))} == {c.digest for c in plain}


def test_the_digest_of_a_cell_scored_by_svm_does_not_depend_on_the_decoder() -> None:
    assert Transfer().determining() == {"mode": "svm", "solver": "batched"}
    assert Transfer(steps=7).determining() == Transfer().determining()


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("Alpha", "neither masks nor points"),
        ("Untested", "no validation set"),
        ("Untrained", "no training set"),
    ],
)
def test_targets_that_cannot_be_scored_are_refused(
    tmp_path: Path, cells: Callable[..., list[Cell]], task: str, why: str
) -> None:
    write_pool(tmp_path / "shards", ("Alpha",))
    for name, splits in (("Masks", ("train", "val")), ("Untested", ("train",)), ("Untrained", ("val",))):
        write_dense_task(tmp_path / "shards" / name, sizes=dict.fromkeys(splits, 4))
    with pytest.raises(UsageError, match=f"{task}: this task has {why}: it cannot be scored"):
        cells(('"Points"]', f'"{task}"]'), shards=tmp_path / "shards")


def test_a_pool_left_without_masks_is_refused_before_anything_is_trained(cells: Callable[..., list[Cell]]) -> None:
    with pytest.raises(UsageError, match="dense: without Both, Masks, Points, no task of the pool has masks"):
        cells(('leave_out = ["Masks", "Points"]', 'leave_out = [["Masks", "Points", "Both"]]'))


def test_dense_stands_in_the_grid_or_beside_it(cells: Callable[..., list[Cell]]) -> None:
    beside = cells(("dense = [true, false]\n", ""), ("iterations = 4", "iterations = 4\ndense = true"))
    assert {cell.digest for cell in beside} == {cell.digest for cell in cells() if cell.combination.dense}
    with pytest.raises(UsageError, match=r"fit\.dense: grid\.dense sets it too"):
        cells(("iterations = 4", "iterations = 4\ndense = true"))
    with pytest.raises(UsageError, match=r"grid\.gradients: upgrad does not go with --compile"):
        cells(("dense = [", 'gradients = ["upgrad"]\ndense = ['), ("iterations = 4", "iterations = 4\ncompile = true"))


def test_settings_that_the_mode_does_not_read_are_reported(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace('mode = "dense"', 'mode = "svm"').replace('"Points"', '"Beta"'))
    answer = invoked(tmp_path, "sweep", str(path), "--shards", str(folder / "shards"), "--sbatch", str(tmp_path / "s"))
    assert answer.exit_code == 0, answer.output
    assert 'transfer.steps is not used: transfer.mode = "svm" does not read it' in answer.stderr
    assert 'transfer.batch is not used: transfer.mode = "svm" does not read it' in answer.stderr


def test_a_network_without_maps_is_refused_before_it_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 6))
    for module in USERS:
        monkeypatch.setattr(f"{module}.shared_network", lambda *_: SharedNetwork("toy", Body(flat)))
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace("[true, false]", "[false]"))
    answer = invoked(tmp_path, "sweep", str(path), "--shards", str(folder / "shards"))
    assert answer.exit_code == 1
    assert "toy gives no maps" in answer.stderr
    assert not list((tmp_path / "sweeps" / "tiny" / "runs").glob("*/shared.safetensors"))


def test_the_plan_counts_the_images_of_the_decoder(folder: Path) -> None:
    sweep = load_sweep(str(folder / "tiny.toml")).model_copy(update={"shards": str(folder / "shards")})
    masks, _ = left_out_sets(sweep).values()
    assert images_of(masks, sweep.transfer) == 3 * 8 + 8  # steps x batch, and the validation set
    assert images_of(masks, Transfer()) == 16 + 8


# --- the choice ---


def test_the_choice_names_mode_and_metrics(folder: Path) -> None:
    chosen = store_of(folder).selection()
    assert chosen["mode"] == "dense"
    assert chosen["metrics"] == {"Masks": "dice", "Points": "f1"}
    assert chosen["targets"]["Masks"]["winner"]["dense"] in (True, False)
    answer = invoked(folder, "select")
    assert "scores in percent (dense): Dice of Masks; F1 of Points" in answer.output
    assert "toy lr 1e-2 tau 5 with warm-up dense" in answer.output


def test_scores_of_two_metrics_of_one_task_are_not_ranked_together(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "sweeps", tmp_path / "sweeps")
    store = store_of(tmp_path)
    path = next(path for path in (store.path / "cells").glob("*.json") if '"dice"' in path.read_text())
    content = read_document(path, "")
    content["scores"]["Masks"]["metric"] = "roc_auc"
    write_document(path, content)
    with pytest.raises(RunError, match="Masks is scored by"):
        selection.select(store)


# --- fine-tuning ---


def test_the_network_moves_with_the_decoder_if_asked_and_both_results_stay(folder: Path) -> None:
    run = next(path.parent for path in (folder / "sweeps" / "tiny" / "runs").glob("*/shared.safetensors"))
    quick = ["--runs", str(run.parent), "--run", run.name, "--steps", "2", "--batch", "8", "--workers", "0"]
    command = ["transfer", "--mode", "dense", *quick, "--device", "cpu", "--target"]
    left_out = next(task for task in ("Masks", "Points") if task not in Run(run).about()["pool"])
    frozen = CliRunner().invoke(group, [*command, left_out, "--lr", "0.01"])
    assert frozen.exit_code == 0, frozen.output
    assert "--lr is not used: the network stays as it is without --tune" in frozen.stderr
    tuned = CliRunner().invoke(group, [*command, left_out, "--tune", "all", "--lr", "0.01"])
    assert "2 steps, tune all at 0.01)" in tuned.stdout, tuned.output
    results = [json.loads(path.read_text()) for path in (run / "transfer").glob(f"{left_out}-dense-run-seed0*.json")]
    still = next(one for one in results if one["steps"] == 2 and one["tune"] == "heads")
    moved = next(one for one in results if one["steps"] == 2 and one["tune"] == "all")
    assert (still["tune"], still["moved"], "lr" in still) == ("heads", 0, False)
    assert (moved["tune"], moved["lr"]) == ("all", 0.01)
    assert moved["moved"] == sum(parameter.numel() for parameter in body().parameters())
    assert (moved["identity"]["tune"], "tune" in still["identity"]) == ("all", False)
    again = CliRunner().invoke(group, [*command, left_out, "--tune", "all", "--lr", "0.01"])
    assert "existing result reused" in again.stderr
    other = CliRunner().invoke(group, [*command, left_out, "--tune", "all", "--lr", "0.1", "--lr", "0.2"])
    assert "--mode dense trains the network at one --lr" in str(other.exception)


# --- the test sets, and the page ---


def test_decoders_of_an_evaluation_that_differ_from_those_of_the_sweep_are_reported(folder: Path) -> None:
    sweep = folder / "sweeps" / "tiny"
    theirs = Store(sweep).transfer()
    assert (theirs.mode, theirs.steps) == ("dense", 3)
    same = TransferOptions(steps=3, recipe=Recipe(batch=theirs.batch))
    assert other_decoder(sweep, ["svm", "dense"], same) is None
    assert other_decoder(sweep, ["svm"], TransferOptions()) is None
    told = other_decoder(sweep, ["dense"], TransferOptions())
    assert told is not None
    assert f"decoders of 3 steps of {theirs.batch} images, the evaluation trains 2000 steps of" in told
    assert told.endswith(f"(--steps 3 --batch {theirs.batch}: as the sweep)")


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> Path:
    """The folder, after the chosen runs and the ImageNet weights were scored on the test sets, by classes too."""
    place = ["--sweep", "tiny", "--evaluations", str(folder / "evaluations"), "--no-check-images", "--quiet"]
    quick = ["--steps", "3", "--batch", "8", "--seeds", "2", "--workers", "0", "--device", "cpu"]
    answer = invoked(folder, "evaluate", *place, "--mode", "dense", "--mode", "svm", *quick)
    assert answer.exit_code == 0, answer.output
    page = invoked(folder, "report", "--sweep", "tiny", "--evaluations", str(folder / "evaluations"))
    assert page.exit_code == 0, page.output
    return folder


def evaluations_of(folder: Path, task: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (folder / "evaluations" / task).glob("*.json")]


def test_the_test_sets_are_scored_by_the_metric_of_masks_and_points(evaluated: Path) -> None:
    for task, metric in (("Masks", "dice"), ("Points", "f1")):
        found = [one for one in evaluations_of(evaluated, task) if one["mode"] == "dense"]
        assert sorted((one["source"], one["seed"]) for one in found) == [
            ("imagenet", 0),
            ("imagenet", 1),
            ("multitask", 0),
        ]
        for one in found:
            assert (one["metric"], one["set"], one["samples"], one["groups"]) == (metric, "test", 8, 4)
            assert one["n_train"] == 16 + 8
            assert one["score"] == one["scores"][metric]
        classes = [one for one in evaluations_of(evaluated, task) if one["mode"] == "svm"]
        assert {one["metric"] for one in classes} == {"roc_auc"}


def test_the_counts_of_each_sample_give_the_score_again(evaluated: Path) -> None:
    """With numpy alone: Dice of each class from the summed confusion matrix, F1 from hits and misses."""
    for task in ("Masks", "Points"):
        for path in (evaluated / "evaluations" / task).glob("*.json"):
            stated = json.loads(path.read_text())
            if stated["mode"] != "dense":
                continue
            with np.load(path.with_suffix(".npz")) as answers:
                assert len(set(answers["group"])) == 4
                if task == "Masks":
                    table = answers["seg"].sum(0)
                    dice = [2 * table[c, c] / (table[c].sum() + table[:, c].sum()) for c in (0, 1)]
                    assert stated["score"] == pytest.approx(np.mean(dice))
                else:
                    ((hits, false, missed),) = answers["points"].sum(0)
                    assert stated["score"] == pytest.approx(2 * hits / (2 * hits + false + missed))


def test_the_page_has_a_table_of_classes_and_one_of_masks_and_points(evaluated: Path) -> None:
    folder = evaluated / "sweeps" / "tiny" / "report"
    page = (folder / "report.html").read_text()
    for text in (
        "scores of classes on the test sets",
        "scores of masks and points on the test sets",
        "Dice",
        "F1",
        "dense<br>multi-task",
        "by dense on validation sets",
    ):
        assert text in page, text
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    by_metric = {(row["task"], row["metric"]): set() for row in rows}
    for row in rows:
        by_metric[row["task"], row["metric"]].add(row["column"])
    classes, dense = {"svm-imagenet", "svm-multitask"}, {"dense-imagenet", "dense-multitask"}
    assert by_metric == {
        ("Masks", "dice"): dense,
        ("Masks", "roc_auc"): classes,
        ("Points", "f1"): dense,
        ("Points", "roc_auc"): classes,
    }
    ranked = list(csv.DictReader((folder / "ranks.csv").read_text().splitlines()))
    assert {(row["task"], row["metric"]) for row in ranked} == {("Masks", "dice"), ("Points", "f1")}
    assert {row["dense"] for row in ranked} == {"True", "False"}


def test_differences_from_imagenet_are_on_the_same_groups(evaluated: Path) -> None:
    """Draws by hand: the mean Dice of the two ImageNet seeds and that of the run, of the same drawn groups."""
    found = [one for one in read_evaluations(evaluated / "evaluations") if one.mode == "dense" and one.task == "Masks"]
    (row,) = paper_tables.table(found, "toy", intervals=True)
    tables = {}
    for one in found:
        assert one.answers is not None
        with np.load(one.answers) as answers:
            names, group = np.unique(answers["group"], return_inverse=True)
            tables[one.source, one.seed] = np.stack([answers["seg"][group == g].sum(0) for g in range(len(names))])
    weights = bootstrap.drawn_weights(4)
    dice = {key: [_dice(np.tensordot(draw, of, 1)) for draw in weights] for key, of in tables.items()}
    baseline = np.mean([dice["imagenet", 0], dice["imagenet", 1]], axis=0)
    low, high = np.percentile(100 * (np.array(dice["multitask", 0]) - baseline), [2.5, 97.5])
    assert row.differences["dense"] == pytest.approx((low, high))


def _dice(table: NDArray[np.float64]) -> float:
    both = table.sum(0) + table.sum(1)
    return float(np.mean([2 * table[c, c] / both[c] for c in (0, 1) if both[c]]))
