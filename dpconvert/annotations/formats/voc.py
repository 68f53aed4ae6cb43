"""Pascal VOC XML: boxes of one image, <bndbox> of xmin, ymin, xmax, ymax in pixels from the top left.

http://host.robots.ox.ac.uk/pascal/VOC/. A box is taken to reach from xmin to xmax, as torchvision and labelImg do. What
was drawn on a smaller copy is scaled by the stated <size>. Two extensions are read: outlines beside boxes, <polygon> of
x1, y1, x2, y2, ... (Roboflow), and rotated boxes, <robndbox> of cx, cy, w, h and an angle in radians, from x towards y
(roLabelImg).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection
from typing import Any

import shapely
from shapely import affinity

from dpconvert.annotations.frame import SCALED, factors
from dpconvert.annotations.geometry import Annotation, Annotations, Geometry, polygon
from dpconvert.annotations.label_names import resolved
from dpconvert.annotations.parsing import xml_tree

SIDES = "xmin", "ymin", "xmax", "ymax"
ROTATED = "cx", "cy", "w", "h", "angle"


def read(data: bytes, name: str, size: tuple[int, int], known: Collection[str] = ()) -> Annotations:
    """Boxes labelled by their objects' names, in pixels of an image of `size` (width, height).

    Raises:
        ReadError: not such XML, of an image of another shape, or with a name that `known` does not have.
    """
    document = xml_tree.root(data, name, "annotation")
    across, down = factors(_stated(document, size, name), size, name)
    remarks: Counter[str] = Counter()
    items = []
    for number, element in enumerate(document.iterfind("object")):
        shape = _shape(element, remarks, name)
        if shape is None or not shape.area:
            remarks["annotation without an outline"] += 1
            continue
        remarks[SCALED] += (across, down) != (1, 1)
        scaled = shapely.transform(shape, lambda xy: xy * (across, down))
        items.append(Annotation(scaled, resolved([xml_tree.text(element, "name")], known, name), str(number)))
    return Annotations(items, remarks)


def _shape(element: Any, remarks: Counter[str], name: str) -> Geometry | None:
    """Return the outline of an object, else its rotated box, else its box; None if it has none."""
    if (outline := element.find("polygon")) is not None and (corners := _corners(outline, name)):
        return polygon(corners, remarks)
    if (rotated := element.find("robndbox")) is not None:
        x, y, width, height, angle = (xml_tree.child_number(rotated, side, name) for side in ROTATED)
        box = shapely.box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return affinity.rotate(box, angle, origin=(x, y), use_radians=True)
    if (frame := element.find("bndbox")) is not None:
        left, top, right, bottom = (xml_tree.child_number(frame, side, name) for side in SIDES)
        return shapely.box(min(left, right), min(top, bottom), max(left, right), max(top, bottom))
    return None


def _corners(outline: Any, name: str) -> list[tuple[float, float]]:
    numbers = itertools.takewhile(lambda n: outline.find(f"x{n}") is not None, itertools.count(1))
    return [
        (xml_tree.child_number(outline, f"x{n}", name), xml_tree.child_number(outline, f"y{n}", name)) for n in numbers
    ]


def _stated(document: Any, size: tuple[int, int], name: str) -> tuple[float, float]:
    """Return the width and height that the file states, or `size` if they are missing or 0."""
    stated = document.find("size")
    if stated is None:
        return size
    width, height = (xml_tree.child_number(stated, side, name) for side in ("width", "height"))
    return (width, height) if min(width, height) > 0 else size


def image_of(data: bytes, name: str) -> str:
    """Return the name of the image that the content states, '' for none.

    Raises:
        ReadError: not such XML.
    """
    return xml_tree.text(xml_tree.root(data, name, "annotation"), "filename").strip()
