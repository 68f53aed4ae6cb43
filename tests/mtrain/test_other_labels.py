"""Images with any number of classes, and images with a number: losses, training, scores, transfer and predictions."""

from __future__ import annotations

import csv
import json
import math
import tomllib
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

from mtrain.cli import group
from mtrain.config import FitConfig
from mtrain.data import sampling
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches
from mtrain.data.dataset import ShardDataset
from mtrain.data.labels import Scaling, scaling_of, strata
from mtrain.data.pool import open_pool
from mtrain.data.stream import StreamBatches
from mtrain.data.streamed_samples import StreamedTask, samples
from mtrain.data.task import open_task
from mtrain.errors import UsageError, UserError
from mtrain.model.heads import Head, load_heads
from mtrain.model.loss import head_scales, scale_head_gradients, squared_error, task_losses
from mtrain.model.task_heads import TaskHeads
from mtrain.report.details import errors_of
from mtrain.runs.run_folder import Run
from mtrain.scoring import label_scores
from mtrain.scoring.metrics import METRICS
from mtrain.soups.making import make
from mtrain.soups.weight_arithmetic import SoupRecipe
from mtrain.train import fit
from mtrain.transfers.classifiers import target_probes
from mtrain.transfers.features import write_features
from mtrain.transfers.label_errors import suspects
from tests.mtrain.pools import write_task
from tests.mtrain.test_fit import SMALL, Notes
from tests.mtrain.test_graph import ITERATIONS, Double, Unsupported, agree, trained, whole_state
from tests.other_labels import MANY, converted, draw

KINDS = {"A": "class", "B": "labels", "C": "value"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks Alpha (two classes), Many (any number of two classes) and Cells (a number)."""
    folder = converted(tmp_path_factory.mktemp("labels"))
    write_task(folder / "Alpha", sizes={"train": 12, "val": 4}, shape=(24, 24))
    return folder


@pytest.fixture(scope="module")
def run(shards: Path) -> Path:
    """A run of all three tasks."""
    call(
        "fit",
        "--iterations",
        "2",
        "--warmup",
        "0",
        "--batch",
        "8",
        "--shards",
        shards,
        "--run",
        "all",
        *COMMON,
        "--runs",
        shards.parent / "runs",
        "--size",
        "32",
        "--backbone",
        SMALL,
        "--weights",
        "random",
        "--train-on",
        "train",
        "--validate-every",
        "2",
    )
    return shards.parent / "runs"


COMMON = ("--workers", "0", "--device", "cpu", "-q")


def call(*arguments: Any) -> str:
    result = CliRunner().invoke(group, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: Any) -> str:
    result = CliRunner().invoke(group, list(map(str, arguments)))
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def heads() -> TaskHeads:
    return TaskHeads(1, {"A": 2, "B": 3, "C": 1}, KINDS)  # type: ignore[arg-type]


def test_losses_of_labels_and_numbers_by_hand() -> None:
    """Three classes, logits 0: ln 2 each, divided by ln 2. A number: (0.5 - 2)². The class: ln 2 of logits (0, 0)."""
    logits = torch.full((3, 6), 100.0)  # of other tasks, which must not count
    logits[0, :2], logits[1, 2:5], logits[2, 5] = 0, 0, 0.5
    wanted = torch.tensor([[0.0, 0, 0], [1, 0, 1], [2, 0, 0]])
    found = task_losses(logits, torch.tensor([1, -1, -1]), torch.tensor([0, 1, 2]), heads(), targets=wanted)
    assert found.tolist() == pytest.approx([math.log(2), 1, 2.25], rel=1e-6)
    logits[1, 2:5] = torch.tensor([math.log(3), 0, -math.log(3)])  # probabilities 3/4, 1/2, 1/4
    found = task_losses(logits, torch.tensor([1, -1, -1]), torch.tensor([0, 1, 2]), heads(), targets=wanted)
    assert float(found[1]) == pytest.approx(np.mean(np.log2([4 / 3, 2, 4])), rel=1e-6)
    errors = squared_error(torch.tensor([-1.0, 3, 5]))
    assert errors.tolist() == [1, 9, 9 + 2 * 6], "beyond 3, the tangent, of slope 6"


def test_classes_have_the_losses_of_a_pool_of_classes_bit_for_bit() -> None:
    torch.manual_seed(0)
    logits, labels, tasks = torch.randn(4, 6), torch.tensor([1, -1, 0, -1]), torch.tensor([0, 1, 0, 2])
    mixed = task_losses(logits, labels, tasks, heads(), 0.1, torch.rand(4, 3))
    alone = task_losses(logits[:, :2], labels.clamp(min=0), tasks * 0, TaskHeads(1, {"A": 2}), 0.1)
    parts = task_losses(logits[::2, :2], labels[::2], tasks[::2], TaskHeads(1, {"A": 2}), 0.1)
    assert torch.equal(mixed[:1], parts)
    assert not torch.equal(mixed[:1], alone)


@pytest.mark.parametrize("active", range(3))
def test_heads_without_samples_have_no_gradient_and_the_others_that_of_their_mean_loss(active: int) -> None:
    layer, features = heads(), torch.randn(4, 1, generator=torch.Generator().manual_seed(0))
    tasks = torch.full((4,), active)
    losses = task_losses(layer(features), torch.zeros(4, dtype=torch.int64), tasks, layer, targets=torch.ones(4, 3))
    (losses.sum() / 8).backward()  # a batch of 8, of which 4 are of other tasks
    scale_head_gradients(layer, head_scales([4 if n == active else 0 for n in range(3)]) * 2)
    assert layer.weight.grad is not None
    own = layer.task_of_row == active
    assert not layer.weight.grad[~own].any()
    plain, logits = layer.weight.detach()[own].requires_grad_(), features
    outputs = logits @ plain.T + layer.bias.detach()[own]
    mean = {
        0: lambda: torch.nn.functional.cross_entropy(outputs, torch.zeros(4, dtype=torch.int64)),
        1: lambda: torch.nn.functional.binary_cross_entropy_with_logits(outputs, torch.ones(4, 3)) / math.log(2),
        2: lambda: ((outputs - 1) ** 2).mean(),
    }[active]()
    mean.backward()  # type: ignore[no-untyped-call]
    assert plain.grad is not None
    assert torch.allclose(layer.weight.grad[own], plain.grad, rtol=1e-5)


def test_numbers_are_standardized_by_the_training_set(shards: Path) -> None:
    task = open_task(shards / "Cells")
    train, val = task.rows["train"], task.rows["val"]
    assert train.target is not None
    assert val.target is not None
    scaling = scaling_of(task)
    assert scaling == (pytest.approx(train.target.mean()), pytest.approx(train.target.std()))
    images = Images([(task, train)], scaled=True)
    values = images.targets(np.arange(len(train)))
    assert (values.mean(), values.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, rel=1e-6))
    both = Images([(open_task(shards / "Many"), open_task(shards / "Many").rows["val"]), (task, val)], scaled=True)
    found = both.targets(np.array([0, len(both) - 1]))
    assert found.shape == (2, 2)
    assert found[1].tolist() == pytest.approx([(val.target[-1, 0] - scaling.mean) / scaling.deviation, 0], rel=1e-5)
    assert set(strata(task, train).tolist()) == {0, 1, 2, 3, 4}


def test_a_recorded_and_resumed_training_of_all_kinds_has_the_bits_of_an_undisturbed_one(shards: Path) -> None:
    settings: dict[str, Any] = {"label_smoothing": 0.1, "batch": 4}
    calm, losses = trained(shards, Unsupported, range(2 * ITERATIONS), **settings)
    recorded, found = trained(shards, Double, range(ITERATIONS), **settings)
    assert recorded.recorded is not None
    assert recorded.recorded.losses
    assert torch.equal(found, losses[:ITERATIONS])
    resumed, _ = trained(shards, Double, range(ITERATIONS, 2 * ITERATIONS), whole_state(recorded), **settings)
    assert agree(whole_state(resumed), whole_state(calm))


def test_scores_of_labels_are_those_of_scikit_learn() -> None:
    """By hand: class 0 has one of two pairs in order, class 1 all four; class 2 has no ROC curve."""
    truth = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 1, 1]], float)
    values = np.array([[0.3, -2, 1], [0.1, -1, 2], [0.5, 1, 3], [0.2, 2, 4]])
    found = dict(label_scores.all_scores(truth, values))
    assert found["auc_0"] == pytest.approx(2 / 3)
    assert found["auc_1"] == 1
    assert math.isnan(found["auc_2"])
    assert found["macro_auc"] == pytest.approx(5 / 6)
    assert label_scores.undefined_classes(truth) == [2]
    assert found["accuracy"] == pytest.approx(9 / 12)
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 4)) < 0.3).astype(float)
    values = truth + rng.normal(size=(60, 4))
    assert dict(label_scores.all_scores(truth, values))["macro_auc"] == pytest.approx(roc_auc_score(truth, values))


def test_scores_of_numbers_are_those_of_scipy_and_scikit_learn_also_under_the_weights_of_the_bootstrap() -> None:
    """By hand: (1, 2, 3) against (1, 3, 2): covariance 1/3, variances 2/3: r = 1/2; errors 0, 1, 1."""
    found = dict(label_scores.all_scores(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])))
    assert (found["pearson"], found["mae"]) == (pytest.approx(0.5), pytest.approx(2 / 3))
    rng = np.random.default_rng(0)
    truth = 1e3 + rng.normal(size=50)
    values = truth + rng.normal(size=50)
    weights = rng.integers(0, 3, (4, 50)).astype(float)
    drawn = dict(label_scores.weighted_scores(truth, values, weights))
    for row, times in enumerate(weights.astype(int)):
        one, other = np.repeat(truth, times), np.repeat(values, times)
        assert drawn["pearson"][row] == pytest.approx(pearsonr(one, other).statistic)
        assert drawn["mae"][row] == pytest.approx(mean_absolute_error(one, other))
        assert drawn["r2"][row] == pytest.approx(r2_score(one, other))
    assert math.isnan(dict(label_scores.all_scores(truth, np.full(50, 7.0)))["pearson"]), "equal predictions"


def test_intervals_are_those_of_drawn_groups_and_paired_draws_compare_the_same_groups() -> None:
    rng = np.random.default_rng(1)
    truth, groups = rng.normal(size=40), [f"p{n // 4}" for n in range(40)]
    values = truth + rng.normal(size=40)
    low, high = label_scores.intervals(truth, values, groups)["pearson"]
    assert low < pearsonr(truth, values).statistic < high
    assert label_scores.intervals(truth, values, ["p"] * 40) == {}
    draws = label_scores.paired(truth, {"one": values, "other": 2 * values + 1}, groups, "pearson")
    assert draws["one"] == pytest.approx(draws["other"])
    assert np.nanpercentile(draws["one"], [2.5, 97.5]) == pytest.approx([low, high])


def test_probes_learn_what_is_linear_and_choose_by_groups() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5)).astype(np.float32)
    groups = [f"p{n // 4}" for n in range(80)]
    value = (3 * x[:, :1] - x[:, 1:2] + 100).astype(float)
    number = target_probes.TargetSet(x, value, groups, np.arange(80) % 5)
    probe = target_probes.ridge(number)
    assert probe.answer(x).decisions == pytest.approx(value[:, 0], abs=0.05)
    assert probe.score > 0.99
    labels = np.stack([x[:, 0] > 0, x[:, 1] > 0.5, np.ones(80)], axis=1).astype(float)
    many = target_probes.one_against_rest(
        target_probes.TargetSet(x, labels, groups, np.arange(80) % 5, ["a", "b", "c"]), "batched"
    )
    found = many.answer(x).decisions
    assert roc_auc_score(labels[:, :2], found[:, :2]) > 0.98
    assert (found[:, 2] == 1).all()
    assert many.notes[0] == "'c': all training samples have it, or none: nothing to learn"


@pytest.mark.parametrize(("task", "metric"), [("Cells", "pearson"), ("Many", "macro_auc")])
@pytest.mark.parametrize("mode", ["svm", "finetune"])
def test_a_transfer_is_scored_in_the_unit_with_intervals(task: str, metric: str, mode: str, run: Path) -> None:
    more = ("--epochs", "2", "--lr", "0.01") if mode == "finetune" else ()
    arguments = ("transfer", "--mode", mode, "--runs", run, "--run", "all", "--weights", "random", "--target", task)
    (found,) = json.loads(call(*arguments, *COMMON, *more, "--json"))
    assert found["metric"] == metric
    with np.load(next(run.glob(f"all/transfer/{task}-{mode}*.npz"))) as arrays:
        truth, values = arrays["target"], arrays["decisions"]
        assert set(arrays["label"]) == {-1}
    if task == "Cells":
        assert found["score"] == pytest.approx(pearsonr(truth[:, 0], values).statistic)
        assert found["scores"]["mae"] == pytest.approx(mean_absolute_error(truth[:, 0], values))
        assert found["unit"] == "cells"
        assert abs(values.mean() - truth.mean()) < 2, "in the unit"
    else:
        assert found["score"] == pytest.approx(roc_auc_score(truth, values))
    low, high = found["intervals"][metric]
    assert low <= found["score"] <= high
    lines = call(*arguments, *COMMON, *more)
    assert f"{task}: {METRICS[metric]} {found['score']:.4f}" in lines
    assert ("cells\n" in lines) == (task == "Cells")


@pytest.mark.parametrize(("task", "metric"), [("Cells", "pearson"), ("Many", "macro_auc")])
def test_few_shot_scores_are_those_of_weighted_means(task: str, metric: str, run: Path, shards: Path) -> None:
    (found,) = json.loads(
        call(
            "transfer",
            "--mode",
            "fewshot",
            "--runs",
            run,
            "--run",
            "all",
            "--weights",
            "random",
            "--target",
            task,
            *COMMON,
            "--json",
        )
    )
    ks = [one["k"] for one in found["curve"]]
    train = open_task(shards / task).rows["train"]
    assert ks == [k for k in (4, 8, 16, 32) if k <= len(train)]
    assert found["metric"] == metric
    assert found["score"] == found["curve"][-1]["mean"]
    assert [one["of"] for one in found["curve"]] == ["images"] * len(ks)


def test_few_shot_by_hand() -> None:
    """Two images in opposite directions: the one that an asked image resembles has exp(2 / 0.07) times the weight."""
    x = np.array([[1.0, 0], [-1, 0]], np.float32)
    near, between = target_probes.weighted_mean(x, np.array([[10.0], [20]]), np.array([[3.0, 0], [0, 1]], np.float32))
    assert near[0] == pytest.approx(10 + 10 / (1 + math.exp(2 / 0.07)))
    assert between[0] == 15
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 5)).astype(np.float32)
    y = x[:, :1] * 3 + 7.0
    sample = target_probes.TargetSet(x[:40], y[:40], ["g"] * 40, np.zeros(40, np.int64))
    curve = target_probes.few_shot(sample, x[40:], y[40:, 0], "pearson", seed=0, draws=3)
    picked = sampling.epoch(40, 0, 2).row[:32]
    again = target_probes.weighted_mean(x[picked], y[picked], x[40:])[:, 0]
    assert curve[-1]["scores"][2] == pytest.approx(pearsonr(y[40:, 0], again).statistic)
    assert curve[-1]["mean"] > 0.7


def test_labels_of_several_classes_are_audited_class_by_class_as_cleanlab_does() -> None:
    """Recorded with cleanlab 2.9.0: multilabel_classification.filter.find_multilabel_issues_per_class(labels, p,
    filter_by="confident_learning", return_indices_ranked_by="self_confidence")."""
    rng = np.random.default_rng(3)
    truth = rng.random((50, 3)) < 0.4
    p = 1 / (1 + np.exp(-(3.0 * (truth - 0.5) + rng.standard_normal((50, 3)))))
    given = truth ^ (rng.random((50, 3)) < 0.15)
    found = [
        suspects(given[:, number].astype(np.int64), np.stack([1 - p[:, number], p[:, number]], axis=1))[0].tolist()
        for number in range(3)
    ]
    assert found == [
        [47, 24, 33, 29, 35],
        [29, 15, 7, 49, 22, 9, 3, 39],
        [17, 23, 41, 4, 0, 2, 24, 38, 15, 12, 10],
    ]


def test_an_audit_names_the_class_in_doubt_and_lists_an_image_once(tmp_path: Path) -> None:
    """05 is wrong in both classes, 14 in green alone."""
    with (draw(tmp_path / "source") / "labels.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    for number, column in ((5, "red"), (5, "green"), (14, "green")):
        place = head.index(column)
        rows[number][place] = str(1 - int(rows[number][place]))
    with (tmp_path / "source" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    task = converted(tmp_path, {"many": MANY}) / "Many"
    (found,) = json.loads(
        call(
            "audit-labels",
            "--backbone",
            SMALL,
            "--weights",
            "random",
            "--size",
            "32",
            "--task",
            task,
            "--runs",
            tmp_path,
            "--out",
            tmp_path / "out",
            *COMMON,
            "--json",
        )
    )
    told = {(one["sample"], one["given"], one["predicted"]) for one in found["doubts"]}
    assert {("05", "red", "not red"), ("05", "green", "not green")} & told, told
    assert all({given, other} in ({"red", "not red"}, {"green", "not green"}) for _, given, other in told)
    listed = tomllib.loads((tmp_path / "out" / "Many.toml").read_text())["errata"][0]["samples"]
    assert listed == list(dict.fromkeys(one["sample"] for one in found["doubts"]))


def test_own_heads_are_scored_and_predict_in_the_unit(run: Path, shards: Path, tmp_path: Path) -> None:
    kept = load_heads(Run(run / "all").heads)
    assert kept["Cells"].about.scaling == scaling_of(open_task(shards / "Cells"))
    assert (kept["Cells"].about.unit, kept["Many"].about.target) == ("cells", "labels")
    assert kept["Alpha"].about.stated().keys().isdisjoint({"target", "unit", "scaling"}), "as before"
    (joint,) = json.loads(call("transfer", "--mode", "joint", "--runs", run, "--target", "Cells", *COMMON, "--json"))
    with np.load(run / "all" / "transfer" / "Cells-joint-run.npz") as arrays:
        value = dict(zip(arrays["key"], arrays["decisions"], strict=True))
    assert joint["scores"]["mae"] < 10
    key = min(value)
    image = shards.parent / "source" / f"{key[-2:]}.png"
    told = call("predict", "--runs", run, "--task", "Cells", "--out", tmp_path / "c", image, "--device", "cpu", "-q")
    assert told == f"{tmp_path / 'c' / 'images.csv'}: 1 image\n"
    with (tmp_path / "c" / "images.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["value (cells)"]) == pytest.approx(value[key], rel=1e-3)
    call("predict", "--runs", run, "--task", "Many", "--out", tmp_path / "m", image, "--device", "cpu", "-q")
    with (tmp_path / "m" / "images.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["file", "classes", "p red", "p green"]
    shown = [name for name in ("red", "green") if float(row[f"p {name}"]) > 0.5]
    assert row["classes"] == "; ".join(shown)


@pytest.mark.parametrize("mode", ["eva", "logistic", "knn"])
def test_modes_for_classes_refuse_other_labels(mode: str, run: Path) -> None:
    told = refused("transfer", "--mode", mode, "--runs", run, "--weights", "random", "--target", "Many", *COMMON)
    assert f"--mode {mode} cannot score Many, of kind 'multilabel'" in told
    assert "use --mode svm, fewshot, finetune, scratch or joint" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("audit-labels", "--weights", "random", "--task", "Cells"),
            "mtrain audit-labels needs classes, one or several an image, and Cells has numbers",
        ),
        (("export", "--to", "safetensors", "--task", "Many", "--accept-licence"), "an exported head has one class"),
        (("influence", "--target", "Cells"), "mtrain influence needs images of one class each (the method is"),
        (("robustness", "--target", "Cells", "--by", "x"), "each (PathoROB's index counts neighbours"),
    ],
)
def test_what_needs_classes_says_so(arguments: tuple[str, ...], told: str, run: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "x") if arguments[0] == "export" else ()
    assert told in refused(*arguments, "--runs", run, *out)


def test_the_page_of_a_run_shows_these_tasks(run: Path) -> None:
    call("report", "--runs", run)
    (page,) = run.glob("all/report.md")
    assert "| Cells | train | a number |" in page.read_text() or "a number" in page.read_text()
    results = {"scores": {"mae": 1.25, "rmse": 2.0}, "intervals": {"mae": [1.0, 1.5]}, "unit": "cells"}
    assert errors_of([results, {"scores": {}}]) == [
        ("mean absolute error (cells)", ["1.25 [1, 1.5]", "–"]),
        ("root mean squared error (cells)", ["2", "–"]),
    ]


def test_the_page_of_a_run_states_errors_in_the_unit(run: Path) -> None:
    (found,) = json.loads(
        call(
            "transfer",
            "--mode",
            "svm",
            "--runs",
            run,
            "--run",
            "all",
            "--weights",
            "random",
            "--target",
            "Cells",
            *COMMON,
            "--json",
        )
    )
    call("report", "--runs", run)
    for suffix in ("md", "html"):
        (page,) = run.glob(f"all/report.{suffix}")
        assert "mean absolute error (cells)" in page.read_text()
        assert f"{found['scores']['mae']:.4g} [" in page.read_text()
        assert f"{found['scores']['rmse']:.4g} [" in page.read_text()


def test_a_stream_gives_the_targets_of_its_images(shards: Path) -> None:
    """The numbers and classes of the index, found by the keys of the samples."""
    for name in ("Many", "Cells"):
        task = open_task(shards / name)
        rows = task.rows["train"]
        assert rows.target is not None
        known = dict(zip(rows.key, scaling_of(task).standardized(rows.target), strict=True))
        for sample in islice(samples(StreamedTask.of(task), 4, "seed"), 2 * len(rows)):
            assert sample.targets is not None
            assert sample.targets.tolist() == pytest.approx(known[sample.key].tolist())


def test_a_streamed_batch_has_every_kind_of_label(shards: Path) -> None:
    tasks = open_pool(shards).tasks
    (batch,) = batches(StreamBatches(tasks, 32, 0, range(24), sampling.Stream.TRAIN), range(1), workers=0)
    names = np.repeat([task.name for task in tasks], batch.counts.tolist())
    label_scores = {name: batch.targets.numpy()[names == name] for name in set(names)}
    assert batch.targets.shape == (24, 2)
    assert not label_scores["Alpha"].any()
    assert set(label_scores["Many"].flatten()) == {0, 1}
    assert not label_scores["Cells"][:, 1].any()
    labels = {name: set(batch.labels.numpy()[names == name]) for name in set(names)}
    assert labels == {"Alpha": {0, 1}, "Many": {-1}, "Cells": {-1}}


def test_a_training_streams_every_kind_of_label(shards: Path, tmp_path: Path) -> None:
    settings = {"shards": str(shards), "backbone": SMALL, "weights": "random", "iterations": 2, "size": 32}
    settings |= {"batch": 8, "warmup": 0, "adapt_batches": 1, "workers": 0, "device": "cpu"}
    assert fit.fit(FitConfig(**settings, stream=True), Run(tmp_path / "r"), Notes()) == "finished"


def test_equal_numbers_are_refused(shards: Path) -> None:
    task = open_task(shards / "Cells")
    rows = task.rows["train"].take([0, 0])
    with pytest.raises(UsageError, match="all numbers of the training set of Cells are equal"):
        scaling_of(task, rows)
    assert Scaling(10, 2).in_unit(Scaling(10, 2).standardized(np.array([3.0]))).tolist() == [3.0]


def test_datasets_give_arrays_and_numbers(shards: Path) -> None:
    assert ShardDataset(shards / "Many")[0][1].dtype == np.float32
    assert set(np.concatenate(ShardDataset(shards / "Many").targets).tolist()) == {0.0, 1.0}
    assert isinstance(ShardDataset(shards / "Cells")[0][1], float)
    assert isinstance(ShardDataset(shards / "Alpha")[0][1], int)


def test_features_are_written_with_the_labels_or_the_number_of_each_row(
    run: Path, shards: Path, tmp_path: Path
) -> None:
    of_run = ("--runs", run, "--run", "all", "--task", "Many", "--task", "Cells")
    call("features", *of_run, "--out", tmp_path, "--workers", "0", "--device", "cpu", "-q")
    for task, head in {"Many": [*open_task(shards / "Many").card.classes], "Cells": ["value"]}.items():
        rows = open_task(shards / task).rows["val"]
        with (tmp_path / f"{task}-val.csv").open(newline="") as file:
            columns, *written = csv.reader(file)
        assert columns == ["key", *head, "group"]
        assert [row[0] for row in written] == rows.key.tolist()
        assert rows.target is not None
        np.testing.assert_array_equal([[float(cell) for cell in row[1:-1]] for row in written], rows.target)


def test_classes_named_as_another_column_have_a_column_of_their_own(shards: Path, tmp_path: Path) -> None:
    task = open_task(shards / "Many")
    task = replace(task, card=task.card.model_copy(update={"classes": ["key", "group"]}))
    rows = task.rows["val"]
    write_features(np.zeros((len(rows), 1), np.float32), task, rows, tmp_path / "Many-val.npy")
    head = (tmp_path / "Many-val.csv").read_text().splitlines()[0]
    assert head == "key,class key,class group,group"


def test_an_average_of_runs_on_other_sets_predicts_the_mean_of_their_numbers(run: Path, shards: Path) -> None:
    """Their heads standardize numbers by another mean and deviation; features of the same weights are the same."""
    words = (
        "--iterations",
        "1",
        "--warmup",
        "1",
        "--batch",
        "8",
        "--shards",
        shards,
        "--runs",
        run,
        "--size",
        "32",
        "--backbone",
        SMALL,
        "--weights",
        "random",
        "--tune",
        "heads",
        *COMMON,
    )
    for name, sets in (("one", "train"), ("two", "train+val")):
        call("fit", *words, "--run", f"sets-{name}", "--train-on", sets)
    parts = (Run(run / "sets-one"), Run(run / "sets-two"))
    make(SoupRecipe(parts), Run(run / "sets-soup"), Notes(), device="cpu", workers=0)
    one, two, soup = (load_heads(of.heads)["Cells"] for of in (*parts, Run(run / "sets-soup")))
    assert one.about.scaling != two.about.scaling
    features = torch.randn(4, one.weight.shape[1], generator=torch.Generator().manual_seed(0))

    def numbers(of: Head) -> npt.NDArray[np.float64]:
        outputs = features @ of.weight.T + of.bias
        return (of.about.scaling or Scaling()).in_unit(outputs[:, 0].double().numpy())

    np.testing.assert_allclose(numbers(soup), (numbers(one) + numbers(two)) / 2, rtol=1e-5)


def test_statistics_of_an_average_are_measured_on_a_pool_with_numbers(run: Path, shards: Path) -> None:
    """A head without classes made torch warn."""
    words = (
        "--iterations",
        "1",
        "--warmup",
        "0",
        "--batch",
        "8",
        "--shards",
        shards,
        "--runs",
        run,
        "--size",
        "32",
        "--backbone",
        SMALL,
        "--weights",
        "random",
        "--lr",
        "0.01",
        *COMMON,
    )
    for name, sets in (("three", "train"), ("four", "train+val")):
        call("fit", *words, "--run", f"sets-{name}", "--train-on", sets)
    recipe = SoupRecipe((Run(run / "sets-three"), Run(run / "sets-four")))
    made = make(recipe, Run(run / "numbers"), Notes(), device="cpu", workers=0)
    assert made["images"] > 0
