"""ASAP XML (Camelyon16/17): level-0 pixels, y down, rings not closed, classes as groups that may be nested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import shapely

from dpconvert import names
from dpconvert.annotations import marks
from dpconvert.annotations.geometry import Annotation, Annotations, polygon
from dpconvert.annotations.parsing import xml_tree
from dpconvert.errors import ReadError

AREAS = {"Polygon", "Spline", "Rectangle"}
POINTS = {"Dot", "PointSet"}
NO_GROUP = "None"  # the group of what has none


def read(data: bytes, name: str, known: Collection[str] = ()) -> Annotations:
    """Annotations labelled by their group; rulers and the like are passed over and counted.

    With `known`, an annotation's label is the nearest of its group and the groups above it that is among these.

    Raises:
        ReadError: The content is not ASAP XML, or an annotation belongs to no known group.
    """
    document = xml_tree.root(data, name, "ASAP_Annotations")
    parents = {_bare(group, "Name", ""): _bare(group, "PartOfGroup", NO_GROUP) for group in document.iter("Group")}
    remarks: Counter[str] = Counter()
    items = []
    for number, element in enumerate(document.iter("Annotation")):
        if shapes := _shapes(element, remarks, name):
            label = _label(_bare(element, "PartOfGroup", NO_GROUP), parents, known, name)
            items += [Annotation(shape, label, str(number)) for shape in shapes]
    return marks.check(Annotations(items, remarks), name)


def _bare(element: Any, attribute: str, absent: str) -> str:
    return names.bare(element.get(attribute, absent))


def _label(group: str, parents: dict[str, str], known: Collection[str], name: str) -> str:
    if not known:
        return group
    seen: list[str] = []
    at: str | None = group
    while at is not None and at not in seen:
        if (spelt := at if at in known else names.match(at, known)) is not None:
            return spelt
        seen.append(at)
        at = parents.get(at)
    if group == NO_GROUP and "" in known:
        return ""
    raise ReadError(
        f"unknown annotation group {group!r}",
        where=name,
        expected=f"one of {', '.join(sorted(known))}",
        remedy="say in the manifest's rule what this group is",
    )


def _shapes(element: Any, remarks: Counter[str], name: str) -> list[Any]:
    """Return the areas or points of an annotation; a ruler, for example, has none."""
    kind = element.get("Type", "")
    if kind not in AREAS | POINTS:
        marks.pass_over(kind, remarks)
        return []
    points = _coordinates(element, name)
    if kind in POINTS:
        return [shapely.Point(point) for point in points]
    shape = polygon(points, remarks)
    return [] if shape is None else [shape]


def _coordinates(element: Any, name: str) -> list[tuple[float, float]]:
    ordered = sorted(element.iter("Coordinate"), key=lambda c: xml_tree.number(c, "Order", name))
    return [(xml_tree.number(c, "X", name), xml_tree.number(c, "Y", name)) for c in ordered]
