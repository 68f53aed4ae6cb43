"""NuCLS tables: the nuclei of one field of view, boxes and outlines, pixels from the top left.

https://sites.google.com/view/nucls, https://github.com/PathologyDataScience/NuCLS. A nucleus that was clicked has a box
alone (`type` rectangle), one that was outlined the corners `coords_x` and `coords_y` too. Its label is the raw, the
main or the super class, whichever the manifest knows.
"""

from __future__ import annotations

from collections import Counter

from dpconvert.annotations.geometry import Geometry, polygon
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing import xml_tree
from dpconvert.annotations.parsing.table import rows_of_program
from dpconvert.errors import ReadError

LABELS = ("raw_classification", "main_classification", "super_classification")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the only field of view of the file.

    Raises:
        ReadError: The content is not such a table.
    """
    remarks: Counter[str] = Counter()
    drawn = []
    for number, (where, row) in enumerate(rows_of_program(data, name)):
        shape = _shape(row, remarks, where)
        if shape is not None:
            drawn.append(ListedShape(shape, tuple(row.get(label, "") for label in LABELS), str(number)))
    return [ListedImage(drawn=drawn, remarks=remarks)]


def _shape(row: dict[str, str], remarks: Counter[str], where: str) -> Geometry | None:
    xs, ys = (row.get(key, "") for key in ("coords_x", "coords_y"))
    if xs and ys:
        corners = [_numbers(text, where) for text in (xs, ys)]
        if len(corners[0]) != len(corners[1]):
            raise ReadError("coords_x and coords_y differ in length", where=where)
        return polygon(list(zip(*corners, strict=True)), remarks)
    left, top, right, bottom = (xml_tree.parsed(row.get(side), side, where) for side in SIDES)
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], remarks)


def _numbers(text: str, where: str) -> list[float]:
    return [xml_tree.parsed(part, "coords", where) for part in text.split(",") if part.strip()]
