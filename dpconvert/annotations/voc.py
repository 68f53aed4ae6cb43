"""Pascal VOC XML: boxes of one image, <bndbox> of xmin, ymin, xmax, ymax in pixels from the top left.

http://host.robots.ox.ac.uk/pascal/VOC/. A box is taken to reach from xmin to xmax, as torchvision and labelImg do. What
was drawn on a smaller copy is scaled by the stated <size>.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import shapely

from dpconvert.annotations.frame import SCALED, factors
from dpconvert.annotations.geometry import Annotation, Annotations
from dpconvert.annotations.labels import resolved
from dpconvert.annotations.parsing import xml_tree

SIDES = "xmin", "ymin", "xmax", "ymax"


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
        frame = element.find("bndbox")
        left, top, right, bottom = _sides(frame, name)
        if not (right > left and bottom > top):
            remarks["annotation without an outline"] += 1
            continue
        remarks[SCALED] += (across, down) != (1, 1)
        box = shapely.box(left * across, top * down, right * across, bottom * down)
        items.append(Annotation(box, resolved([xml_tree.text(element, "name")], known, name), str(number)))
    return Annotations(items, remarks)


def _sides(frame: Any, name: str) -> tuple[float, ...]:
    return (0, 0, 0, 0) if frame is None else tuple(xml_tree.child_number(frame, side, name) for side in SIDES)


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
