"""The choice of C, and both solvers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.svm import LinearSVC

from mtrain.errors import RunError, UsageError
from mtrain.transfers.classifiers import svm
from mtrain.transfers.classifiers.folds import group_folds


def samples(classes: int, n: int = 240, d: int = 12, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return (rng.normal(size=(n, d)) + 0.7 * rng.normal(size=(classes, d))[y]).astype(np.float32), y


def images(n: int) -> list[str]:
    return [f"image-{i:04}" for i in range(n)]


@pytest.mark.parametrize(("classes", "metric", "scorer"), [(3, "accuracy", "accuracy"), (2, "roc_auc", "roc_auc")])
def test_the_search_is_that_of_scikit_learn(classes: int, metric: str, scorer: str) -> None:
    x, y = samples(classes)
    costs = (1e-6, 1e-4, 1e-2, 1.0)
    ours = svm.fit(x, y, images(len(y)), classes=classes, metric=metric, costs=costs)
    folds = PredefinedSplit(group_folds(y, images(len(y))).of)
    machine = LinearSVC(dual=False, tol=1e-10, max_iter=100_000)
    theirs = GridSearchCV(machine, {"C": costs}, scoring=scorer, cv=folds).fit(x.astype(np.float64), y)
    np.testing.assert_allclose([ours.cv[c] for c in costs], theirs.cv_results_["mean_test_score"], atol=0.5 / len(y))
    assert ours.cost == theirs.best_params_["C"]
    reference = theirs.decision_function(x.astype(np.float64))
    np.testing.assert_allclose(ours.decisions(x), reference, atol=2e-3 * np.abs(reference).max())


@pytest.mark.parametrize("classes", [2, 3])
def test_both_solvers_agree(classes: int) -> None:
    x, y = samples(classes)
    metric = "accuracy" if classes > 2 else "roc_auc"
    one, other = (svm.fit(x, y, images(len(y)), classes=classes, metric=metric, solver=name) for name in svm.SOLVERS)
    assert one.cost == other.cost
    np.testing.assert_allclose(list(one.cv.values()), list(other.cv.values()), atol=2 / len(y))
    np.testing.assert_allclose(one.weights, other.weights, atol=2e-3 * np.abs(one.weights).max())


def test_of_equally_good_costs_the_smallest_is_chosen() -> None:
    y = np.arange(40) % 2
    x = np.where(y == 1, 1.0, -1.0).astype(np.float32)[:, None]
    assert svm.fit(x, y, images(40), classes=2, metric="roc_auc").cost == 1e-10


def test_a_fold_without_both_classes_is_left_out_of_the_mean() -> None:
    """Group "c" holds class 1 alone: its fold has no ROC curve; the other two are ranked perfectly."""
    y = np.array([0, 1, 0, 1, 1, 1])
    x = np.where(y == 1, 1.0, -1.0).astype(np.float32)[:, None]
    found = svm.fit(x, y, ["a", "a", "b", "b", "c", "c"], classes=2, metric="roc_auc")
    assert set(found.cv.values()) == {1.0}


@pytest.mark.parametrize("solver", ["batched", "sklearn"])
def test_a_class_missing_from_a_fold_or_from_all_is_handled(solver: str) -> None:
    x, y = samples(3)
    groups = ["rare" if label == 2 else f"g{i % 7}" for i, label in enumerate(y)]
    found = svm.fit(x, y, groups, classes=4, metric="accuracy", solver=solver)
    assert found.decisions(x).shape == (len(y), 4)
    assert (found.decisions(x).argmax(1) != 3).all()
    assert all(np.isfinite(value) for value in found.cv.values())


def test_one_class_alone_and_an_unknown_solver_are_refused() -> None:
    x, y = samples(2)
    with pytest.raises(UsageError, match="a single class"):
        svm.fit(x, np.zeros_like(y), images(len(y)), classes=2, metric="roc_auc")
    with pytest.raises(UsageError, match="no solver"):
        svm.fit(x, y, images(len(y)), classes=2, metric="roc_auc", solver="libsvm")


def test_features_that_cannot_be_solved_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise torch.linalg.LinAlgError("linalg.cholesky: the input matrix is not positive-definite")

    monkeypatch.setitem(svm.SOLVERS, "batched", fails)
    x, y = samples(2)
    with pytest.raises(RunError, match="the SVM cannot be solved on these features: their sizes differ too much"):
        svm.fit(x, y, images(len(y)), classes=2, metric="roc_auc")


@pytest.mark.parametrize("solver", ["batched", "sklearn"])
def test_features_of_any_size_are_solved_in_the_end_and_it_is_said(solver: str) -> None:
    """Scaled by a power of two to a mean square norm of at most 1e6, the machine is that of the scaled features."""
    x, y = samples(2, 60, 8)
    scale = np.float32(2.0**40)
    near = x * np.float32(2.0 ** np.floor(np.log2(np.sqrt(1e6 / np.mean(np.sum(x * x, axis=1))))))
    groups = [str(i) for i in range(len(y))]
    how = {"classes": 2, "metric": "accuracy", "costs": (1e-8, 1e-6), "solver": solver}
    expected, found = (svm.fit(features, y, groups, **how) for features in (near, near * scale))  # type: ignore[arg-type]
    assert expected.notes == ()
    assert found.notes == (
        "the features are so large that they are divided by 1.09951e+12 for the SVM; C refers to the result",
    )
    assert (found.cost, found.cv) == (expected.cost, expected.cv)
    assert np.allclose(found.decisions(near * scale), expected.decisions(near))


@pytest.mark.parametrize("solver", ["batched", "sklearn"])
def test_features_too_small_for_the_grid_of_c_are_scaled_and_it_is_said(solver: str) -> None:
    """Of features of 1e-6, not even C = 1 makes anything else than the most frequent class."""
    x, y = samples(3, 90, 8)
    y = np.where(np.arange(90) < 10, 0, y)
    factor = np.float32(2.0**-20)
    size = np.mean(np.sum(x * x, axis=1))
    near = x * np.float32(2.0 ** np.ceil(np.log2(1 / size) / 2))
    expected = svm.fit(near, y, images(90), classes=3, metric="accuracy", solver=solver)
    found = svm.fit(x * factor, y, images(90), classes=3, metric="accuracy", solver=solver)
    assert expected.notes == ()
    assert [note.partition(" multiplied")[0] for note in found.notes] == ["the features are so small that they are"]
    assert (found.cost, found.cv) == (expected.cost, expected.cv)
    assert np.allclose(found.decisions(x * factor), expected.decisions(near))
    assert len(np.unique(found.decisions(x * factor).argmax(1))) == 3


@pytest.mark.parametrize("solver", ["batched", "sklearn"])
def test_a_grid_of_c_that_makes_no_difference_is_reported(solver: str) -> None:
    """Features a little larger than those that are scaled: every C makes the most frequent class of all samples."""
    x, y = samples(3, 90, 8)
    y = np.where(np.arange(90) < 60, 0, y)
    x *= np.float32(0.02 / np.sqrt(np.mean(np.sum(x * x, axis=1))))
    found = svm.fit(x, y, images(90), classes=3, metric="accuracy", solver=solver)
    assert len(set(found.cv.values())) == 1
    assert [note.partition(":")[0] for note in found.notes] == ["cross-validation cannot tell the values of C apart"]


def test_a_solver_that_stops_too_early_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = samples(2, 60, 8)
    groups = [str(i) for i in range(len(y))]
    monkeypatch.setattr(svm.svm_solver, "NEWTON_STEPS", 1)
    notes = svm.fit(x, y, groups, classes=2, metric="accuracy", costs=(1.0,)).notes
    assert {note.partition(":")[0] for note in notes} == {"the SVM of C = 1 did not converge"}
    monkeypatch.setattr(svm.LinearSVC, "fit", _late(svm.LinearSVC.fit))
    notes = svm.fit(x, y, groups, classes=2, metric="accuracy", costs=(1.0,), solver="sklearn").notes
    assert notes == ("the SVM of C = 1 did not converge",)


def _late(fit: Any) -> Any:
    def one_iteration(machine: Any, *given: Any) -> Any:
        return fit(machine.set_params(max_iter=1), *given)

    return one_iteration
