"""QuPath GeoJSON of all vintages: pixels of the full-resolution image, y down.

https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html

FeatureCollections, features and bare geometries: one, a list of any of them, or one a line. A feature's label is its
classification; of a derived class ("Tumor: Positive") the parts before each colon are tried too, then its colour as
'#rrggbb'. A classification may also be an object as text, as tables of features keep it. A feature without a
classification has its name, but a core of a tissue microarray (A-1) is passed over and counted, and so is one that is
marked as missing. QuPath counts from the corner of the slide's bounds where OpenSlide states bounds: `origin`.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

import numpy as np
import shapely
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter

from dpconvert import names
from dpconvert.annotations import marks
from dpconvert.annotations.geometry import Annotation, Annotations, Geometry, ellipse, polygon, repair
from dpconvert.annotations.label_names import resolved
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, each
from dpconvert.annotations.parsing.units import Unit, check_stated, of_members
from dpconvert.errors import ReadError
from dpconvert.plural import counted

CORE = "core of a tissue microarray without a class, passed over"
MISSING = "core of a tissue microarray that is marked as missing, passed over"
LONGEST = 10_000  # characters of a classification that is an object as text
Position = Annotated[list[Coordinate], Field(min_length=2)]
Ring = list[Position]


class Plane(Loose):
    z: int = 0
    t: int = 0


class Placed(Loose):
    """A geometry, and the plane of a stack that it was drawn on."""

    plane: Plane | None = None


class Point(Placed):
    type: Literal["Point"]
    coordinates: Position


class Points(Placed):
    type: Literal["MultiPoint"]
    coordinates: list[Position]


class Line(Placed):
    type: Literal["LineString"]
    coordinates: list[Position]


class Lines(Placed):
    type: Literal["MultiLineString"]
    coordinates: list[list[Position]]


class Polygon(Placed):
    type: Literal["Polygon"]
    coordinates: list[Ring]
    is_ellipse: bool = Field(default=False, alias="isEllipse")


class Polygons(Placed):
    type: Literal["MultiPolygon"]
    coordinates: list[list[Ring]]


class GeometryCollection(Placed):
    type: Literal["GeometryCollection"]
    geometries: list[Shape]


Shape = Annotated[Point | Points | Line | Lines | Polygon | Polygons | GeometryCollection, Field(discriminator="type")]


class Classification(Loose):
    """`name`, or `names` of a derived class; the colour as three numbers, or a signed ARGB integer in old files."""

    name: str | None = None
    names: list[str] = []
    color: list[int] | None = None
    argb: int | None = Field(default=None, alias="colorRGB")

    def candidates(self) -> Iterator[str]:
        """Names from the whole to its first part, then the colour."""
        whole = self.name or ": ".join(self.names)
        parts = whole.split(": ")
        yield from (": ".join(parts[:count]) for count in range(len(parts), 0, -1))
        if self.color and len(self.color) >= 3:
            yield "#" + "".join(f"{channel & 255:02x}" for channel in self.color[:3])
        elif self.argb is not None:
            yield f"#{self.argb & 0xFFFFFF:06x}"


def _as_object(text: Any) -> Any:
    """A classification as an object: tables of features (geopandas, GDAL) keep it as text, or as a list of names."""
    if isinstance(text, list) and all(isinstance(name, str) for name in text):
        return {"names": text}
    if not isinstance(text, str) or not text.lstrip().startswith("{") or len(text) > LONGEST:
        return text
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(text)
    return text


class Properties(Loose):
    model_config = ConfigDict(extra="allow", frozen=True)  # a unit of the coordinates counts

    classification: Annotated[Classification | str | None, BeforeValidator(_as_object)] = None
    name: str | None = None
    object_type: str | None = Field(default=None, alias="objectType")
    is_ellipse: bool = Field(default=False, alias="isEllipse")
    is_missing: Any = Field(default=False, alias="isMissing")


class Feature(Loose):
    type: Literal["Feature"]
    id: str | int | None = None
    geometry: Shape | None = None
    nucleus: Shape | None = Field(default=None, alias="nucleusGeometry")
    properties: Properties | None = None


def _as_feature(element: Any) -> Any:
    """Wrap a bare geometry in a feature without properties."""
    if isinstance(element, dict) and element.get("type") in GEOMETRIES:
        return {"type": "Feature", "geometry": element}
    return element


GEOMETRIES = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection")
FEATURE = TypeAdapter(Annotated[Feature, BeforeValidator(_as_feature)])


def read(
    data: bytes,
    name: str,
    known: Collection[str] = (),
    origin: tuple[float, float] = (0, 0),
    unit: Unit = "",
    per_unit: tuple[float, float] = (1, 1),
) -> Annotations:
    """Annotations labelled by their classification; lines and arrows are passed over and counted, closed ones read.

    origin: level-0 pixels of the corner that the file counts from. unit: that of coordinates, "" for pixels. per_unit:
    level-0 pixels of a unit along x and y.

    Raises:
        ReadError: not such a file, in another unit, a label that `known` does not have, or nothing but cores without a
            class.
    """
    remarks: Counter[str] = Counter()
    items = []
    for number, feature in enumerate(each(data, name, FEATURE, "features", unit)):
        if feature.properties is not None and feature.properties.model_extra:
            check_stated(of_members(feature.properties.model_extra), name, unit)
        if passed_over := _passed_over(feature, known):
            remarks[passed_over] += 1
            continue
        shapes = [shape for shape in _shapes(feature, remarks) if shape is not None]
        if shapes:
            label = resolved(_names(feature), known, name)
            items += [Annotation(_moved(shape, origin, per_unit), label, str(feature.id or number)) for shape in shapes]
    if remarks[CORE] and not items:
        raise ReadError(
            "contains only the grid of a tissue microarray: cores without a class",
            where=name,
            found=counted(remarks[CORE], "core"),
            remedy="give the cores a class in QuPath; or export it without them, if nothing is annotated",
        )
    return marks.check(Annotations(items, remarks), name)


def _passed_over(feature: Feature, known: Collection[str]) -> str:
    """Why a feature is passed over: a core of a tissue microarray that is missing, or has a name (A-1) and no class."""
    properties = feature.properties or Properties()
    if properties.object_type != "tma_core":
        return ""
    if properties.is_missing is True:
        return MISSING
    bare = properties.classification is None and names.match(properties.name or "", known) is None
    return CORE if bare else ""


def _names(feature: Feature) -> Iterator[str]:
    properties = feature.properties or Properties()
    if isinstance(properties.classification, str):
        yield from Classification(name=properties.classification).candidates()
    elif properties.classification is not None:
        yield from properties.classification.candidates()
    else:
        yield properties.name or ""


def _shapes(feature: Feature, remarks: Counter[str]) -> Iterator[Geometry | None]:
    """What a feature outlines: of a cell its border, else its nucleus; each of several points alone."""
    shape = feature.geometry or feature.nucleus
    if shape is None:
        remarks["feature without a geometry"] += 1
        return
    if shape.plane is not None and (shape.plane.z > 0 or shape.plane.t > 0):
        remarks["annotation of a later plane (depth or time), read as one of the first"] += 1
    round_too = feature.properties is not None and feature.properties.is_ellipse
    for part in _parts(shape):
        if isinstance(part, Line):
            yield marks.enclosed(_flat(part.coordinates), remarks)
        elif isinstance(part, Lines):
            yield _union([marks.enclosed(_flat(line), remarks) for line in part.coordinates], remarks)
        elif isinstance(part, Point):
            yield shapely.Point(part.coordinates[:2])
        elif isinstance(part, Points):
            yield from (shapely.Point(position[:2]) for position in part.coordinates)
        elif isinstance(part, Polygon):
            yield _polygon(part.coordinates, part.is_ellipse or round_too, remarks)
        elif isinstance(part, Polygons):
            yield _union([_polygon(rings, False, remarks) for rings in part.coordinates], remarks)


def _flat(ring: Ring) -> list[tuple[float, float]]:
    """Return the positions without their third coordinate."""
    return [(p[0], p[1]) for p in ring]


def _parts(shape: Shape) -> Iterator[Point | Points | Line | Lines | Polygon | Polygons]:
    if isinstance(shape, GeometryCollection):
        for inner in shape.geometries:
            yield from _parts(inner)
    else:
        yield shape


def _polygon(rings: list[Ring], is_ellipse: bool, remarks: Counter[str]) -> Geometry | None:
    outer, *inner = [_flat(ring) for ring in rings] or [[]]
    if is_ellipse and len(outer) > 1:
        return ellipse(shapely.MultiPoint(outer).bounds, remarks)
    shape = polygon(outer, remarks)
    holes = [hole for ring in inner if (hole := polygon(ring, remarks)) is not None]
    if shape is None or not holes:
        return shape
    left = shapely.difference(shape, shapely.union_all(holes))
    return left if left.area > 0 else None


def _union(shapes: list[Geometry | None], remarks: Counter[str]) -> Geometry | None:
    found = [shape for shape in shapes if shape is not None]
    return repair(shapely.union_all(found), remarks) if found else None


def _moved(shape: Geometry, origin: tuple[float, float], per_unit: tuple[float, float]) -> Geometry:
    if not any(origin) and set(per_unit) == {1}:
        return shape
    factors, corner = np.array(per_unit), np.array(origin)
    return shapely.transform(shape, lambda xy: xy * factors + corner)
