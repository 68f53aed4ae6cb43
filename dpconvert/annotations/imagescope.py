"""Aperio ImageScope XML: level-0 pixels, y down; an <Annotation> is a layer, its <Region>s are the outlines.

Regions with NegativeROA="1" are cut out of their layer. A layer's label is its Name, else an attribute's value or name,
else its LineColor as '#rrggbb' (the file holds it as a BGR integer: 255 is red); a region's own Text comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import shapely

from dpconvert.annotations.geometry import Annotation, Annotations, Geometry, ellipse, polygon
from dpconvert.annotations.labels import resolved
from dpconvert.annotations.parsing import xml_tree
from dpconvert.errors import ReadError

POLYGON, RECTANGLE, ELLIPSE, ARROW, RULER = "01234"
MARKS = {ARROW: "arrow passed over", RULER: "ruler passed over"}


def read(data: bytes, name: str, known: Collection[str] = ()) -> Annotations:
    """Annotations labelled by their layer, each region one.

    Raises:
        ReadError: not ImageScope XML, or a layer that `known` does not have.
    """
    document = xml_tree.root(data, name, "Annotations")
    mended: Counter[str] = Counter()
    items = []
    for number, layer in enumerate(document.iter("Annotation")):
        items += [
            Annotation(shape, label, f"{layer.get('Id', number)}-{region}")
            for shape, label, region in _layer(layer, known, mended, name)
        ]
    return Annotations(items, mended)


def _layer(layer: Any, known: Collection[str], mended: Counter[str], name: str) -> Iterator[tuple[Geometry, str, str]]:
    """(shape, label, region's id) of the positive regions, less the negative ones."""
    drawn, holes = [], []
    for number, region in enumerate(layer.iter("Region")):
        shape = _shape(region, mended, name)
        if shape is None:
            continue
        if region.get("NegativeROA", "0").strip() in ("1", "true", "True"):
            holes.append(shape)
        else:
            label = resolved([region.get("Text", ""), *_names(layer)], known, name)
            drawn.append((shape, label, region.get("Id", str(number))))
    cut = shapely.union_all(holes)
    for shape, label, number in drawn:
        left = shapely.difference(shape, cut) if holes else shape
        if left.area > 0:
            yield left, label, number
        else:
            mended["region wholly cut out"] += 1


def _names(layer: Any) -> Iterator[str]:
    yield layer.get("Name", "")
    for attribute in layer.iterfind("Attributes/Attribute"):
        yield attribute.get("Value", "")
        yield attribute.get("Name", "") if attribute.get("Name") != "Description" else ""
    yield _colour(layer.get("LineColor", ""))


def _colour(text: str) -> str:
    """'#rrggbb' of a BGR integer; '' where there is none."""
    if not text.strip().isdecimal() or len(text) > 10:
        return ""
    value = int(text)
    return f"#{value & 255:02x}{value >> 8 & 255:02x}{value >> 16 & 255:02x}"


def _shape(region: Any, mended: Counter[str], name: str) -> Geometry | None:
    kind = region.get("Type", POLYGON).strip()
    if kind in MARKS:
        mended[MARKS[kind]] += 1
        return None
    if kind not in (POLYGON, RECTANGLE, ELLIPSE):
        raise ReadError(f"unknown region type {kind!r}", where=name, expected="0 to 4")
    points = [(xml_tree.number(v, "X", name), xml_tree.number(v, "Y", name)) for v in region.iter("Vertex")]
    if kind == POLYGON or (kind == RECTANGLE and len(points) > 2):
        return polygon(points, mended)
    if len(points) < 2:
        mended["degenerate ring dropped"] += 1
        return None
    left, top, right, bottom = shapely.MultiPoint(points).bounds
    if kind == ELLIPSE:
        return ellipse((left, top, right, bottom), mended)
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], mended)
