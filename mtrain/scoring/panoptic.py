"""Panoptic quality and aggregated Jaccard index: how well masks detect, outline and separate the instances of a class.

Kirillov et al., "Panoptic segmentation" (CVPR 2019), section 4: a predicted and a true instance of one class match if
their intersection over union exceeds 0.5, which at most one pair of each does. PQ = SQ x DQ, where SQ is the mean
intersection over union of the matches, and DQ = TP / (TP + FP / 2 + FN / 2). Pixels that are not annotated count in no
area, and a prediction whose larger part is not annotated is not a false positive.

Kumar et al., "A dataset and a technique for generalized nuclear segmentation for computational pathology" (IEEE TMI
2017), algorithm 1: every true instance is paired with the predicted one of the highest intersection over union, which
several may share. AJI is the sum of their intersections over the sum of their unions and of the areas of all predicted
instances that are in no pair. A true instance that no prediction touches adds its own area.

The predicted instances of a class are the connected areas of its pixels; pixels that touch at a corner are connected.
So objects of one class that touch in the prediction are one instance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mtrain.scoring.dense import IGNORE, Masks, mean_over_classes
from mtrain.scoring.metrics import Values

LEAST = 0.5  # intersection over union that a match exceeds
COLUMNS = 6
Matches = NDArray[np.float64]
"""(classes, COLUMNS): sum of intersections over union, TP, FP and FN; then the intersections and unions of AJI."""


def connected(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the number of the connected area of each pixel, counted from 1; 0 outside."""
    from scipy import ndimage  # costs every training's start otherwise

    return np.asarray(ndimage.label(mask, np.ones((3, 3)))[0], np.int32)


def matches(
    truth: NDArray[np.int32], classes: NDArray[np.int64], mask: Masks, found: Masks, of: Sequence[int]
) -> Matches:
    """Match predicted and true instances of one image.

    truth: the number of the instance of each pixel (h, w), 0 for none. classes: the class of each number, from 1 on, as
    an index in `of`. mask: the true mask, 255 where nothing is annotated. found: the predicted mask. of: the value of
    each class in the masks.
    """
    known = mask != IGNORE
    of_class = np.concatenate([[-1], classes])[truth]
    return np.array(
        [
            _matched(np.where(known & (of_class == number), truth, 0), connected(found == value), known)
            for number, value in enumerate(of)
        ],
        np.float64,
    ).reshape(-1, COLUMNS)


def _matched(
    truth: NDArray[np.int32], found: NDArray[np.int32], known: NDArray[np.bool_]
) -> tuple[float, int, int, int, int, int]:
    """The entries of one class."""
    objects, one = np.unique(truth[known], return_inverse=True)
    finds, other = np.unique(found[known], return_inverse=True)
    shared = np.bincount(one.ravel() * len(finds) + other.ravel(), minlength=len(objects) * len(finds))
    shared = shared.reshape(len(objects), len(finds))
    union = shared.sum(1)[:, None] + shared.sum(0) - shared
    is_pair = (objects > 0)[:, None] & (finds > 0)
    overlaps = np.where(is_pair, shared / np.maximum(union, 1), 0)
    hits = overlaps > LEAST
    whole = np.bincount(found.ravel(), minlength=found.max(initial=0) + 1)[finds]
    counted = (finds > 0) & (2 * shared.sum(0) >= whole)  # the rest lies mostly where nothing is annotated
    false = int((counted & ~hits.any(0)).sum())
    missed = int(((objects > 0) & ~hits.any(1)).sum())
    jaccard = _jaccard(shared, union, overlaps, objects > 0, counted)
    return float(overlaps[hits].sum()), int(hits.sum()), false, missed, *jaccard


def _jaccard(
    shared: NDArray[np.int64],
    union: NDArray[np.int64],
    overlaps: NDArray[np.float64],
    is_object: NDArray[np.bool_],
    counted: NDArray[np.bool_],
) -> tuple[int, int]:
    """The numerator and the denominator of AJI.

    shared, union, overlaps: (objects, finds), with the background in both. is_object: (objects,). counted: (finds,).
    """
    rows = np.flatnonzero(overlaps.any(1))
    pairs = rows, overlaps[rows].argmax(1) if len(rows) else rows
    alone, unused = is_object.copy(), counted.copy()
    alone[rows], unused[pairs[1]] = False, False
    rest = shared[alone].sum() + shared[:, unused].sum()
    return int(shared[pairs].sum()), int(union[pairs].sum() + rest)


def panoptic_scores(sums: Values, classes: Sequence[str]) -> Iterator[tuple[str, Values]]:
    """Return scores, (draws,) each, from sums of matches (draws, classes, COLUMNS).

    Means are over the classes that have true or predicted instances. Sums of earlier versions have four columns, and no
    AJI.
    """
    total, hits, false, missed, *jaccard = np.moveaxis(sums, 2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        dq = 2 * hits / (2 * hits + false + missed)
        sq = total / hits
        pq = np.where(np.isnan(dq), np.nan, 2 * total / (2 * hits + false + missed))
        every = {"pq": pq, "dq": dq, "sq": sq}
        if jaccard:
            every["aji"] = jaccard[0] / jaccard[1]
    for name, values in every.items():
        yield name, mean_over_classes(values)
    for number, name in enumerate(classes):
        for score, values in every.items():
            yield f"{score}_{name}", values[:, number]
