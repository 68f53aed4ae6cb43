"""Feature extraction: a linear SVM on frozen features, C by cross-validation over groups (PROTOCOL: svm).

The classifier is LIBLINEAR's L2-regularised squared-hinge machine, one against the rest. All C, folds and classes are
solved together (mtrain.transfers.classifiers.svm_solver); `solver="sklearn"` uses scikit-learn's LinearSVC instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from mtrain.errors import RunError, UsageError
from mtrain.model.devices import find_device
from mtrain.transfers.classifiers import svm_solver
from mtrain.transfers.classifiers.folds import Folds, group_folds, mean_score

COSTS = tuple(10.0**e for e in range(-10, 1))
LARGEST = 1e6  # mean squared norm beyond which features are scaled: the grid of C does not suit larger ones
SMALLEST = 1e-4  # likewise: of smaller ones, not even the largest C makes use
FOLD_TOLERANCE = 1e-6  # relative duality gap in the folds, whose scores need no more precision

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Values = NDArray[np.float64]
Note = Callable[[str], None]
Solver = Callable[
    [Features, Labels, int, Folds, Sequence[float], str, Note], tuple[list[Values], Callable[[float], Values]]
]


@dataclass(frozen=True)
class Fitted:
    """A trained SVM. weights: (features + 1, columns), the bias last; one column for two classes, else one per class.

    cv: mean score over the folds for each C; NaN if no fold could be scored.
    """

    cost: float
    weights: Values
    cv: dict[float, float]
    notes: tuple[str, ...]

    def decisions(self, features: Features) -> Values:
        """Decision values: (n,) for two classes, else (n, classes)."""
        values: Values = np.asarray(features, np.float64) @ self.weights[:-1] + self.weights[-1]
        return values[:, 0] if values.shape[1] == 1 else values


def fit(
    features: Features,
    labels: Labels,
    groups: Sequence[str],
    *,
    classes: int,
    metric: str,
    costs: Sequence[float] = COSTS,
    solver: str = "batched",
    device: str = "auto",
) -> Fitted:
    """Choose C by cross-validation (of equally good values, the smallest), and train on all samples with it.

    Features with a mean squared norm above LARGEST or below SMALLEST are first scaled by a power of two, with a note.

    Raises:
        UsageError: fewer than two classes in the training data, or an unknown solver.
    """
    if len(np.unique(labels)) < 2:
        raise UsageError("the training data hold a single class, so no classifier can be trained")
    if solver not in SOLVERS:
        raise UsageError(f"no solver {solver!r}", expected=" or ".join(SOLVERS))
    folds = group_folds(labels, groups)
    notes, late = list(folds.notes), list[str]()
    scale = _scale(features)
    if scale != 1:
        features = features / np.float32(scale)
        notes.append(f"the features are so {_scaled(scale)} for the SVM; C refers to the result")
    with _solvable():
        held_out, final = SOLVERS[solver](features, labels, classes, folds, costs, device, late.append)
    cv = {cost: mean_score(metric, labels, values, folds) for cost, values in zip(costs, held_out, strict=True)}
    scored = {cost: round(value, 12) for cost, value in cv.items() if not np.isnan(value)}
    if not scored:
        notes.append("no fold could be scored: the largest C is used")
    notes += _undecided(scored)
    best = min((c for c in scored if scored[c] == max(scored.values())), default=max(costs))
    with _solvable():
        weights = final(best)
    weights[:-1] /= scale
    return Fitted(cost=best, weights=weights, cv=cv, notes=(*notes, *dict.fromkeys(late)))


def _undecided(scored: dict[float, float]) -> Iterator[str]:
    """A note if every C has the same score in cross-validation, and it is not the best possible one."""
    if len(scored) > 1 and len(values := set(scored.values())) == 1 and max(values) < 1:
        yield (
            "cross-validation cannot tell the values of C apart: all of them do equally well, as where the features "
            "are too small for this grid; see what --mode logistic scores"
        )


def _scale(features: Features) -> float:
    """The power of two to divide by: it reduces the mean squared norm to at most LARGEST, or raises it from below
    SMALLEST to at least 1; else 1.
    """
    mean = float(np.einsum("ij,ij->", features, features, dtype=np.float64)) / len(features)
    if mean > LARGEST:
        return float(2.0 ** np.ceil(np.log2(mean / LARGEST) / 2))
    return float(2.0 ** -np.ceil(-np.log2(mean) / 2)) if 0 < mean < SMALLEST else 1.0


def _scaled(scale: float) -> str:
    if scale > 1:
        return f"large that they are divided by {scale:g}"
    return f"small that they are multiplied by {1 / scale:g}"


@contextmanager
def _solvable() -> Iterator[None]:
    """Report features whose magnitudes differ too much for double precision as an error of one line."""
    try:
        yield
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise RunError(
            "the SVM cannot be solved on these features: their sizes differ too much",
            remedy="check the weights, or use --mode logistic",
        ) from None


def _batched(
    features: Features, labels: Labels, classes: int, folds: Folds, costs: Sequence[float], device_name: str, note: Note
) -> tuple[list[Values], Callable[[float], Values]]:
    """Solve all folds and classes of each C at once, starting from the solution for the previous C."""
    device = find_device(device_name)
    design = svm_solver.principal_axes(features, max(costs), device)
    targets = torch.from_numpy(_targets(labels, classes)).to(device)
    columns = targets.shape[1]
    trains = torch.from_numpy(folds.of[:, None] != np.arange(folds.count)).to(device, torch.float64)
    all_targets, all_trains = targets.repeat(1, folds.count), trains.repeat_interleave(columns, dim=1)
    start, held_out = None, []
    rows = torch.arange(len(labels), device=device)
    for cost in costs:
        start = svm_solver.solve(design, all_targets, cost * all_trains, start, kinds=columns, tolerance=FOLD_TOLERANCE)
        _check_gap(start, FOLD_TOLERANCE, cost, note)
        values = start.decisions.reshape(len(labels), folds.count, columns)
        held_out.append(values[rows, torch.from_numpy(folds.of).to(device)].cpu().numpy())

    def final(cost: float) -> Values:
        solution = svm_solver.solve(design, targets, torch.full_like(targets, cost))
        _check_gap(solution, svm_solver.TOLERANCE, cost, note)
        weights: Values = svm_solver.feature_weights(design, solution).cpu().numpy()
        return weights

    return [v[:, 0] if columns == 1 else v for v in held_out], final


def _check_gap(solution: svm_solver.Solution, tolerance: float, cost: float, note: Note) -> None:
    """Note where the solver did not converge."""
    gap = float(solution.gap.max())
    if not gap <= tolerance:
        note(f"the SVM of C = {cost:g} did not converge: relative duality gap {gap:.1g}")


def _sklearn(
    features: Features, labels: Labels, classes: int, folds: Folds, costs: Sequence[float], _device: str, note: Note
) -> tuple[list[Values], Callable[[float], Values]]:
    def weights(which: NDArray[np.bool_], cost: float) -> Values:
        targets = _targets(labels[which], classes)
        machines = [LinearSVC(C=cost, dual=False, tol=1e-6, max_iter=20_000) for _ in range(targets.shape[1])]
        columns = []
        for machine, target in zip(machines, targets.T, strict=True):
            if len(np.unique(target)) == 1:  # this fold lacks the class
                columns.append(np.append(np.zeros(features.shape[1]), target[0]))
            else:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", ConvergenceWarning)
                    machine.fit(features[which], target)
                if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
                    note(f"the SVM of C = {cost:g} did not converge")
                columns.append(np.append(machine.coef_[0], machine.intercept_[0]))
        return np.stack(columns, axis=1)

    def held_out(cost: float) -> Values:
        values = np.zeros((len(labels), 1 if classes == 2 else classes))
        for k in range(folds.count):
            w = weights(folds.of != k, cost)
            values[folds.of == k] = features[folds.of == k] @ w[:-1] + w[-1]
        return values[:, 0] if values.shape[1] == 1 else values

    return [held_out(cost) for cost in costs], lambda cost: weights(np.ones(len(labels), bool), cost)


SOLVERS: dict[str, Solver] = {"batched": _batched, "sklearn": _sklearn}


def _targets(labels: Labels, classes: int) -> Values:
    """Targets: +1 for the column's class, -1 for the others. With two classes, there is only the column of class 1."""
    of = np.arange(1, 2) if classes == 2 else np.arange(classes)
    return np.where(labels[:, None] == of, 1.0, -1.0)
