"""The recipe of kaiko-eva: beside a plain loop of torch, and as a mode of transfer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from dpconvert.runtime.progress import Reporter
from mtrain.data import sampling
from mtrain.data.pool import find_task, open_pool
from mtrain.data.task import open_task
from mtrain.errors import UsageError
from mtrain.evaluation.evaluate import opened
from mtrain.runs.run_folder import Run
from mtrain.scoring import metrics
from mtrain.scoring.predictions import read_answers
from mtrain.transfers import eva
from mtrain.transfers.eva import EvaRecipe, EvaSet
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.transfer import TransferOptions, result_path, source_of, transfer_runs
from tests.mtrain.pools import write_task
from tests.mtrain.test_transfer import run, trained

__all__ = ["run", "trained"]
QUIET = Reporter(quiet=True)
SHORT = EvaRecipe(steps=40, rate=0.05, batch=16, patience=0.5)


def a_set(classes: int, n: int, seed: int) -> EvaSet:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centres = np.random.default_rng(9).normal(size=(classes, 6))
    return EvaSet((centres[y] + 1.3 * rng.normal(size=(n, 6))).astype(np.float32), y)


@pytest.mark.parametrize(
    ("samples", "steps", "epochs", "patience"),
    [(268, 2, 6250, 1250), (1132, 5, 2500, 500), (100_000, 391, 31, 7), (262_144, 1024, 12, 3), (9, 1, 12500, 2500)],
)
def test_epochs_and_patience_are_those_of_the_configurations(
    samples: int, steps: int, epochs: int, patience: int
) -> None:
    recipe = EvaRecipe()
    assert recipe.steps_per_epoch(samples) == steps
    assert recipe.epochs(samples) == epochs
    assert recipe.patience_epochs(samples) == patience


def test_more_samples_than_the_steps_can_show_give_one_epoch_of_all_steps() -> None:
    assert EvaRecipe(steps=3, batch=4).epochs(100) == 1
    layer = eva.train(a_set(2, 100, 0), a_set(2, 20, 1), 2, 0, "cpu", QUIET, EvaRecipe(steps=3, batch=4))
    assert (layer.epoch, layer.epochs) == (1, 1)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_layer_is_that_of_a_plain_loop(classes: int) -> None:
    training, val = a_set(classes, 50, 0), a_set(classes, 40, 1)
    found = eva.train(training, val, classes, 3, "cpu", QUIET, SHORT)

    torch.manual_seed(3)
    layer = torch.nn.Linear(6, 1 if classes == 2 else classes)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.05, betas=(0.9, 0.999), weight_decay=0.01)
    loss = torch.nn.BCEWithLogitsLoss() if classes == 2 else torch.nn.CrossEntropyLoss()
    best, best_epoch, best_weight = -1.0, 0, torch.empty(0)
    for epoch in range(10):  # 40 steps of ceil(50 / 16) = 4 batches
        for group in optimizer.param_groups:
            group["lr"] = 0.05 / 3 if epoch < 5 else 0.05
        order = sampling.epoch(50, 3, epoch).row
        for start in range(0, 50, 16):
            rows = order[start : start + 16]
            target = torch.from_numpy(training.labels[rows])
            optimizer.zero_grad()
            logits = layer(torch.from_numpy(training.features[rows])).squeeze(-1)
            loss(logits, target.float() if classes == 2 else target).backward()
            optimizer.step()
        with torch.no_grad():
            logits = layer(torch.from_numpy(val.features)).squeeze(-1)
        chosen = (logits > 0).long() if classes == 2 else logits.argmax(1)
        score = balanced_accuracy_score(val.labels, chosen.numpy())
        if score > best:
            best, best_epoch, best_weight = score, epoch + 1, layer.weight.detach().clone()
        if epoch + 1 - best_epoch >= 5:
            break
    assert (found.epoch, found.epochs) == (best_epoch, epoch + 1)
    assert found.score == pytest.approx(best)
    np.testing.assert_allclose(found.weight, best_weight.numpy(), rtol=1e-5, atol=1e-6)


def test_a_run_ends_when_the_score_has_not_improved_for_the_patience() -> None:
    training = a_set(2, 32, 0)
    val = EvaSet(training.features, training.labels)
    separable = EvaSet(val.features + 20 * (val.labels[:, None] * 2 - 1).astype(np.float32), val.labels)
    layer = eva.train(separable, separable, 2, 0, "cpu", QUIET, EvaRecipe(steps=200, rate=0.05, batch=16, patience=0.1))
    assert layer.score == 1
    assert layer.epochs == layer.epoch + 10  # a tenth of 200 / 2 epochs


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    training, val = a_set(3, 50, 0), a_set(3, 40, 1)
    torch.manual_seed(5)
    one = eva.train(training, val, 3, 1, "cpu", QUIET, SHORT)
    state = torch.random.get_rng_state()
    again, other = (eva.train(training, val, 3, seed, "cpu", QUIET, SHORT) for seed in (1, 2))
    assert one.weight.tobytes() == again.weight.tobytes()
    assert one.weight.tobytes() != other.weight.tobytes()
    assert torch.equal(state, torch.random.get_rng_state())  # the caller's randomness is left alone


def test_probabilities_are_those_of_the_logits() -> None:
    layer = eva.LinearLayer(np.array([[2.0]]), np.array([0.5]), 1, 1.0, 1)
    found = layer.answer(np.array([[0.25], [-1.0]], np.float32))
    assert found.probabilities is not None
    np.testing.assert_allclose(found.decisions, [1.0, -1.5])
    np.testing.assert_allclose(found.probabilities[:, 1], 1 / (1 + np.exp([-1.0, 1.5])))


# --- as a mode ---


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eva, "RECIPE", SHORT)


def options(final: bool = False, seed: int = 0) -> TransferOptions:
    return TransferOptions("eva", final, workers=0, recipe=Recipe(seed=seed, device="cpu"))


def test_five_runs_score_the_validation_set_by_balanced_accuracy(run: Run, short: None) -> None:
    task, source = find_task(open_pool(Path(run.config().shards)), "Gamma"), source_of(run, "run")
    results = transfer_runs(source, task, options(), QUIET)
    assert [one["seed"] for one in results] == [0, 1, 2, 3, 4]
    for seed, one in enumerate(results):
        assert (one["metric"], one["set"], one["trained_on"]) == ("balanced_accuracy", "val", {"train": 24})
        answers = read_answers(result_path(source, task, options(seed=seed)).with_suffix(".npz"))
        assert answers is not None
        expected = balanced_accuracy_score(answers.label, metrics.predicted(answers.predictions.decisions))
        assert one["score"] == pytest.approx(expected) == pytest.approx(one["val_score"])
        assert one["notes"][0] == "the val set of Gamma also chose the epoch, as in kaiko-eva"
    before = [path.read_bytes() for path in sorted((run.path / "transfer").glob("*eva*"))]
    assert transfer_runs(source, task, options(), QUIET) == results
    assert [path.read_bytes() for path in sorted((run.path / "transfer").glob("*eva*"))] == before
    assert len(before) == 10


def test_the_test_set_is_scored_by_the_layer_that_the_validation_set_chose(run: Run, short: None) -> None:
    (task,) = opened([find_task(open_pool(Path(run.config().shards)), "Gamma")])
    one = transfer_runs(source_of(run, "run"), task, options(final=True), QUIET)[0]
    assert (one["set"], one["trained_on"], one["notes"]) == ("test", {"train": 24}, [])


def test_a_changed_recipe_is_another_result(run: Run, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    task, source = find_task(open_pool(Path(run.config().shards)), "Gamma"), source_of(run, "run")
    first = transfer_runs(source, task, options(), QUIET)
    monkeypatch.setattr(eva, "RECIPE", EvaRecipe(steps=8, rate=0.05, batch=16))
    again = transfer_runs(source, task, options(), QUIET)
    assert first[0]["identity"] != again[0]["identity"]
    assert max(one["epochs"] for one in again) <= 4


def test_without_a_validation_set_the_mode_says_what_it_needs(run: Run, short: None, tmp_path: Path) -> None:
    task = open_task(write_task(tmp_path / "Bare", sizes={"train": 12, "test": 4}))
    with pytest.raises(UsageError, match="needs a validation set"):
        transfer_runs(source_of(run, "run"), task, options(), QUIET)
    assert not list((run.path / "transfer").glob("Bare*"))


def test_the_command_prints_each_run_and_their_mean(
    run: Run,
    trained: Path,
    short: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from mtrain import cli

    words = ("transfer", "--runs", run.path.parent, "--mode", "eva", "--workers", "0", "--device", "cpu")
    monkeypatch.setattr("sys.argv", ["mtrain", *map(str, words)])
    cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert sum("epoch" in line and "balanced accuracy" in line for line in lines) == 5
    assert sum("also chose the epoch" in line for line in lines) == 1
    assert "(mean of 5 runs)" in lines[-1]
