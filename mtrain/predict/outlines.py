"""The regions of a map of classes as polygons with holes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray

BLOCK = 512  # rows that are joined at once
TOLERANCE = 0.5  # pixels by which an outline may be simplified


def outlines(classes: NDArray[np.uint8], label: int, tolerance: float = TOLERANCE) -> list[shapely.Polygon]:
    """The regions of one class in pixels of the map: polygons along the edges of pixels, with holes, simplified."""
    blocks = [
        shapely.union_all(shapely.box(*runs.T))
        for top in range(0, len(classes), BLOCK)
        if len(runs := _runs(classes[top : top + BLOCK] == label, top))
    ]
    joined = shapely.simplify(shapely.union_all(blocks), tolerance)
    return [part for part in shapely.get_parts(joined) if part.geom_type == "Polygon" and not part.is_empty]


def in_level0(
    polygon: shapely.Polygon, pitch: tuple[float, float], origin: tuple[int, int]
) -> Iterator[list[list[float]]]:
    """The rings of a polygon, outer ring first, in level-0 pixels from `origin` on. pitch: level-0 pixels in one of the
    map, x and y.
    """
    for ring in (polygon.exterior, *polygon.interiors):
        places = np.asarray(ring.coords) * pitch - origin
        yield np.round(places, 2).tolist()


def _runs(mask: NDArray[np.bool_], top: int) -> NDArray[np.float64]:
    """The runs of a mask's rows: (N, 4), left, top, right, bottom."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, left = np.nonzero(steps == 1)
    right = np.nonzero(steps == -1)[1]
    return np.stack([left, rows + top, right, rows + top + 1], axis=1).astype(np.float64)
