"""Convert the maps of a network to masks, and to points at the peaks of the point maps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mtrain.data.rows import DenseTargets
from mtrain.scoring.dense import Counts, confusion, matched

LEAST = 0.5  # minimum probability of a peak that counts as a point


class FoundPoints(NamedTuple):
    """The points of one class in one image: x and y (n, 2), and their scores (n,)."""

    places: NDArray[np.float64]
    scores: NDArray[np.float64]


def found_masks(logits: Tensor) -> NDArray[np.uint8]:
    """Return the most likely class of each pixel: (N, classes, S, S) -> (N, S, S)."""
    found: NDArray[np.uint8] = logits.argmax(1).to(torch.uint8).cpu().numpy()
    return found


def found_points(logits: Tensor, size: int, radius: float, least: float = LEAST) -> list[FoundPoints]:
    """Return the points of each class in one image: the peaks of its map (classes, h, w), in pixels of a `size` square.

    A peak is the maximum of 3 x 3 positions. Of two peaks within `radius` pixels, which one disc can produce, only the
    one with the higher score is kept.
    """
    chances = logits.double().sigmoid()
    peaks = (chances == F.max_pool2d(chances[None], 3, stride=1, padding=1)[0]) & (chances >= least)
    scale = np.array([size / logits.shape[-1], size / logits.shape[-2]])
    found = []
    for of_class, is_peak in zip(chances.cpu().numpy(), peaks.cpu().numpy(), strict=True):
        rows, columns = np.nonzero(is_peak)
        places, scores = (np.stack([columns, rows], axis=1) + 0.5) * scale, of_class[rows, columns]
        kept = _apart(places, scores, radius)
        found.append(FoundPoints(places[kept], scores[kept]))
    return found


def _apart(places: NDArray[np.float64], scores: NDArray[np.float64], radius: float) -> list[int]:
    """Return the indices of the positions with the highest scores that are more than `radius` apart."""
    kept: list[int] = []
    for number in np.argsort(-scores, kind="stable").tolist():
        if all(np.hypot(*(places[number] - places[other])) > radius for other in kept):
            kept.append(number)
    return kept


def counted(
    seg: Tensor | None, discs: Tensor | None, dense: DenseTargets, masks: Tensor, points: Tensor, radii: Tensor
) -> tuple[Counts | None, Counts | None]:
    """Count the results for a batch of one task; None for masks or points that the task does not have.

    Returns confusion matrices (N, classes, classes), and hits, false positives and misses of points (N, classes, 3).
    seg: logits (N, classes, S, S). discs: logits (N, classes, h, w). masks, points, radii: as in a `Batch`.
    """
    tables = hits = None
    if dense.seg:
        assert seg is not None
        pairs = zip(masks.numpy(), found_masks(seg), strict=True)
        tables = np.stack([confusion(truth, found, len(dense.seg)) for truth, found in pairs])
    if dense.points:
        assert discs is not None
        rows = zip(discs, points.double().numpy(), radii.tolist(), strict=True)
        hits = np.stack([_hits(of, truth, radius, masks.shape[-1]) for of, truth, radius in rows])
    return tables, hits


def _hits(logits: Tensor, truth: NDArray[np.float64], radius: float, size: int) -> Counts:
    found = found_points(logits, size, radius)
    counts = [
        matched(truth[truth[:, 2] == number, :2], of.places, of.scores, radius) for number, of in enumerate(found)
    ]
    return np.array(counts, np.int64)
