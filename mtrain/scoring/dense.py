"""Score predicted masks and points against the true ones: Dice, intersection over union and F1, with intervals.

All scores are computed from sums of counts: confusion matrices of pixels, and hits and misses of points. The counts are
kept per sample, so that the bootstrap can draw whole groups (mtrain.scoring.bootstrap).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mtrain.scoring.bootstrap import DRAWS, drawn_weights, interval
from mtrain.scoring.metrics import Values

Number = TypeVar("Number", np.int64, np.float64)
IGNORE = 255
Counts = NDArray[np.int64]
Masks = NDArray[np.uint8]
Points = NDArray[np.float64]


def confusion(truth: Masks, found: Masks, classes: int) -> Counts:
    """Return the pixels by true and predicted class, (classes, classes), without those of 255 in `truth`."""
    known = truth != IGNORE
    cells = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def matched(truth: Points, found: Points, scores: Values, radius: float) -> tuple[int, int, int]:
    """Count the hits, false positives and misses of one class in one image.

    Predictions are matched in descending order of their scores, each to the nearest unmatched object within `radius`.
    So every object is hit at most once, and further predictions near it are false positives, as in the MIDOG
    challenges (Aubreville et al., "Mitosis domain generalization in histopathology images", 2023).

    truth: (n, 2). found: (m, 2). scores: (m,). radius: in the unit of the points.
    """
    free = np.ones(len(truth), np.bool_)
    if len(truth) and len(found):
        from scipy.spatial.distance import cdist  # costs every training's start otherwise

        distances = cdist(found, truth)
        for number in np.argsort(-scores, kind="stable"):
            near = np.where(free & (distances[number] <= radius), distances[number], np.inf)
            if np.isfinite(near).any():
                free[near.argmin()] = False
    hits = int((~free).sum())
    return hits, len(found) - hits, len(truth) - hits


def mask_scores(tables: Values, classes: Sequence[str]) -> Iterator[tuple[str, Values]]:
    """Return the scores of each confusion matrix: (draws, classes, classes) -> (draws,) each.

    Means are over the classes that occur in the truth or in the prediction; the score of any other class is NaN.
    """
    right = np.diagonal(tables, axis1=1, axis2=2)
    both = tables.sum(2) + tables.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = 2 * right / both
        union = right / (both - right)
    yield "dice", mean_over_classes(dice)
    yield "iou", mean_over_classes(union)
    for number, name in enumerate(classes):
        yield f"dice_{name}", dice[:, number]
        yield f"iou_{name}", union[:, number]


def point_scores(counts: Values, classes: Sequence[str]) -> Iterator[tuple[str, Values]]:
    """Return scores, (draws,) each, from the hits, false positives and misses of each class: (draws, classes, 3).

    F1 is computed over all points and per class; it is NaN if there are
    neither objects nor predictions.
    """
    hits, false, missed = counts.sum(1).T
    with np.errstate(invalid="ignore", divide="ignore"):
        yield "f1", 2 * hits / (2 * hits + false + missed)
        yield "precision", hits / (hits + false)
        yield "sensitivity", hits / (hits + missed)
        for number, name in enumerate(classes):
            of = counts[:, number].T
            yield f"f1_{name}", 2 * of[0] / (2 * of[0] + of[1] + of[2])


def dense_scores(
    groups: Sequence[str],
    tables: Counts | None,
    points: Counts | None,
    seg: Sequence[str],
    kinds: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, dict[str, int]]]:
    """Return all scores of a set of samples by name, with intervals over groups, and the counts of points by class.

    groups: the group of each sample. tables: confusion matrices of masks (samples, classes, classes), or None. points:
    hits, false positives and misses (samples, classes, 3), or None. seg, kinds: the classes of masks and of points.
    There are no intervals for a single group or for scores that are undefined in all draws.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    whole = {
        name: float(values[0])
        for name, values in scores_of_counts(np.ones((1, len(groups))), tables, points, seg, kinds)
    }
    intervals = {}
    if len(names) > 1:
        weights = drawn_weights(len(names), draws, seed)
        tables, hits = (None if part is None else by_group(part, group, len(names)) for part in (tables, points))
        for name, values in scores_of_counts(weights, tables, hits, seg, kinds):
            if (found := interval(values)) is not None:
                intervals[name] = found
    return whole, intervals, {} if points is None else _numbers(points.sum(0), kinds)


def scores_of_counts(
    weights: Values, tables: Counts | None, points: Counts | None, seg: Sequence[str], kinds: Sequence[str]
) -> Iterator[tuple[str, Values]]:
    """Return all scores, (draws,) each, of counts by group or by sample, weighted by each row of `weights`."""
    if tables is not None:
        yield from mask_scores(np.tensordot(weights, tables, 1), seg)
    if points is not None:
        yield from point_scores(np.tensordot(weights, points, 1), kinds)


def by_group(counts: NDArray[Number], group: NDArray[np.int64], groups: int) -> NDArray[Number]:
    """Return the sums of the counts over the samples of each group: (groups, ...)."""
    summed = np.zeros((groups, *counts.shape[1:]), counts.dtype)
    np.add.at(summed, group, counts)
    return summed


def _numbers(totals: Counts, kinds: Sequence[str]) -> dict[str, dict[str, int]]:
    return {
        kind: {"objects": int(hits + missed), "found": int(hits + false)}
        for kind, (hits, false, missed) in zip(kinds, totals, strict=True)
    }


def mean_over_classes(values: Values) -> Values:
    """Return the mean over the defined classes; NaN if none is defined."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0).sum(1)
    means: Values = np.where(defined.any(1), total / np.maximum(defined.sum(1), 1), np.nan)
    return means
