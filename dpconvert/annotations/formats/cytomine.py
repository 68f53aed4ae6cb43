"""Annotations, terms and images of Cytomine projects as its clients and its server list them: JSON or CSV, WKT, y up.

Cytomine's y axis points up from the bottom of the image: y_down = height - y_up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
import shapely
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from dpconvert.annotations.frame import OUTSIDE
from dpconvert.annotations.geometry import Annotation, Annotations, Geometry, repair
from dpconvert.annotations.parsing.json_text import Loose, parsed
from dpconvert.annotations.parsing.lines import LONGEST
from dpconvert.annotations.parsing.table import Table
from dpconvert.annotations.parsing.xml_tree import FARTHEST
from dpconvert.errors import ReadError
from dpconvert.validation_errors import first_fault

MOST_NESTED = 100  # GEOS reads collections inside collections by recursion
REPORT = "Area (micron"  # a column of the server's CSV report, which has neither ids of terms nor outlines
NO_AREA = "without an area"
DROPPED = OUTSIDE, NO_AREA
M = TypeVar("M", bound=Loose)


def _numbers(value: Any) -> Any:
    """Ids in a CSV cell, '4762', '4762,4763' or '[4762, 4763]'; a single id; or nothing."""
    if isinstance(value, str):
        return [number.strip() for number in value.strip("[] ").replace(";", ",").split(",") if number.strip()]
    return [] if value is None else [value] if isinstance(value, int) else value


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


Ids = Annotated[tuple[int, ...], BeforeValidator(_numbers)]
Maybe = Annotated[int | None, BeforeValidator(_none_if_empty)]
MaybeText = Annotated[str | None, BeforeValidator(_none_if_empty)]
MaybeFloat = Annotated[float | None, BeforeValidator(_none_if_empty)]


class ListEntry(Loose):
    """An entry of a list; fields have Cytomine's names but for capitals."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class CytomineAnnotation(ListEntry):
    """One annotation: its image's id, its terms' ids in order, its outline in WKT ('' where it was not requested).

    parent: of a reviewed copy, the annotation that it replaces.
    """

    id: int
    image: int
    term: Ids = ()
    location: str | None = ""
    parent: Maybe = Field(default=None, alias="parentIdent")
    crop_url: MaybeText = Field(default=None, alias="cropURL")


class CytomineImage(ListEntry):
    """One image of a project. base_image is the same for all projects that show the slide, id is not."""

    id: int
    base_image: Maybe = None
    original_filename: MaybeText = None
    instance_filename: MaybeText = None
    filename: MaybeText = None
    width: Maybe = None
    height: Maybe = None
    physical_size_x: MaybeFloat = None
    resolution: MaybeFloat = None

    @property
    def key(self) -> str:
        """The most stable known identifier of the slide."""
        return str(self.base_image or self.original_filename or self.id)


class Term(ListEntry):
    """One term of an ontology."""

    id: int
    name: MaybeText = None


class _Page(Loose, Generic[M]):
    collection: list[M]


@dataclass(frozen=True)
class Labelled:
    """An annotation with the class that its terms stand for."""

    item: CytomineAnnotation
    label: str


def listing(data: bytes, name: str, kind: type[M]) -> list[M]:
    """The objects of a list: JSON, bare or in the server's {"collection": [...]}, or a CSV table with a head.

    Raises:
        ReadError: The content is neither, or an object lacks its id or image.
    """
    if name.lower().endswith((".csv", ".tsv")):
        return _from_rows(rows(data, name), name, kind)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return parsed(data, name, TypeAdapter(_Page[kind])).collection  # type: ignore[valid-type]
    return parsed(data, name, TypeAdapter(list[kind]))  # type: ignore[valid-type]


def rows(data: bytes, name: str) -> Table:
    """The table of a list.

    Raises:
        ReadError: The content is not a table, or it is the server's report.
    """
    table = Table(data, name)
    if any(REPORT in column for column in table.columns):
        raise ReadError(
            "the server's report of annotations, which holds no outlines",
            where=name,
            remedy="export the list as JSON with showWKT, showTerm and showMeta",
        )
    return table


def _from_rows(table: Table, name: str, kind: type[M]) -> list[M]:
    found = []
    for row in table:
        try:
            found.append(kind.model_validate({column: text for column, text in row.cells.items() if column}))
        except ValidationError as error:
            fault = first_fault(error)
            raise ReadError(f"line {row.line}: {fault}", where=name, found=str(row.cells)[:60]) from None
    return found


def current(found: Iterable[CytomineAnnotation]) -> tuple[list[CytomineAnnotation], Counter[str]]:
    """Each annotation once, in order of id, of a reviewed one only the reviewed copy; and what was left out."""
    listed = list(found)
    unique = {item.id: item for item in listed}
    replaced = {item.parent for item in listed if item.parent != item.id}
    kept = [unique[number] for number in sorted(unique) if number not in replaced]
    dropped = Counter(
        {"listed twice": len(listed) - len(unique), "replaced by a reviewed copy": len(unique) - len(kept)}
    )
    return kept, +dropped


def shapes(found: Iterable[Labelled], size: tuple[int, int], name: str, *, areas: bool) -> Annotations:
    """Annotations of one image of `size` (width, height), flipped to y down and clipped to the image.

    What lies outside is dropped and counted; with `areas`, points and lines are too.

    Raises:
        ReadError: An annotation has no WKT, or its WKT cannot be read.
    """
    frame = shapely.box(0, 0, *size)
    remarks: Counter[str] = Counter()
    result = []
    for labelled in found:
        shape = _flipped(labelled.item, size[1], name)
        whole = None if areas and shapely.get_dimensions(shape) < 2 else repair(shape, remarks)
        if whole is None:
            remarks[NO_AREA] += 1
            continue
        clipped = shapely.intersection(whole, frame)
        if clipped.is_empty or (areas and not clipped.area):
            remarks[OUTSIDE] += 1
        else:
            result.append(Annotation(clipped, labelled.label, str(labelled.item.id)))
    return Annotations(result, remarks)


def _flipped(item: CytomineAnnotation, height: int, name: str) -> Geometry:
    if not item.location:
        raise ReadError(
            f"annotation {item.id} has no geometry", where=name, remedy="export with showWKT=true and showTerm=true"
        )
    if len(item.location) > LONGEST:
        raise ReadError(f"annotation {item.id}: {len(item.location)} characters of WKT", where=name)
    if len(re.findall(r"(?i)geometrycollection", item.location)) > MOST_NESTED:
        raise ReadError(f"annotation {item.id}: nested collections", where=name)
    try:
        up = shapely.from_wkt(re.sub(r"^\s*SRID=\d+;", "", item.location))
    except (shapely.errors.GEOSException, ValueError, TypeError) as error:
        raise ReadError(f"annotation {item.id}: not WKT: {error}", where=name) from None
    if not (np.abs(shapely.get_coordinates(up)) < FARTHEST).all():
        raise ReadError(f"annotation {item.id}: no coordinates of an image", where=name)
    return shapely.transform(up, lambda xy: xy * [1, -1] + [0, height])
