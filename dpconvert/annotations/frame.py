"""An image's frame and what lies outside it: the one place that scales to it and that counts what is not on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import shapely

from dpconvert.annotations.geometry import Annotation, Annotations
from dpconvert.errors import ReadError

OUTSIDE = "outside its image"
BEYOND = "reaching beyond its image"
AGAIN = "the same as another, counted once"
ALIKE = "the label and outline of another, with another id or none, counted as well"
SCALED = "drawn on a copy of another size, scaled to the image"
LEAST = 8  # pixels of a side, below which fractions are not recognized
NEAR = 1.0  # pixels beyond the image that are rounding


def factors(
    stated: tuple[float, float], size: tuple[int, int], name: str, of: str = "its image"
) -> tuple[float, float]:
    """Return the factors that scale coordinates from an image of `stated` (width, height) to one of `size`.

    Raises:
        ReadError: The two sizes have different aspect ratios.
    """
    if abs(stated[0] * size[1] - stated[1] * size[0]) > max(size):
        raise ReadError(
            f"states another shape of {of}",
            where=name,
            expected=f"{size[0]} x {size[1]}, or a smaller copy",
            found=f"{stated[0]:g} x {stated[1]:g}",
        )
    return size[0] / stated[0], size[1] / stated[1]


def inside(found: Annotations, size: tuple[int, int], name: str, *, allow_outside: bool = False) -> Annotations:
    """The annotations less those that lie wholly outside an image of `size` (width, height), which are counted.

    So are those that are the same as one before them, such as a point in two rows of a table.
    An area that only touches the edge of the image is outside, a point on it is not. Those that reach more than a pixel
    beyond it are counted too, and left as they are.

    Raises:
        ReadError: all of them lie outside, unless that is allowed, or are fractions of the image.
    """
    if not found.items and not found.remarks[OUTSIDE]:
        return found
    found = once(found)
    geometries = np.array([item.geometry for item in found.items], dtype=object)
    frame = shapely.box(0, 0, *size)
    shapely.prepare(frame)
    within = shapely.intersects(frame, geometries) & ~(
        shapely.touches(frame, geometries) & (shapely.area(geometries) > 0)
    )
    beyond = within & ~shapely.covers(shapely.box(-NEAR, -NEAR, size[0] + NEAR, size[1] + NEAR), geometries)
    counts = Counter({OUTSIDE: int((~within).sum()), BEYOND: int(beyond.sum()), ALIKE: _alike(found)})
    if not within.any() and not allow_outside:
        raise _nothing_inside(geometries, size, found.remarks[OUTSIDE] + len(geometries), name)
    if not allow_outside and _are_fractions(geometries, size):
        raise ReadError(
            "all annotations lie in the first pixel, as fractions of the image would",
            where=name,
            expected=f"x from 0 to {size[0]}, y from 0 to {size[1]}",
            found=_extent(geometries),
            remedy="multiply them by the width and the height of the image",
        )
    kept = [item for item, here in zip(found.items, within, strict=True) if here]
    return replace(found, items=kept, remarks=found.remarks + counts)


def once(found: Annotations) -> Annotations:
    """The annotations less repeated ones, counted: points of one label and place, and areas that agree in ids too."""
    first: dict[tuple[str | bytes | int, ...], Annotation] = {}
    for number, (item, shape) in enumerate(zip(found.items, _shapes(found), strict=True)):
        same = () if item.geometry.geom_type == "Point" else (item.id or number,)  # areas without an id are all kept
        first.setdefault((item.label, shape, *same), item)
    return replace(
        found, items=[*first.values()], remarks=found.remarks + Counter({AGAIN: len(found.items) - len(first)})
    )


def _alike(found: Annotations) -> int:
    """How many have the label and the outline of one before them."""
    return len(found.items) - len(
        {(item.label, shape) for item, shape in zip(found.items, _shapes(found), strict=True)}
    )


def _shapes(found: Annotations) -> list[bytes]:
    return list(shapely.to_wkb(np.array([item.geometry for item in found.items], dtype=object)))


def _are_fractions(geometries: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether nothing goes beyond 1 in an image of many pixels, and not all numbers are whole."""
    if not len(geometries) or min(size) < LEAST or max(abs(shapely.total_bounds(geometries))) > 1:
        return False
    coordinates = shapely.get_coordinates(geometries)
    return bool((coordinates != coordinates.round()).any())


def _extent(geometries: np.ndarray) -> str:
    left, top, right, bottom = shapely.total_bounds(geometries)
    return f"x from {left:g} to {right:g}, y from {top:g} to {bottom:g}"


def _nothing_inside(geometries: np.ndarray, size: tuple[int, int], count: int, name: str) -> ReadError:
    return ReadError(
        f"{'the only annotation lies' if count == 1 else f'all {count} annotations lie'} outside the image",
        where=name,
        expected=f"x from 0 to {size[0]}, y from 0 to {size[1]}",
        found=_extent(geometries) if len(geometries) else None,
        remedy="check that x and y are not swapped, and that image and annotations belong together at one scale; "
        "--allow-outside treats such an image as one without annotations",
    )
