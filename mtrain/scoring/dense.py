"""Masks and points that were found, and the true ones, in; Dice, intersection over union and F1 out, with intervals.

Everything is a sum of counts: a confusion matrix of pixels, and hits and misses of points. They are kept for each
sample, so that the bootstrap draws whole groups (mtrain.scoring.bootstrap).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from mtrain.scoring.bootstrap import DRAWS, drawn_weights, interval
from mtrain.scoring.metrics import Values

IGNORE = 255
Counts = NDArray[np.int64]
Masks = NDArray[np.uint8]
Points = NDArray[np.float64]


def confusion(truth: Masks, found: Masks, classes: int) -> Counts:
    """(classes, classes): pixels of each true class that were found to be of each class; 255 in `truth` counts not."""
    known = truth != IGNORE
    cells = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def matched(truth: Points, found: Points, scores: Values, radius: float) -> tuple[int, int, int]:
    """Hits, false finds and misses of one class in one image.

    The finds take their objects in the order of their scores, the surest first: each takes the nearest object within
    `radius` that is free. So every object is hit once at most, and further finds near it are false, as in the MIDOG
    challenges (Aubreville et al., "Mitosis domain generalization in histopathology images", 2023).

    truth: (n, 2). found: (m, 2). scores: (m,). radius: in the unit of the points.
    """
    free = np.ones(len(truth), np.bool_)
    if len(truth) and len(found):
        distances = cdist(found, truth)
        for number in np.argsort(-scores, kind="stable"):
            near = np.where(free & (distances[number] <= radius), distances[number], np.inf)
            if np.isfinite(near).any():
                free[near.argmin()] = False
    hits = int((~free).sum())
    return hits, len(found) - hits, len(truth) - hits


def mask_scores(tables: Values, classes: Sequence[str]) -> Iterator[tuple[str, Values]]:
    """Scores of each confusion matrix: (draws, classes, classes) -> (draws,) each.

    Means are over the classes that occur, in the truth or among what was found; a score of one that does not is NaN.
    """
    right = np.diagonal(tables, axis1=1, axis2=2)
    both = tables.sum(2) + tables.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = 2 * right / both
        union = right / (both - right)
    yield "dice", _mean(dice)
    yield "iou", _mean(union)
    for number, name in enumerate(classes):
        yield f"dice_{name}", dice[:, number]
        yield f"iou_{name}", union[:, number]


def point_scores(counts: Values, classes: Sequence[str]) -> Iterator[tuple[str, Values]]:
    """Scores of hits, false finds and misses of each class: (draws, classes, 3) -> (draws,) each.

    F1 is that of all points together, and of each class; NaN where there are neither objects nor finds. counts: the
    number of objects, and of finds.
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
    groups: Sequence[str], tables: Counts | None, points: Counts | None, seg: Sequence[str], kinds: Sequence[str], *,
    draws: int = DRAWS, seed: int = 0,
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, dict[str, int]]]:  # fmt: skip
    """Every score of a set of samples, by name; its interval over groups; the numbers of objects and of finds by class.

    groups: of each sample. tables: (samples, classes, classes) of masks, or None. points: (samples, classes, 3), hits,
    false finds and misses, or None. seg, kinds: the classes of masks and of points. There are no intervals with one
    group, nor of scores that no draw defines.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    whole = {name: float(values[0]) for name, values in _scores(np.ones((1, len(groups))), tables, points, seg, kinds)}
    intervals = {}
    if len(names) > 1:
        weights = drawn_weights(len(names), draws, seed)
        tables, hits = (None if part is None else _by_group(part, group, len(names)) for part in (tables, points))
        for name, values in _scores(weights, tables, hits, seg, kinds):
            if (found := interval(values)) is not None:
                intervals[name] = found
    return whole, intervals, {} if points is None else _numbers(points.sum(0), kinds)


def _scores(
    weights: Values, tables: Counts | None, points: Counts | None, seg: Sequence[str], kinds: Sequence[str]
) -> Iterator[tuple[str, Values]]:
    if tables is not None:
        yield from mask_scores(np.tensordot(weights, tables, 1), seg)
    if points is not None:
        yield from point_scores(np.tensordot(weights, points, 1), kinds)


def _by_group(counts: Counts, group: NDArray[np.int64], groups: int) -> Counts:
    summed = np.zeros((groups, *counts.shape[1:]), np.int64)
    np.add.at(summed, group, counts)
    return summed


def _numbers(totals: Counts, kinds: Sequence[str]) -> dict[str, dict[str, int]]:
    return {
        kind: {"objects": int(hits + missed), "found": int(hits + false)}
        for kind, (hits, false, missed) in zip(kinds, totals, strict=True)
    }


def _mean(values: Values) -> Values:
    """Mean over the classes that are defined; NaN where none is."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0).sum(1)
    means: Values = np.where(defined.any(1), total / np.maximum(defined.sum(1), 1), np.nan)
    return means
