"""Confidence intervals by the bootstrap over groups: patients or slides are drawn with replacement, with all samples.

The input consists of labels, decision values (as in mtrain.scoring.metrics) and groups; the result is an interval for
each score. A draw assigns a weight to each group, so that all scores are sums: of the groups' confusion matrices, and
of weights along the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dpconvert.kappa import quadratic_kappa
from mtrain.scoring import metrics
from mtrain.scoring.metrics import Labels, Values

DRAWS = 1000
LEVEL = 0.95
CELLS_AT_ONCE = 4_000_000  # maximum number of sample weights in memory


def intervals(
    labels: Labels,
    decisions: Values,
    groups: Sequence[str],
    classes: int,
    *,
    probabilities: Values | None = None,
    ordered: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return the percentile interval of each score of `metrics.all_scores`, by name.

    The calibration error is included if `probabilities` (n, classes) are given. The result is empty for a single group,
    since all draws are equal. Draws in which a score is undefined (a class is absent) do not count for that score; a
    score that is undefined in all draws is left out.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        return {}
    rng = np.random.Generator(np.random.Philox(seed))
    gathered: dict[str, list[Values]] = {}
    block = max(1, CELLS_AT_ONCE // max(len(labels), len(names) * classes))
    for start in range(0, draws, block):
        weights = _drawn(rng, min(block, draws - start), len(names))
        for name, values in weighted_scores(labels, decisions, group, weights, classes, ordered=ordered):
            gathered.setdefault(name, []).append(values)
        if probabilities is not None:
            errors = weighted_calibration(labels, probabilities, group, weights)
            gathered.setdefault("calibration_error", []).append(errors)
    edges = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    found = {name: np.concatenate(values) for name, values in gathered.items()}
    return {
        name: (float(low), float(high))
        for name, values in found.items()
        if not np.isnan(values).all()
        for low, high in [np.nanpercentile(values, edges)]
    }


def paired(
    labels: Labels,
    decisions: Mapping[str, Values],
    groups: Sequence[str],
    classes: int,
    metric: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Values]:
    """Return, by name, one score of the decision values in each draw, (draws,); empty for a single group.

    Draw i contains the same groups for all names, so that differences of scores compare the same patients.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        return {}
    rng = np.random.Generator(np.random.Philox(seed))
    found: dict[str, list[Values]] = {name: [] for name in decisions}
    block = max(1, CELLS_AT_ONCE // max(len(labels), len(names) * classes))
    for start in range(0, draws, block):
        weights = _drawn(rng, min(block, draws - start), len(names))
        for name, values in decisions.items():
            scores = weighted_scores(labels, values, group, weights, classes, ordered=metric == metrics.KAPPA)
            found[name].append(next(score for which, score in scores if which == metric))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def drawn_weights(groups: int, draws: int = DRAWS, seed: int = 0) -> Values:
    """Return how often each draw contains each group: (draws, groups)."""
    return _drawn(np.random.Generator(np.random.Philox(seed)), draws, groups)


def interval(values: Values) -> tuple[float, float] | None:
    """Return the percentile interval of draws; None if all of them are undefined."""
    if np.isnan(values).all():
        return None
    low, high = np.nanpercentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def weighted_scores(
    labels: Labels, decisions: Values, group: NDArray[np.int64], weights: Values, classes: int, *, ordered: bool = False
) -> Iterator[tuple[str, Values]]:
    """Return `metrics.all_scores`, (draws,) each, with groups weighted by each row of `weights` (draws, groups).

    group: the index of each sample's group.
    """
    table = _confusion(labels, metrics.predicted(decisions), group, weights, classes)
    truth, found, right = table.sum(2), table.sum(1), np.diagonal(table, axis1=1, axis2=2)
    if ordered:
        yield metrics.KAPPA, quadratic_kappa(table)
    yield "accuracy", right.sum(1) / truth.sum(1)
    present = np.where(truth > 0, 1.0, np.nan)
    recalls = right / np.maximum(truth, 1) * present
    yield "balanced_accuracy", metrics.mean_of_defined(recalls)
    yield "macro_f1", metrics.mean_of_defined(2 * right / np.maximum(truth + found, 1) * present)
    of_sample = weights[:, group]
    if decisions.ndim == 1:
        yield "roc_auc", weighted_auc(labels == 1, decisions, of_sample)
    else:
        areas = np.stack([weighted_auc(labels == c, decisions[:, c], of_sample) for c in range(classes)], axis=1)
        yield "roc_auc", metrics.mean_of_defined(areas)
    for c in np.unique(labels):
        yield f"recall_{c}", recalls[:, c]


def weighted_calibration(labels: Labels, probabilities: Values, group: NDArray[np.int64], weights: Values) -> Values:
    """Return `metrics.calibration_error`, (draws,), with groups weighted by each row of `weights` (draws, groups)."""
    bins = metrics.CALIBRATION_BINS
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    surplus, sizes = np.zeros((weights.shape[1], bins)), np.bincount(group, minlength=weights.shape[1])
    np.add.at(surplus, (group, metrics.confidence_bins(confidence)), right - confidence)
    errors: Values = np.abs(weights @ surplus).sum(axis=1) / (weights @ sizes)
    return errors


def weighted_auc(positive: NDArray[np.bool_], values: Values, weights: Values) -> Values:
    """Return the area under the ROC curve, (draws,), of samples weighted by `weights` (draws, n); ties count half.

    Equal values form a step: a positive ranks above all negatives in lower steps and ties with those in its own.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(order) else np.zeros(0, np.int64)
    weighted = weights[:, order]
    positives = np.add.reduceat(weighted * positive[order], starts, axis=1)
    negatives = np.add.reduceat(weighted * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(1) * negatives.sum(1)
    areas: Values = np.where(pairs > 0, (positives * below).sum(1) / np.maximum(pairs, 1), np.nan)
    return areas


def _drawn(rng: np.random.Generator, draws: int, groups: int) -> Values:
    """Draw as many groups as there are, with replacement; return how often each is drawn: (draws, groups)."""
    picked = rng.integers(groups, size=(draws, groups)) + groups * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * groups).reshape(draws, groups).astype(np.float64)


def _confusion(labels: Labels, found: Labels, group: NDArray[np.int64], weights: Values, classes: int) -> Values:
    """Return the weighted confusion matrices: (draws, true classes, predicted classes)."""
    cell = labels * classes + found
    by_group = np.zeros((weights.shape[1], classes * classes))
    np.add.at(by_group, (group, cell), 1)
    return (weights @ by_group).reshape(-1, classes, classes)
