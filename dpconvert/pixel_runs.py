"""Runs of pixels: how the JSON of a sample states which pixels belong to which object (docs/format.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Runs = list[int]  # start, length, start, length, ...: positions row by row from the top left
Numbers = NDArray[np.int32]  # (height, width): the number of the object of each pixel, counted from 1; 0 for none
Size = tuple[int, int]  # width, height


def runs_of(cells: NDArray[np.bool_]) -> Runs:
    """Return the runs of a mask (height, width)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], cells.ravel(), [False]])))
    starts, ends = edges[::2], edges[1::2]
    return [int(value) for value in np.stack([starts, ends - starts], axis=1).ravel()]


def cells_of(runs: Sequence[int], size: Size) -> NDArray[np.bool_]:
    """Return the mask (height, width) of runs: the inverse of `runs_of`.

    Raises:
        ValueError: the runs are not pairs, or are empty, not in order or outside the image.
    """
    cells = np.zeros(size[0] * size[1], np.bool_)
    end = 0
    if not runs or len(runs) % 2:
        raise ValueError("its runs are not pairs of start and length")
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        if not end <= start < start + length <= len(cells):
            raise ValueError("its runs are not in order within the image")
        end = start + length
        cells[start:end] = True
    return cells.reshape(size[1], size[0])


def numbered(fields: Mapping[str, Any]) -> Numbers:
    """Return the instances in the JSON of a sample as numbers of pixels: the first is 1, 0 is none.

    Raises:
        KeyError, ValueError, TypeError: the JSON does not state instances, or they do not fit its image.
    """
    size = int(fields["stored_width"]), int(fields["stored_height"])
    numbers = np.zeros((size[1], size[0]), np.int32)
    for number, (*runs, _) in enumerate(fields["instances"], start=1):
        numbers[cells_of(runs, size)] = number
    return numbers
