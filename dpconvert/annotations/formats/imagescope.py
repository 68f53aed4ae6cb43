"""Aperio ImageScope XML and HALO .annotations: level-0 pixels, y down; an <Annotation> is a layer of <Region>s.

ImageScope numbers the types of regions, HALO names them (and writes <V> where ImageScope writes <Vertex>). Other
programs that write its XML number all regions 0 and name their types in an attribute GeoShape, which then counts. A
mark of the counter (5) has one vertex, and is a point. Regions with NegativeROA="1" are cut out of their layer. A
region's label is its own Text, else a value or name of its own attributes (as in BACH), else its layer's Name,
attributes, or LineColor as '#rrggbb' (a BGR integer in the file: 255 is red).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import shapely

from dpconvert.annotations import marks
from dpconvert.annotations.geometry import Annotation, Annotations, Geometry, ellipse, polygon
from dpconvert.annotations.label_names import resolved
from dpconvert.annotations.parsing import xml_tree

NUMBERED = {"0": "polygon", "1": "rectangle", "2": "ellipse", "3": "arrow", "4": "ruler", "5": "counter"}
AREAS = {"polygon", "rectangle", "ellipse"}
POINTS = {"pin", "point", "points", "counter"}
NOT_CLASSES = {"", "Description"}  # names of attributes that name no class


def read(data: bytes, name: str, known: Collection[str] = ()) -> Annotations:
    """Annotations labelled by region or layer, each region one.

    Raises:
        ReadError: The content is not such XML, or `known` lacks a label.
    """
    document = xml_tree.root(data, name, "Annotations", of="Annotation")
    remarks: Counter[str] = Counter()
    items = []
    for number, layer in enumerate(document.iterfind("Annotation")):
        items += [
            Annotation(shape, label, f"{layer.get('Id', number)}-{region}")
            for shape, label, region in _layer(layer, known, remarks, name)
        ]
    return marks.check(Annotations(items, remarks), name)


def _layer(layer: Any, known: Collection[str], remarks: Counter[str], name: str) -> Iterator[tuple[Geometry, str, str]]:
    """(shape, label, region's id) of the positive regions, less the negative ones."""
    drawn, holes = [], []
    for number, region in enumerate(layer.iter("Region")):
        shapes = _shapes(region, remarks, name)
        if not shapes:
            continue
        if region.get("NegativeROA", "0").strip() in ("1", "true", "True"):
            holes += shapes
        else:
            label = resolved(_names(region, layer, known), known, name)
            drawn += [(shape, label, region.get("Id", str(number))) for shape in shapes]
    cut = shapely.union_all(holes)
    if alone := _touching_nothing(holes, [shape for shape, _, _ in drawn]):
        remarks["region to cut out that lies on no other of its layer"] += alone
    for shape, label, number in drawn:
        left = shapely.difference(shape, cut) if holes else shape
        if left.area > 0 or not (shape.area or left.is_empty):
            yield left, label, number
        else:
            remarks["region wholly cut out"] += 1


def _touching_nothing(holes: list[Geometry], drawn: list[Geometry]) -> int:
    area = shapely.union_all(drawn)
    shapely.prepare(area)
    return sum(not shapely.intersects(area, hole) for hole in holes)


def _names(region: Any, layer: Any, known: Collection[str]) -> Iterator[str]:
    """What may be the label, most specific first; a colour is none where `known` has a label for regions without one,
    and none for a colour.
    """
    yield region.get("Text", "")
    yield from _attributes(region)
    yield layer.get("Name", "")
    yield from _attributes(layer)
    if "" not in known or any(label.startswith("#") for label in known):
        yield _colour(layer.get("LineColor", ""))


def _attributes(element: Any) -> Iterator[str]:
    for attribute in element.iterfind("Attributes/Attribute"):
        yield attribute.get("Value", "")
        if (label := attribute.get("Name", "")) not in NOT_CLASSES:
            yield label


def _colour(text: str) -> str:
    """Return a BGR integer as '#rrggbb', or '' if no colour is given."""
    if not text.strip().isdecimal() or len(text) > 10:
        return ""
    value = int(text)
    return f"#{value & 255:02x}{value >> 8 & 255:02x}{value >> 16 & 255:02x}"


def _shapes(region: Any, remarks: Counter[str], name: str) -> list[Geometry]:
    """Return the outline of a region, or its points; nothing for what outlines nothing."""
    number = (region.get("GeoShape") or region.get("Type", "0")).strip()
    kind = NUMBERED.get(number, number.lower())
    points = [
        (xml_tree.number(vertex, "X", name), xml_tree.number(vertex, "Y", name))
        for tag in ("Vertex", "V")
        for vertex in region.iter(tag)
    ]
    if kind not in AREAS | POINTS or (kind == "counter" and len(points) > 1):
        marks.pass_over(kind, remarks)
        return []
    if kind in POINTS:
        return [shapely.Point(point) for point in (points[:1] if kind == "pin" else points)]
    shape = _area(kind, points, remarks)
    return [] if shape is None else [shape]


def _area(kind: str, points: list[tuple[float, float]], remarks: Counter[str]) -> Geometry | None:
    if kind == "polygon" or (kind == "rectangle" and len(points) > 2):
        return polygon(points, remarks)
    if len(points) < 2:
        remarks["degenerate ring dropped"] += 1
        return None
    left, top, right, bottom = shapely.MultiPoint(points).bounds
    if kind == "ellipse":
        return ellipse((left, top, right, bottom), remarks)
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], remarks)
