"""Estimates of what source tasks did to a target: on small linear problems with a known answer, and from end to end."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.data.batches.image_batches import ordered_batches
from mtrain.data.choice import read_advice
from mtrain.disk.documents import read_document, write_document
from mtrain.errors import DivergedError, RunError, UsageError
from mtrain.influence import surrogate
from mtrain.influence.estimator import InfluenceOptions
from mtrain.influence.indicators import cosine
from mtrain.influence.margins import Margins, margin, margins, moving
from mtrain.influence.matrix import matrix
from mtrain.influence.probe import FreshProbe, fresh_probe
from mtrain.influence.projection import Projection
from mtrain.influence.retraining import compared
from mtrain.influence.subsets import all_subsets, drawn, retraining
from mtrain.influence.task_effects import influence
from mtrain.model.heads import load_heads
from mtrain.report.pages.influence_page import lines, matrix_lines
from mtrain.runs.run_folder import Run
from mtrain.train.fit import fit
from mtrain.transfers.classifiers.probes import TrainingSet
from mtrain.transfers.request import targets
from mtrain.transfers.transfer import source_of
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import Notes
from tests.small_programs import call

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


def linear_task(direction: np.ndarray, n: int = 200, sign: int = 1, dimensions: int = 5) -> Margins:
    """A task of a linear model at w = 0 whose labels are those of `direction`, or their opposites: the margin of a
    sample x with label y (-1 or 1) is y w.x, its gradient y x.
    """
    x = RNG.normal(size=(n, dimensions))
    labels = sign * np.sign(x @ direction)
    return Margins(np.zeros(n), labels[:, None] * x)


def linear_target(direction: np.ndarray) -> surrogate.Target:
    """A target of the same model, whose probe has one weight that does nothing."""
    train, scored = linear_task(direction), linear_task(direction)
    nothing = np.zeros((200, 1))
    return surrogate.Target(train, scored, nothing, nothing, 1.0)


def test_a_task_of_opposite_labels_has_a_negative_theta_and_one_of_the_same_labels_a_positive_one() -> None:
    truth = np.array([1.0, 0.5, 0.0, 0.0, 0.0])
    sources = {"Same": linear_task(truth), "Opposite": linear_task(truth, sign=-1), "Other": linear_task(np.eye(5)[4])}
    target = linear_target(truth)
    subsets = all_subsets(list(sources))
    losses = np.array([surrogate.target_losses(target, surrogate.moved_by(sources, s, 0.1)).mean() for s in subsets])
    theta = surrogate.effects(surrogate.memberships(subsets, list(sources)), losses)
    assert theta[0] > 0.1
    assert theta[1] < -0.1
    assert theta[0] > theta[2] > theta[1]
    assert subsets[int(np.argmin(losses))] == ("Same",)


def test_the_minimum_is_that_of_an_independent_optimiser() -> None:
    x, offset, line = RNG.normal(size=(60, 4)), RNG.normal(size=60), RNG.normal(size=4) / 10
    weights = RNG.random(60) / 60

    def value(w: np.ndarray) -> float:
        return float(weights @ np.log1p(np.exp(-(offset + x @ w))) + 0.05 * w @ w + line @ w)

    expected = minimize(value, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(surrogate.minimum(x, offset, weights, 0.1, line), expected, atol=1e-5)


def test_one_step_of_a_single_sample_by_hand() -> None:
    """One sample with margin 0 and gradient 1, ridge 0.5: w solves sigmoid(-w) = w / 2."""
    (w,) = surrogate.minimum(np.ones((1, 1)), np.zeros(1), np.ones(1), 0.5)
    assert 1 / (1 + np.exp(w)) == pytest.approx(w / 2, abs=1e-6)


def test_a_probe_stays_where_it_is_while_the_weights_do_not_move() -> None:
    head = RNG.normal(size=(30, 3))
    of = Margins(RNG.normal(size=30), RNG.normal(size=(30, 2)))
    target = surrogate.Target(of, of, head, head, 0.2)
    np.testing.assert_allclose(surrogate.target_losses(target, np.zeros(2)), np.log1p(np.exp(-of.margins)), rtol=1e-6)


def test_a_probe_that_is_fitted_again_makes_up_for_a_shift_that_it_can_follow() -> None:
    """The weights move every margin of the target down by the same direction that the probe itself can move."""
    x = RNG.normal(size=(100, 1))
    of = Margins(np.ones(100), -x)
    target = surrogate.Target(of, of, x, x, 1e-6)
    moved = surrogate.target_losses(target, np.array([2.0])).mean()
    assert moved == pytest.approx(surrogate.target_losses(target, np.zeros(1)).mean(), abs=1e-3)


def test_effects_are_the_coefficients_of_a_linear_loss() -> None:
    subsets = all_subsets(["A", "B", "C"])
    members = surrogate.memberships(subsets, ["A", "B", "C"])
    losses = 2.0 + members @ np.array([-0.3, 0.2, 0.0])
    np.testing.assert_allclose(surrogate.effects(members, losses), [0.3, -0.2, 0.0], atol=1e-12)


def test_a_margin_gives_the_cross_entropy_whatever_the_number_of_classes() -> None:
    for classes in (2, 5):
        logits, label = torch.randn(classes), torch.tensor(1)
        expected = F.cross_entropy(logits[None], label[None])
        torch.testing.assert_close(F.softplus(-margin(logits, label)), expected)


def test_a_projection_keeps_inner_products_and_depends_on_the_seed_alone() -> None:
    one, other = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    other = other + one
    project = Projection(5000, 800, 3, CPU)
    a, b = project(torch.stack([one, other]))
    assert float(a @ b) == pytest.approx(float(one @ other), rel=0.15)
    torch.testing.assert_close(Projection(5000, 800, 3, CPU)(one[None])[0], a, rtol=0, atol=0)
    assert not torch.equal(Projection(5000, 800, 4, CPU)(one[None])[0], a)


@pytest.mark.parametrize("present", [(0, 2), (0, 1, 3)])
def test_a_class_without_training_images_takes_no_probability(present: tuple[int, ...]) -> None:
    """The probe's margins are those of scikit-learn's probabilities, among the classes that it has seen."""
    labels = np.repeat(present, 20)
    features = (RNG.normal(size=(len(labels), 3)) + labels[:, None]).astype(np.float32)
    groups = [str(number) for number in range(len(labels))]
    probe = fresh_probe(TrainingSet(features, labels, groups, 4, "accuracy", "cpu"))
    weight, bias = probe.head()
    found = torch.softmax(torch.from_numpy(features) @ weight.T + bias, 1).numpy()
    scaled = (features - probe.mean) / probe.scale
    machine = LogisticRegression(C=1 / (probe.penalty * len(labels)), max_iter=2000).fit(scaled, labels)
    expected = np.zeros((len(labels), 4))
    expected[:, machine.classes_] = machine.predict_proba(scaled)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.isfinite(probe.gradients(features, labels)).all()


def test_gradients_of_a_probe_are_those_of_autograd() -> None:
    for classes in (2, 3):
        probe = FreshProbe(RNG.normal(size=(classes, 5)), RNG.normal(size=4), 1 + RNG.random(4), 0.1)
        if classes == 2:
            probe.weight[0] = 0
        x, labels = RNG.normal(size=(6, 4)).astype(np.float32), np.array([0, 1, classes - 1, 0, 1, 0])
        weight = torch.tensor(probe.weight, requires_grad=True)
        rows = np.append((x - probe.mean) / probe.scale, np.ones((6, 1)), axis=1)
        for got, row, label in zip(probe.gradients(x, labels), rows, labels, strict=True):
            value = margin(weight @ torch.tensor(row), torch.tensor(label))
            (expected,) = torch.autograd.grad(value, weight)
            np.testing.assert_allclose(got, (expected[1:] if classes == 2 else expected).numpy().ravel(), rtol=1e-4)
        head, bias = probe.head()
        np.testing.assert_allclose((x @ head.numpy().T + bias.numpy()), rows @ probe.weight.T, rtol=1e-3, atol=1e-4)


def test_the_last_stages_are_taken_from_the_end() -> None:
    body = nn.Sequential(nn.Linear(50, 50), nn.Sequential(nn.Linear(50, 20), nn.ReLU()), nn.Linear(20, 3))
    assert set(moving(body, "last")) == {"1.0.weight", "1.0.bias", "2.weight", "2.bias"}
    assert len(moving(body, "all")) == 6


def test_subsets_are_drawn_by_the_seed_and_shared_among_targets() -> None:
    tasks = [f"T{i}" for i in range(10)]
    first = drawn(tasks, tasks[1:], 20, 0)
    assert first == drawn(tasks, tasks[1:], 20, 0) != drawn(tasks, tasks[1:], 20, 1)
    assert len(set(first)) == 20
    assert all("T0" not in subset for subset in first)
    assert set(first) & set(drawn(tasks, tasks[:-1], 40, 0))
    assert drawn(tasks, ["T1", "T2"], 5, 0) == [("T1",), ("T2",), ("T1", "T2")]


def test_cosines_of_opposite_and_of_no_gradients() -> None:
    assert cosine(np.array([1.0, 0.0]), np.array([-2.0, 0.0])) == -1.0
    assert cosine(np.zeros(2), np.ones(2)) is None


def test_a_comparison_with_the_truth_counts_signs_and_ranks() -> None:
    rows = [
        {
            "tasks": list(subset),
            "estimate": 1.0 - 0.2 * ("A" in subset) + 0.1 * ("B" in subset),
            "loss": 2.0 - 0.4 * ("A" in subset) - 0.1 * ("B" in subset),
            "score": 0.5,
            "iterations": 1,
        }
        for subset in all_subsets(["A", "B", "C"])
    ]
    found = compared(rows, ["A", "B", "C"], seed=0)
    by_name = {one["task"]: one for one in found["sources"]}
    assert by_name["A"]["right"]
    assert not by_name["B"]["right"]
    assert by_name["A"]["truth"] == pytest.approx(0.4)
    assert found["rank_correlation"]["value"] == pytest.approx(0.5, abs=0.4)
    low, high = found["rank_correlation"]["interval"]
    assert low < found["rank_correlation"]["value"] <= high


# --- from end to end


SETTINGS = {"backbone": "shufflenet_v2_x0_5", "weights": "random", "iterations": 3, "warmup": 1, "batch": 8, "lr": 0.01}
SETTINGS |= {"adapt_batches": 0, "size": 32, "workers": 0, "device": "cpu", "train_on": "train"}
OPTIONS = InfluenceOptions(samples=10, dimensions=20, workers=0, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on Alpha, Beta and Gamma; it left Delta out."""
    folder = tmp_path_factory.mktemp("influence")
    shards = write_pool(
        folder / "shards", ["Alpha", "Beta", "Gamma", "Delta"], sizes={"train": 12, "val": 8, "test": 4}
    )
    run = Run(folder / "runs" / "base")
    assert fit(FitConfig(**SETTINGS, shards=str(shards), leave_out=("Delta",)), run, Notes()) == "finished"
    return run


def estimate(run: Run, options: InfluenceOptions = OPTIONS) -> dict[str, Any]:
    return influence(run, targets(run, None, ["Delta"])[0], run.config().shards, options, Notes())[0]


def test_an_estimate_is_deterministic_and_never_opens_the_test_set(run: Run) -> None:
    first = estimate(run)
    path = run.path / "influence" / "Delta-last.json"
    path.unlink()
    again = estimate(run)
    assert [row["theta"] for row in again["sources"]] == [row["theta"] for row in first["sources"]]
    assert again["subsets"] == 7
    assert again["saw"] == {"Delta": ["train", "val"], "Alpha": ["train"], "Beta": ["train"], "Gamma": ["train"]}
    assert read_advice(path)[0].target == "Delta"
    assert [len(one["tasks"]) for one in again["best"]] == [1, 2, 3]
    assert estimate(run, InfluenceOptions(**{**vars(OPTIONS), "seed": 1}))["sources"] != first["sources"]


@pytest.mark.parametrize("layers", ["last", "all"])
def test_the_gradients_are_those_of_autograd_one_sample_at_a_time(run: Run, layers: str) -> None:
    task, network = targets(run, None, ["Alpha"])[0], source_of(run, "run").network.eval()
    rows, head = task.rows["train"].take(range(5)), load_heads(run.heads)["Alpha"]
    named = moving(network.body, layers)
    projection = Projection(sum(p.numel() for p in named.values()), 20, 0, CPU)
    how: dict[str, Any] = {"size": 32, "workers": 0, "device": CPU}
    parameters = {name: p.detach() for name, p in named.items()}
    found = margins(network, (head.weight, head.bias), task, rows, projection, parameters, **how)
    for images, places in ordered_batches(task, rows, batch=1, **how):
        logits = F.linear(network(network.normalize(images)), head.weight, head.bias)[0]
        own = int(rows.label[places[0]])
        value = logits[own] - torch.logsumexp(torch.cat([logits[:own], logits[own + 1 :]]), 0)
        flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(named.values()))])
        np.testing.assert_allclose(found.margins[places[0]], value.item(), rtol=1e-3, atol=1e-5)
        expected = projection(flat[None])[0].numpy()
        np.testing.assert_allclose(found.gradients[places[0]], expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


def test_an_estimate_that_is_impossible_gives_no_sign_and_drops_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe on features that hardly vary has gradients that are huge: the losses are far beyond those of a guess."""

    def steep(*given: Any, **how: Any) -> Margins:
        found = margins(*given, **how)
        return Margins(found.margins, found.gradients * (1e6 if given[2].name == "Delta" else 1))

    shutil.copytree(run.path.parent, tmp_path / "runs", ignore=shutil.ignore_patterns("influence"))
    monkeypatch.setattr("mtrain.influence.estimator.margins", steep)
    found = estimate(Run(tmp_path / "runs" / "base"))
    assert {row["sign"] for row in found["sources"]} == {"unclear"}
    assert (found["leave_out"], found["best"]) == ([], [])
    assert "the estimate says nothing: it is linear" in found["notes"][-1]
    assert any(line.startswith("note: the estimate says nothing") for line in lines(found))


def test_a_target_with_a_class_that_no_training_image_has_is_refused(run: Run, tmp_path: Path) -> None:
    task = targets(run, None, ["Delta"])[0]
    train = task.rows["train"]
    ones = dataclasses.replace(task, rows={**task.rows, "train": train.take(np.flatnonzero(train.label == 0))})
    with pytest.raises(UsageError, match=f"no image of a class of the validation set.*found {task.classes[1]}"):
        influence(run, ones, run.config().shards, OPTIONS, Notes())


def test_a_target_of_a_single_class_is_refused_by_its_name(run: Run) -> None:
    task = targets(run, None, ["Delta"])[0]
    rows = {split: rows.take(np.flatnonzero(rows.label == 0)) for split, rows in task.rows.items()}
    with pytest.raises(UsageError, match="the training set of Delta holds a single class, so no probe"):
        influence(run, dataclasses.replace(task, rows=rows), run.config().shards, OPTIONS, Notes())


def test_the_command_estimates_verifies_and_writes_a_page(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["influence", "--runs", str(run.path.parent), "--run", "base", "--samples", "10", "--dimensions", "20"]
    assert call("mtrain", [*words, "--layers", "all", "--verify", "3", "--device", "cpu", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["verification"]["subsets"] == 3
    stored = read_document(Path(printed["file"]), "")
    assert stored["verification"] == printed["verification"]
    page = Path(printed["page"]).read_text()
    assert "Delta, all layers" in page
    assert "trained:" in page
    assert call("mtrain", [*words, "--layers", "all", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "theta" in out
    assert "verified by 3 training runs" in out


def test_a_run_that_has_trained_on_the_target_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="trained on the train set of Alpha"):
        influence(run, targets(run, None, ["Alpha"])[0], run.config().shards, OPTIONS, Notes())


def test_a_run_whose_network_did_not_move_is_refused(run: Run, tmp_path: Path) -> None:
    still = Run(tmp_path / "runs" / "still")
    config = FitConfig(**SETTINGS | {"tune": "heads"}, shards=run.config().shards, leave_out=("Delta",))
    fit(config, still, Notes())
    with pytest.raises(UsageError, match="did not move the shared network"):
        estimate(still)


def test_a_changed_document_is_made_again_and_not_believed(run: Run) -> None:
    estimate(run)
    path = run.path / "influence" / "Delta-last.json"
    path.write_text(path.read_text().replace('"helps"', '"harms"').replace('"unclear"', '"harms"'))
    with pytest.raises(RunError, match="changed since it was written"):
        read_advice(path)
    assert estimate(run)["kind"] == "influence"
    assert read_advice(path)[0].target == "Delta"


# --- the transfer matrix


def test_a_matrix_probes_each_network_on_every_other_task(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["influence", "--runs", str(run.path.parent), "--run", "base", "--samples", "10", "--dimensions", "20"]
    words += ["--device", "cpu", "--workers", "0"]
    assert call("mtrain", [*words, "--matrix", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = printed["matrix"]
    assert [row["source"] for row in found["rows"]] == [None, "Alpha", "Beta", "Gamma"]
    assert [row["iterations"] for row in found["rows"]] == [0, 2, 2, 2]
    assert [sorted(row["cells"]) for row in found["rows"]] == [
        ["Alpha", "Beta", "Delta", "Gamma"],
        ["Beta", "Delta", "Gamma"],
        ["Alpha", "Delta", "Gamma"],
        ["Alpha", "Beta", "Delta"],
    ]
    assert found["cost"] | {"seconds": 0} == {"trainings": 3, "probes": 13, "seconds": 0}
    alone = Run(run.path.parent / ".subsets" / found["rows"][1]["run"])
    assert (alone.trained_on(), alone.config().warmup) == ({"Alpha": ("train",)}, 0)  # 1 of 3 iterations, of 2
    assert found["rows"][1]["cells"]["Delta"]["score"] == by_sklearn(alone, "Delta")
    assert "Transfer matrix" in (page := Path(printed["page"]).read_text())
    assert page.count("2 iterations") == 3
    low, high = found["rows"][1]["cells"]["Delta"]["interval"]
    assert f"[{100 * low:.1f}, {100 * high:.1f}]" in page  # in percent, as the score above it
    cells = [row["cells"] for row in found["rows"]]
    told = list(lines(printed))
    head = "transfer matrix (logistic probes of networks of one task each; 3 training runs, 13 probes, "
    assert head in "\n".join(told)
    scores = ", ".join(f"{name} {cells[1][name]['score']:.4f}" for name in ("Beta", "Gamma", "Delta"))
    assert f"  Alpha: {scores}" in told


def test_a_wide_matrix_fits_a_terminal_and_divides_no_cell() -> None:
    names = [f"Some long task {number}" for number in range(9)]
    cells = {name: {"score": 0.5} for name in names[1:]} | {names[4]: {"why": "one class"}}
    found = {
        "mode": "logistic",
        "targets": [{"task": name} for name in names],
        "rows": [{"source": names[0], "cells": cells}],
        "cost": {"trainings": 1, "probes": 8, "seconds": 1.0},
    }
    head, *told = matrix_lines(found)
    assert "1 training run, 8 probes" in head
    assert max(map(len, told)) <= 80 < sum(map(len, told))
    joined = " ".join(line.strip() for line in told)
    assert joined == f"{names[0]}: " + ", ".join(
        f"{name} {'–' if name == names[4] else '0.5000'}" for name in names[1:]
    )
    assert all(line.endswith(",") for line in told[:-1])


def by_sklearn(run: Run, name: str) -> float:
    """The ROC AUC on the validation set of scikit-learn's regression, with the penalty that the result states."""
    task, source = targets(run, None, [name])[0], source_of(run, "run")
    x = {split: features_of(source, task, split) for split in ("train", "val")}
    result = json.loads((run.path / "transfer" / f"{name}-logistic-run.json").read_text())
    scaler = StandardScaler().fit(x["train"])
    model = LogisticRegression(C=result["C"], max_iter=10_000, tol=1e-8)
    model.fit(scaler.transform(x["train"]), task.rows["train"].label)
    return float(roc_auc_score(task.rows["val"].label, model.decision_function(scaler.transform(x["val"]))))


def features_of(source: Any, task: Any, split: str) -> np.ndarray:
    network = source.network.eval()
    batches = ordered_batches(task, task.rows[split], batch=64, size=32, workers=0, device=CPU)
    with torch.no_grad():
        return np.concatenate([network(network.normalize(images)).numpy() for images, _ in batches])


def test_runs_of_an_estimate_read_the_shards_where_they_are_now(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a joint target they read its training set alone, as the run did; one that diverges stops no other."""
    base, moved = Run(tmp_path / "runs" / "base"), tmp_path / "moved"
    about = run.about()
    base.write(
        "config.json", about | {"config": about["config"] | {"joint": ["beta"], "shards": str(tmp_path / "gone")}}
    )
    shutil.copytree(run.config().shards, moved)
    other, config = retraining(base, ("Alpha", "Beta"), moved)
    assert (config.shards, config.joint) == (str(moved), ("beta",))
    assert other.path == retraining(base, ("Alpha", "Beta"), tmp_path)[0].path
    assert retraining(base, ("Alpha",), moved)[1].joint == ()

    def trained(config: FitConfig, other: Run, report: Reporter) -> str:
        assert config.shards == str(moved)
        if config.tasks == ("Beta",):
            raise DivergedError("the training has diverged")
        return fit(config, other, report)

    monkeypatch.setattr("mtrain.influence.matrix.fit", trained)
    notes, (delta,) = Notes(), targets(base, moved, ["Delta"])
    found = matrix(base, delta, moved, [], 1, notes, workers=0, device="cpu")
    assert [row["source"] for row in found["rows"]] == [None, "Alpha", "Beta", "Gamma"]
    assert found["rows"][2]["cells"]["Delta"] == {"why": "the training has diverged"}
    assert found["rows"][3]["cells"]["Delta"]["score"] is not None
    assert (found["cost"]["trainings"], found["cost"]["probes"]) == (2, 10)
    assert notes.said == ["no network of Beta alone: the training has diverged"]


def test_given_runs_are_the_networks_of_their_tasks_and_others_are_refused(run: Run, tmp_path: Path) -> None:
    settings = {**SETTINGS, "shards": run.config().shards, "leave_out": ("Delta",)}
    alone, two, other = (Run(tmp_path / name) for name in ("alone", "two", "other"))
    fit(FitConfig(**settings, tasks=("Beta",)), alone, Notes())
    for copy, changed in ((two, {"pool": {"Alpha": "", "Beta": ""}}), (other, {"config": settings | {"size": 48}})):
        shutil.copytree(alone.path, copy.path)
        write_document(copy.path / "config.json", alone.about() | changed)
    (delta,), how = targets(run, None, ["Delta"]), {"workers": 0, "device": "cpu"}
    found = matrix(run, delta, run.config().shards, [alone], None, Notes(), **how)  # type: ignore[arg-type]
    assert [(row["source"], row["run"]) for row in found["rows"]][1:] == [("Beta", "alone")]
    for given, said in (
        ([two], "was not trained on a single task of base"),
        ([other], "another network, size or start"),
        ([alone, Run(alone.path)], "two runs were trained on only Beta"),
    ):
        with pytest.raises(UsageError, match=said):
            matrix(run, delta, run.config().shards, given, None, Notes(), **how)  # type: ignore[arg-type]
