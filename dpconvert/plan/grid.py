"""Boxes of patches: regular grids over an image, and single boxes around points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dpconvert.source.record import Box, draw

Boxes = NDArray[np.int64]
Points = NDArray[np.float64]
Scales = tuple[float, float]
SQUARE: Scales = (1.0, 1.0)


def grid(width: int, height: int, size: int, overlap: int = 0, scale: Scales = SQUARE) -> Boxes:
    """Return the patches of an image: int64 (N, 4) of x, y, width, height in level-0 pixels, row by row.

    scale: level-0 pixels per pixel of `size` and `overlap`, along x and y. Each corner is rounded separately, so that
    errors do not add up.
    """
    sides = patch_sides(size, scale)
    xs, ys = (
        _starts(length, side, (size - overlap) * each)
        for length, side, each in zip((width, height), sides, scale, strict=True)
    )
    corners = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    return np.concatenate([corners, np.broadcast_to(sides, corners.shape)], axis=1).astype(np.int64)


def patch_sides(size: int, scale: Scales) -> tuple[int, int]:
    """Return the width and height of a patch in level-0 pixels."""
    return max(1, round(size * scale[0])), max(1, round(size * scale[1]))


def resampled(size: tuple[int, int], scale: Scales) -> tuple[int, int]:
    """Return the stored form of a level-0 frame."""
    return max(1, round(size[0] / scale[0])), max(1, round(size[1] / scale[1]))


def _starts(length: int, side: int, step: float) -> NDArray[np.int64]:
    count = int(max(length - side, -1) / step) + 2
    starts = np.unique(np.floor(np.arange(count) * step + 0.5).astype(np.int64))
    return starts[starts + side <= length]


def holds(boxes: Boxes, points: Points) -> NDArray[np.bool_]:
    """Return a mask (N,) of the boxes (N, 4) that hold at least one of the points (M, 2) strictly inside."""
    held = np.zeros(len(boxes), dtype=bool)
    left, top = boxes[:, 0], boxes[:, 1]
    right, bottom = left + boxes[:, 2], top + boxes[:, 3]
    for x, y in points:
        held |= (left < x) & (x < right) & (top < y) & (y < bottom)
    return held


def shifted(point: tuple[float, float], size: tuple[int, int], width: int, height: int, *address: str | int) -> Box:
    """Draw a patch of `size` (width, height) px that lies in the image and holds the point strictly inside.

    All such corners are equally likely.

    A point on the border of the image lies on the border of the patch: patches are clamped, never dropped or padded.
    """
    corner = [
        low + draw(high - low + 1, axis, *address)
        for axis, (low, high) in zip("xy", _corners(point, size, (width, height)), strict=True)
    ]
    return Box(corner[0], corner[1], *size)


def _corners(point: tuple[float, float], size: tuple[int, int], extent: tuple[int, int]) -> Iterator[tuple[int, int]]:
    for at, side, length in zip(point, size, extent, strict=True):
        last = length - side
        low = min(max(int(np.floor(at - side)) + 1, 0), last)
        high = max(min(int(np.ceil(at)) - 1, last), 0)
        yield low, max(low, high)


def each_box(boxes: Boxes) -> Iterator[Box]:
    return (Box(*row) for row in boxes.tolist())
