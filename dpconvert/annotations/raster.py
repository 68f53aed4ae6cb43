"""Geometry and label masks to the pixels of a stored image: exact shares of every pixel, and the largest of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from dpconvert.annotations.geometry import Geometry
from dpconvert.annotations.masks import LabelMask
from dpconvert.image.coverage import Coverage

Frame = tuple[int, int, int, int]  # x, y, width, height in level-0 pixels
Size = tuple[int, int]  # width, height in stored pixels
Shares = NDArray[np.float64]  # (height, width), from 0 to 1
DECIMALS = 9  # of shares; beyond is what rounding leaves


def to_stored(frame: Frame, size: Size) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(corner, factors) that take level-0 coordinates to pixels of the stored image: (xy - corner) * factors."""
    x, y, width, height = frame
    return np.array([x, y], np.float64), np.array([size[0] / width, size[1] / height])


def shares(area: Geometry, frame: Frame, size: Size) -> Shares:
    """The exact share of each stored pixel that an area in level-0 pixels covers.

    Each edge of the area is cut where it crosses the lines between pixels. A piece of height dy whose middle lies at x
    inside a pixel bounds dy (1 - x) of this pixel's area, and dy of all pixels to its right; their signed sum is exact.
    """
    x, y, width, height = frame
    corner, factors = to_stored(frame, size)
    clipped = shapely.intersection(area, shapely.box(x, y, x + width, y + height))
    columns = size[0] + 1  # what lies on the right border bounds no pixel
    bounded = np.zeros(size[1] * columns)
    starts, ends = _edges(shapely.transform(clipped, lambda xy: (xy - corner) * factors))
    if len(starts):
        middle, dy = _pieces(starts, ends)
        column = np.clip(np.floor(middle[:, 0]).astype(np.intp), 0, size[0] - 1)
        row = np.clip(np.floor(middle[:, 1]).astype(np.intp), 0, size[1] - 1)
        inside, cell = middle[:, 0] - column, row * columns + column
        bounded += np.bincount(cell, dy * (1 - inside), len(bounded))
        bounded += np.bincount(cell + 1, dy * inside, len(bounded))
    covered = np.cumsum(bounded.reshape(size[1], columns), axis=1)[:, : size[0]]
    return np.clip(covered, 0.0, 1.0)


def of_mask(mask: LabelMask, values: Sequence[int], frame: Frame, size: Size) -> Shares:
    """The exact share of each stored pixel that cells of a label mask with one of `values` cover."""
    x, y, width, height = frame
    rows, columns = mask.values.shape
    across, down = columns / mask.width, rows / mask.height
    left, top = int(np.floor(x * across)), int(np.floor(y * down))
    right, bottom = int(np.ceil((x + width) * across)), int(np.ceil((y + height) * down))
    cells = np.isin(mask.values[top:bottom, left:right], values)
    if (across, down) == (1, 1) and size == (width, height):
        return cells.astype(np.float64)
    coverage = Coverage(cells, cells.shape[1] / across, cells.shape[0] / down)
    xs, ys = np.meshgrid(np.arange(size[0]) * width / size[0], np.arange(size[1]) * height / size[1])
    sides = np.broadcast_to([width / size[0], height / size[1]], (xs.size, 2))
    corners = np.stack([xs.ravel() + x - left / across, ys.ravel() + y - top / down], axis=1)
    return coverage.share(np.concatenate([corners, sides], axis=1)).reshape(size[1], size[0])


def majority(ranked: Sequence[tuple[int, Shares]]) -> NDArray[np.uint8]:
    """The value of each pixel whose share is largest; of equal shares that of the last.

    ranked: values and their shares of every pixel, from the bottom up.
    """
    values = np.array([value for value, _ in ranked], np.uint8)
    stacked = np.stack([share for _, share in ranked]).round(DECIMALS)
    last: NDArray[np.uint8] = values[len(values) - 1 - stacked[::-1].argmax(axis=0)]
    return last


def _edges(area: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Starts and ends (N, 2) of the edges of all rings, in the direction that has the area on their right (y down)."""
    polygons = [part for part in shapely.get_parts(shapely.get_parts(area)) if part.geom_type == "Polygon"]
    starts, ends = [np.empty((0, 2))], [np.empty((0, 2))]
    for polygon in polygons:
        for ring, ccw in [(polygon.exterior, False), *((hole, True) for hole in polygon.interiors)]:
            at = shapely.get_coordinates(ring)
            at = at if bool(shapely.is_ccw(ring)) == ccw else at[::-1]
            starts.append(at[:-1])
            ends.append(at[1:])
    return np.concatenate(starts), np.concatenate(ends)


def _pieces(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles (M, 2) and signed heights of the pieces of edges between the lines of whole coordinates."""
    steps, count = ends - starts, len(starts)
    edges, times = [np.arange(count), np.arange(count)], [np.zeros(count), np.ones(count)]
    for axis in (0, 1):
        low = np.floor(np.minimum(starts[:, axis], ends[:, axis])) + 1
        crossed = np.maximum(np.ceil(np.maximum(starts[:, axis], ends[:, axis])) - low, 0).astype(np.intp)
        edge = np.repeat(np.arange(count), crossed)
        nth = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed)
        edges.append(edge)
        times.append((low[edge] + nth - starts[edge, axis]) / steps[edge, axis])
    edge, time = np.concatenate(edges), np.concatenate(times)
    order = np.lexsort((time, edge))
    edge, time = edge[order], time[order]
    same = edge[1:] == edge[:-1]
    of, begin, end = edge[:-1][same], time[:-1][same], time[1:][same]
    return starts[of] + steps[of] * ((begin + end) / 2)[:, None], steps[of, 1] * (end - begin)
