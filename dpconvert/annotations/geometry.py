"""Annotated geometry, repair of hand-drawn outlines, and exact shares of patches covered by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely import affinity

from dpconvert.errors import ReadError

Geometry = Any  # shapely's own types are not annotated
FEW_VERTICES = 64
MANY_CROSSINGS, MOST_CROSSINGS = 1e3, 1e5  # real outlines are estimated at less than 50


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated object or region: a valid geometry, the format's own class name, and its id if it has one."""

    geometry: Geometry
    label: str
    id: str = ""


@dataclass(frozen=True)
class Annotations:
    """All of one image; `remarks` counts what had to be repaired or dropped, by kind."""

    items: list[Annotation]
    remarks: Counter[str] = field(default_factory=Counter)


def polygon(ring: Sequence[tuple[float, float]], remarks: Counter[str], holes: Sequence[Any] = ()) -> Geometry | None:
    """A valid polygon of a ring, closed or not; None for a degenerate one. Repairs are counted in `remarks`."""
    if len({*ring}) < 3:
        remarks["degenerate ring dropped"] += 1
        return None
    return repair(shapely.Polygon(ring, holes), remarks)


def repair(shape: Geometry, remarks: Counter[str]) -> Geometry | None:
    """The same area as a valid geometry, without the lines and points that repairing leaves over; None for nothing.

    Raises:
        ReadError: it crosses itself so often that it is not an outline, and repairing it would take hours.
    """
    if shape.is_valid:
        return shape
    if (crossings := _crossings(shape)) > MOST_CROSSINGS:
        raise ReadError(f"an outline that crosses itself about {crossings:.0e} times", remedy="draw it again")
    remarks["invalid ring repaired"] += 1
    try:
        if crossings < MANY_CROSSINGS:
            repaired = shapely.make_valid(shape)
        else:  # its time does not grow with the square of the crossings; what a scribble encloses is filled
            repaired = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    except shapely.errors.GEOSException:
        remarks["ring beyond repair dropped"] += 1
        return None
    parts = [part for part in shapely.get_parts(repaired, return_index=False) if part.area > 0]
    parts = [inner for part in parts for inner in shapely.get_parts(part) if inner.area > 0]
    return shapely.union_all(parts) if parts else None


def _crossings(shape: Geometry) -> float:
    """How often lines of this length cross by chance inside the same frame: length^2 / (pi * area)."""
    left, top, right, bottom = shape.bounds
    return float(shape.length**2 / (np.pi * max((right - left) * (bottom - top), 1e-9)))


def ellipse(bounds: tuple[float, float, float, float], remarks: Counter[str]) -> Geometry | None:
    """The ellipse that fills a frame (left, top, right, bottom), as a polygon of 128 vertices; None without area.

    Its area is 0.04% less than the ellipse's.
    """
    left, top, right, bottom = bounds
    if not (right > left and bottom > top):
        remarks["degenerate ring dropped"] += 1
        return None
    circle = shapely.Point((left + right) / 2, (top + bottom) / 2).buffer(1.0, quad_segs=32)
    return affinity.scale(circle, (right - left) / 2, (bottom - top) / 2)


class Regions:
    """The area of some geometries less that of others; points and lines have none."""

    def __init__(self, geometries: Iterable[Geometry], cut: Iterable[Geometry] = ()) -> None:
        positive, negative = (shapely.union_all([g for g in of if g.area > 0]) for of in (geometries, cut))
        self.area = shapely.difference(positive, negative)

    def share(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Exact share of each box (N, 4) of x, y, width, height that the area covers.

        Boxes are halved in space together with the area, so that each is met by the few vertices near it.
        """
        x, y, w, h = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
        bounds = np.stack([x, y, x + w, y + h], axis=1)
        covered = np.zeros(len(bounds))
        _cover(self.area, bounds, np.arange(len(bounds)), covered)
        share: NDArray[np.float64] = np.clip(covered / (w * h), 0.0, 1.0)
        return share

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Return which points (N, 2) lie strictly inside the area."""
        x, y = np.asarray(points, dtype=np.float64).reshape(-1, 2).T
        shapely.prepare(self.area)
        inside: NDArray[np.bool_] = shapely.contains_xy(self.area, x, y)
        return inside


def _cover(area: Geometry, bounds: NDArray[np.float64], which: NDArray[np.intp], covered: NDArray[np.float64]) -> None:
    """Write the covered area of the boxes `which` into `covered`."""
    if not len(which) or area.is_empty:
        return
    chosen = bounds[which]
    low, high = chosen[:, :2].min(axis=0), chosen[:, 2:].max(axis=0)
    frame = shapely.box(*low, *high)
    area = shapely.intersection(area, frame)
    if area.is_empty:
        return
    if area.equals(frame):
        covered[which] = (chosen[:, 2] - chosen[:, 0]) * (chosen[:, 3] - chosen[:, 1])
        return
    if len(which) == 1 or shapely.get_num_coordinates(area) <= FEW_VERTICES:
        covered[which] = shapely.area(shapely.intersection(shapely.box(*chosen.T), area))
        return
    axis = int(np.argmax(high - low))
    order = np.argsort(chosen[:, axis], kind="stable")
    half = len(which) // 2
    _cover(area, bounds, which[order[:half]], covered)
    _cover(area, bounds, which[order[half:]], covered)
