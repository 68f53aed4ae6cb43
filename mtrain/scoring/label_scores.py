"""Scores of predictions for images that do not have one class, with intervals by the bootstrap over groups.

Images with any number of classes: truth and values are (n, classes), 0 or 1 and decision values, positive for "has the
class". Images with a number: both are (n,), in the unit of the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mtrain.scoring import bootstrap, metrics
from mtrain.scoring.metrics import Values

MACRO_AUC, PEARSON = "macro_auc", "pearson"
ACCURACY, NEGATIVE_RMSE = "accuracy", "negative_rmse"
INSTEAD = {MACRO_AUC: ACCURACY, PEARSON: NEGATIVE_RMSE}
"""What chooses an epoch where the metric is not defined on the set that is to choose."""
ERRORS = ("mae", "rmse")  # scores of numbers of which the smaller is the better, in the unit
LEAST = 1e-12  # share of the whole variance below which a draw counts as constant


def all_scores(truth: Values, values: Values) -> Iterator[tuple[str, float]]:
    """Yield every score by name; NaN where it is undefined."""
    of_all = np.ones((1, len(truth)))
    return ((name, float(found[0])) for name, found in weighted_scores(truth, values, of_all))


def score(metric: str, truth: Values, values: Values) -> float:
    """Return one score; NaN if it is undefined."""
    if metric == NEGATIVE_RMSE:
        return -float(np.sqrt(((values - truth) ** 2).mean()))
    return next(found for name, found in all_scores(truth, values) if name == metric)


def undefined_classes(truth: Values) -> list[int]:
    """Return the classes that all samples have, or none, so that they have no ROC curve."""
    return [number for number, of_class in enumerate(truth.T) if len(np.unique(of_class)) < 2]


def weighted_scores(truth: Values, values: Values, weights: Values) -> Iterator[tuple[str, Values]]:
    """Yield every score, (draws,), of samples weighted by each row of `weights` (draws, n)."""
    yield from (_of_numbers if truth.ndim == 1 else _of_labels)(truth, values, weights)


def intervals(
    truth: Values, values: Values, groups: Sequence[str], *, draws: int = bootstrap.DRAWS, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the percentile interval of each score by name; empty for a single group.

    Draws in which a score is undefined do not count for it; a score that is undefined in all draws is left out.
    """
    found = {name: bootstrap.interval(one) for name, one in _drawn(truth, values, groups, draws, seed).items()}
    return {name: ends for name, ends in found.items() if ends is not None}


def paired(
    truth: Values,
    values: Mapping[str, Values],
    groups: Sequence[str],
    metric: str,
    *,
    draws: int = bootstrap.DRAWS,
    seed: int = 0,
) -> dict[str, Values]:
    """Return, by name, one score of the values in each draw, (draws,), as `bootstrap.paired`; draw i contains the same
    groups for all names. Empty for a single group.
    """
    found = {name: _drawn(truth, one, groups, draws, seed).get(metric) for name, one in values.items()}
    return {name: one for name, one in found.items() if one is not None}


def _drawn(truth: Values, values: Values, groups: Sequence[str], draws: int, seed: int) -> dict[str, Values]:
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        return {}
    weights = bootstrap.drawn_weights(len(names), draws, seed)
    block = max(1, bootstrap.CELLS_AT_ONCE // max(truth.size, len(names)))
    found: dict[str, list[Values]] = {}
    for start in range(0, draws, block):
        for name, one in weighted_scores(truth, values, weights[start : start + block][:, group]):
            found.setdefault(name, []).append(one)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _of_labels(truth: Values, values: Values, weights: Values) -> Iterator[tuple[str, Values]]:
    positive: NDArray[np.bool_] = truth > 0
    areas = np.stack([bootstrap.weighted_auc(p, v, weights) for p, v in zip(positive.T, values.T, strict=True)], axis=1)
    yield MACRO_AUC, metrics.mean_of_defined(areas)
    found = values > 0
    yield ACCURACY, weights @ (found == positive).mean(axis=1) / weights.sum(axis=1)
    both, either = weights @ (found & positive), weights @ found + weights @ positive
    yield "macro_f1", (2 * both / np.maximum(either, 1)).mean(axis=1)
    for number in range(truth.shape[1]):
        yield f"auc_{number}", areas[:, number]


def _of_numbers(truth: Values, values: Values, weights: Values) -> Iterator[tuple[str, Values]]:
    total = weights.sum(axis=1)
    x, y = truth - truth.mean(), values - values.mean()

    def spread(one: Values, other: Values) -> Values:
        means: Values = weights @ (one * other) / total - (weights @ one) * (weights @ other) / total**2
        return means

    xx, yy = spread(x, x), spread(y, y)
    varies = (xx > LEAST * np.mean(x * x)) & (yy > LEAST * np.mean(y * y)) & (xx > 0) & (yy > 0)
    scale = np.sqrt(np.where(varies, xx * yy, 1))
    yield PEARSON, np.where(varies, np.clip(spread(x, y) / scale, -1, 1), np.nan)
    errors = values - truth
    yield "mae", weights @ np.abs(errors) / total
    squared = weights @ errors**2 / total
    yield "rmse", np.sqrt(squared)
    known = xx > LEAST * np.mean(x * x)
    yield "r2", np.where(known, 1 - squared / np.where(known, xx, 1), np.nan)
