"""XML of the first LabelMe (MIT's annotation tool for the web): polygons of one image, pixels from the top left.

https://github.com/CSAILVision/LabelMeAnnotationTool. CVAT exports it too, as "LabelMe 3.0". A box is a polygon of four
corners. Objects that were deleted stay in the file, marked so, and are passed over and counted like masks, which lie in
separate files.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from dpconvert.annotations import marks
from dpconvert.annotations.geometry import polygon
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing import xml_tree

DELETED = "deleted object passed over"


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the only image of the file.

    Raises:
        ReadError: The content is not such XML.
    """
    document, remarks = xml_tree.root(data, name, "annotation"), Counter[str]()
    drawn = []
    for number, element in enumerate(document.iterfind("object")):
        if xml_tree.text(element, "deleted") in ("1", "yes"):
            remarks[DELETED] += 1
        elif (outline := element.find("polygon")) is None:
            marks.pass_over("mask" if element.find("segm") is not None else "object without a polygon", remarks)
        elif (shape := polygon(_corners(outline, name), remarks)) is not None:
            drawn.append(
                ListedShape(shape, (xml_tree.text(element, "name"),), xml_tree.text(element, "id") or str(number))
            )
    return [ListedImage(xml_tree.text(document, "filename"), _size(document, name), drawn, remarks)]


def _corners(outline: Any, name: str) -> list[tuple[float, float]]:
    corners = outline.iterfind("pt")
    return [(xml_tree.child_number(pt, "x", name), xml_tree.child_number(pt, "y", name)) for pt in corners]


def _size(document: Any, name: str) -> tuple[float, float] | None:
    """The width and height that the file states, or None."""
    stated = document.find("imagesize")
    if stated is None:
        return None
    width, height = (xml_tree.child_number(stated, side, name) for side in ("ncols", "nrows"))
    return (width, height) if min(width, height) > 0 else None
