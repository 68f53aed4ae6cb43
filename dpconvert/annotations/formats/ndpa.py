"""Hamamatsu NDPA (`slide.ndpi.ndpa`): nanometres from the middle of the glass, x to the right, y down.

The middle of the scanned image lies (XOffsetFromSlideCentre, YOffsetFromSlideCentre) nanometres from the middle of
the glass, so that px = width / 2 + (x - offset) / (1000 * mpp). A view's label is its title, else its details, else the
colour of its outline as '#rrggbb'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import shapely

from dpconvert.annotations import marks
from dpconvert.annotations.geometry import Annotation, Annotations, Geometry, ellipse, polygon
from dpconvert.annotations.label_names import resolved
from dpconvert.annotations.parsing import xml_tree
from dpconvert.errors import ReadError

AREAS = {"freehand", "rectangle", "polygon", "freehandregion"}
PLACED = {"pin", "circle"}


@dataclass(frozen=True, slots=True)
class Glass:
    """Where a slide's pixels lie on its glass: size in level-0 pixels, um per pixel, offset of its middle in nm."""

    size: tuple[int, int]
    mpp: tuple[float, float]
    offset: tuple[float, float]

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        """Level-0 pixels of a place given in nm from the middle of the glass."""
        left, top = (
            length / 2 + (at - offset) / (1000 * mpp)
            for at, length, offset, mpp in zip((x, y), self.size, self.offset, self.mpp, strict=True)
        )
        return left, top


def read(data: bytes, name: str, glass: Glass, known: Collection[str] = ()) -> Annotations:
    """Annotations labelled by their title.

    Raises:
        ReadError: The content is not NDPA, its unit is not nanometres, or `known` lacks a title.
    """
    document = xml_tree.root(data, name, "annotations", of="ndpviewstate")
    remarks: Counter[str] = Counter()
    items = []
    for number, view in enumerate(document.iter("ndpviewstate")):
        unit = xml_tree.text(view, "coordformat") or "nanometers"
        if not unit.lower().startswith(("nanomet", "nm")):
            raise ReadError(f"coordinates in {unit!r}", where=name, expected="nanometers")
        for element in view.iter("annotation"):
            shape = _shape(element, glass, remarks, name)
            if shape is not None:
                label = resolved(_names(view, element), known, name)
                items.append(Annotation(shape, label, view.get("id", str(number))))
    return marks.check(Annotations(items, remarks), name)


def _names(view: Any, element: Any) -> list[str]:
    return [xml_tree.text(view, "title"), xml_tree.text(view, "details"), element.get("color", "").lower()]


def _shape(element: Any, glass: Glass, remarks: Counter[str], name: str) -> Geometry | None:
    kind, tool = element.get("type", "").strip().lower(), element.get("displayname", "")
    line = tool.endswith("Line") and not _closed(element)
    if line or kind not in AREAS | PLACED:
        marks.pass_over("line" if line else kind, remarks)
        return None
    if kind in PLACED:
        return _placed(element, kind, glass, remarks, name)
    points = [
        glass.pixels(xml_tree.child_number(point, "x", name), xml_tree.child_number(point, "y", name))
        for point in element.iterfind("pointlist/point")
    ]
    if not _closed(element):
        remarks["open outline closed"] += 1
    return polygon(points, remarks)


def _placed(element: Any, kind: str, glass: Glass, remarks: Counter[str], name: str) -> Geometry | None:
    x, y = xml_tree.child_number(element, "x", name), xml_tree.child_number(element, "y", name)
    if kind == "pin":
        return shapely.Point(glass.pixels(x, y))
    radius = abs(xml_tree.child_number(element, "radius", name))
    return ellipse((*glass.pixels(x - radius, y - radius), *glass.pixels(x + radius, y + radius)), remarks)


def _closed(element: Any) -> bool:
    return (xml_tree.text(element, "closed") or "1") not in ("0", "false")
