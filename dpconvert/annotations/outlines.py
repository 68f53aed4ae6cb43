"""Convert the pixels of a mask to an outline: the exact area of the pixels, not a curve through them."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from dpconvert.annotations.geometry import Geometry
from dpconvert.errors import ReadError
from dpconvert.plural import counted

MOST_RUNS = 2_000_000
Runs = NDArray[np.int64]  # (N, 3): line, first, one after the last


def of_mask(mask: NDArray[np.bool_]) -> Runs:
    """Return the runs of true cells along the rows."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(padded, axis=1)
    lines, starts = np.nonzero(steps == 1)
    return np.stack([lines, starts, np.nonzero(steps == -1)[1]], axis=1).astype(np.int64)


def outline(runs: Runs, *, columns: bool = False) -> Geometry:
    """The area of runs along rows, or along columns; equal runs in neighbouring lines are joined first."""
    line, first, last = _joined(runs)
    boxes = (first, line[:, 0], last, line[:, 1]) if not columns else (line[:, 0], first, line[:, 1], last)
    return shapely.union_all(shapely.box(*boxes))


def by_column(start: Runs, end: Runs, height: int, name: str) -> Runs:
    """Runs [start, end) of pixels that are counted down the columns, cut at the columns' ends.

    Raises:
        ReadError: There are too many runs.
    """
    spans = (end - 1) // height - start // height + 1
    if spans.sum() > MOST_RUNS:
        raise ReadError(f"{counted(spans.sum(), 'run')} in a mask", where=name, expected=f"at most {MOST_RUNS}")
    which = np.repeat(np.arange(len(start)), spans)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(spans) - spans, spans)
    column = start[which] // height + nth
    first = np.where(nth == 0, start[which] - column * height, 0)
    last = np.minimum(end[which] - column * height, height)
    return np.stack([column, first, last], axis=1)


def _joined(runs: Runs) -> tuple[Runs, Runs, Runs]:
    """(lines from and to, first, last) of rectangles."""
    runs = runs[np.lexsort((runs[:, 0], runs[:, 2], runs[:, 1]))]
    follows = np.zeros(len(runs), dtype=bool)
    follows[1:] = (np.diff(runs[:, 1:], axis=0) == 0).all(axis=1) & (np.diff(runs[:, 0]) == 1)
    start = np.flatnonzero(~follows)
    end = np.append(start[1:], len(runs)) - 1 if len(start) else start
    return np.stack([runs[start, 0], runs[end, 0] + 1], axis=1), runs[start, 1], runs[start, 2]
