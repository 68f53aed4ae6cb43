"""The batched SVM solver against LIBLINEAR, against arithmetic, and against its own certificate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from mtrain.transfers.classifiers import svm_solver

Array = NDArray[np.float64]


def blobs(n: int, d: int, classes: int, *, seed: int = 0, weights: list[float] | None = None) -> tuple[Array, Array]:
    """Overlapping classes in features of very different scales."""
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, size=n, p=weights)
    y[:classes] = np.arange(classes)
    x = (rng.normal(size=(n, d)) + 0.6 * rng.normal(size=(classes, d))[y]) * np.geomspace(3, 0.03, d) + 0.2
    return x.astype(np.float32), y


def signs(y: Array, classes: int) -> torch.Tensor:
    return torch.from_numpy(np.where(y[:, None] == np.arange(classes), 1.0, -1.0))


def objective(w: Array, x: Array, target: Array, cost: float) -> float:
    short = np.maximum(0, 1 - target * (x.astype(np.float64) @ w[:-1] + w[-1]))
    return float(0.5 * w @ w + cost * short @ short)


@pytest.mark.parametrize("cost", [1e-10, 1e-6, 1e-3, 1e-1, 1.0])
@pytest.mark.parametrize(
    ("n", "d", "classes", "weights"),
    [
        (400, 20, 3, None),
        (60, 150, 3, None),
        (40, 40, 2, None),
        (500, 30, 4, [0.9, 0.05, 0.03, 0.02]),
    ],
    ids=["tall", "wide", "square", "unbalanced"],
)
def test_the_optimum_and_the_predictions_are_those_of_liblinear(
    n: int, d: int, classes: int, weights: list[float] | None, cost: float
) -> None:
    x, y = blobs(n, d, classes, weights=weights)
    targets = signs(y, classes)
    design = svm_solver.principal_axes(x, cost)
    solution = svm_solver.solve(design, targets, torch.full_like(targets, cost), tolerance=1e-8)
    found = svm_solver.feature_weights(design, solution).numpy()
    theirs = []
    for k, target in enumerate(targets.numpy().T):
        machine = LinearSVC(C=cost, dual=False, tol=1e-12, max_iter=100_000).fit(x.astype(np.float64), target)
        theirs.append(np.append(machine.coef_[0], machine.intercept_[0]))
        ours, reference = objective(found[:, k], x, target, cost), objective(theirs[-1], x, target, cost)
        assert ours <= reference * (1 + 1e-6)
    new, _ = blobs(200, d, classes, seed=1)
    decisions = [new @ w[:-1] + w[-1] for w in (found, np.stack(theirs, axis=1))]
    scale = np.abs(decisions[1]).max()
    np.testing.assert_allclose(decisions[0] / scale, decisions[1] / scale, atol=1e-3)
    top = np.sort(decisions[1], axis=1)
    sure = (top[:, -1] - top[:, -2]) > 1e-3 * scale
    assert (decisions[0].argmax(1) == decisions[1].argmax(1))[sure].all()


def test_one_sample_is_solved_as_on_paper() -> None:
    """x = (2, bias 1), y = 1: w = 2 C (1 - 5 a) x with w = a x, so a = 2 C / (1 + 10 C) and f = C / (1 + 10 C)."""
    cost = 0.3
    design = svm_solver.principal_axes(np.array([[2.0]], np.float32), cost)
    solution = svm_solver.solve(design, torch.ones(1, 1).double(), torch.full((1, 1), cost).double(), tolerance=1e-12)
    a = 2 * cost / (1 + 10 * cost)
    np.testing.assert_allclose(svm_solver.feature_weights(design, solution).numpy()[:, 0], [2 * a, a], rtol=1e-5)
    np.testing.assert_allclose(solution.decisions.numpy(), [[5 * a]], rtol=1e-5)


def test_a_held_out_sample_does_not_matter_to_its_column() -> None:
    x, y = blobs(120, 10, 2)
    held_out = np.arange(120) >= 100
    targets = signs(y, 2)
    costs = torch.from_numpy(np.where(held_out, 0.0, 0.1))[:, None].expand(-1, 2)
    with_them = svm_solver.solve(svm_solver.principal_axes(x, 0.1), targets, costs, tolerance=1e-10)
    alone = svm_solver.principal_axes(x[~held_out], 0.1)
    without = svm_solver.solve(alone, targets[:100], costs[:100], tolerance=1e-10)
    expected = np.c_[x, np.ones(120)] @ svm_solver.feature_weights(alone, without).numpy()
    np.testing.assert_allclose(with_them.decisions.numpy(), expected, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 40),
    d=st.integers(1, 40),
    seed=st.integers(0, 2**16),
    exponent=st.integers(-10, 0),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
@example(n=38, d=38, seed=4, exponent=-3, scale=1e3)  # random labels that can all be fitted: many Newton steps
def test_every_column_reaches_the_gap_requested(n: int, d: int, seed: int, exponent: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = (scale * rng.normal(size=(n, d))).astype(np.float32)
    targets = torch.from_numpy(rng.choice([-1.0, 1.0], size=(n, 3)))
    costs = torch.full_like(targets, 10.0**exponent)
    solution = svm_solver.solve(svm_solver.principal_axes(x, 10.0**exponent), targets, costs, tolerance=1e-6)
    assert (solution.gap <= 1e-6).all()


def test_the_factored_preconditioner_and_warm_starts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(300, 40, 3)
    targets, cost = signs(y, 3).repeat(1, 2), torch.full((300, 6), 1.0).double()
    design = svm_solver.principal_axes(x, 1.0)
    plain = svm_solver.solve(design, targets, cost, tolerance=1e-10)
    monkeypatch.setattr(svm_solver, "CG_MANY", 0)
    start = svm_solver.solve(design, targets, cost / 100, kinds=3)
    factored = svm_solver.solve(design, targets, cost, start, kinds=3, tolerance=1e-10)
    np.testing.assert_allclose(factored.decisions.numpy(), plain.decisions.numpy(), atol=1e-4)


def test_the_axes_diagonalise_the_design() -> None:
    x, _ = blobs(50, 12, 2)
    design = svm_solver.principal_axes(x, 1.0)
    gram = (design.rows.T @ design.rows).numpy()
    np.testing.assert_allclose(gram, np.diag(design.power.numpy()), atol=1e-9 * gram.max())
    np.testing.assert_allclose(design.rows.numpy() @ design.axes.numpy().T, np.c_[x, np.ones(50)], atol=1e-9)


def test_axes_without_variance_are_left_out() -> None:
    x = np.zeros((30, 8), np.float32)
    x[:, 0] = np.arange(30)
    assert svm_solver.principal_axes(x, 1.0).rows.shape == (30, 2)


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize(("n", "d"), [(400, 20), (60, 150)], ids=["tall", "wide"])
def test_features_that_are_tiny_beside_the_bias_keep_all_of_their_axes(n: int, d: int, scale: float) -> None:
    """At weights near 0 the gradient decides: the ranking is that of X'(y - mean y)."""
    x, y = blobs(n, d, 2)
    small = (scale * x).astype(np.float32)
    whole = np.c_[small.astype(np.float64), np.ones(n)]
    for cost in (1e-2, 1.0):
        design = svm_solver.principal_axes(small, cost)
        assert design.rows.shape[1] == min(n, d + 1)
        axes = design.axes.numpy()
        np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-6)
        left = whole - design.rows.numpy() @ axes.T
        assert np.abs(left).max() < 1e-3 * scale
        targets = signs(y, 2)[:, 1:]
        solution = svm_solver.solve(design, targets, torch.full_like(targets, cost), tolerance=1e-10)
        found = svm_solver.feature_weights(design, solution).numpy()[:, 0]
        centred = targets.numpy()[:, 0] - targets.numpy()[:, 0].mean()
        direction = (small - small.mean(0)).astype(np.float64).T @ centred
        cosine = direction @ found[:-1] / np.linalg.norm(direction) / np.linalg.norm(found[:-1])
        assert cosine > (0.99 if scale < 1e-4 else 0.8)
