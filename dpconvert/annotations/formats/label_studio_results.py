"""The results of Label Studio: shapes in per cent of the sides of an image, their labels, and choices for the image."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import unquote

import shapely
from pydantic import Field, TypeAdapter, ValidationError
from shapely import affinity

from dpconvert.annotations import marks
from dpconvert.annotations.formats.label_studio_brush import brush_outline
from dpconvert.annotations.geometry import Geometry, ellipse, polygon
from dpconvert.annotations.label_names import Said
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing.json_text import Coordinate, Loose
from dpconvert.errors import ReadError
from dpconvert.validation_errors import first_fault

Byte = Annotated[int, Field(ge=0, le=255)]


Side = Annotated[int, Field(gt=0, lt=1_000_000)]


Position = Annotated[list[Coordinate], Field(min_length=2)]


KINDS = ("rectangle", "ellipse", "polygon", "keypoint", "brush")


PARTS = {
    "ellipse": ("x", "y", "radiusX", "radiusY"),
    "polygon": ("points",),
    "brush": ("rle",),
    "rectangle": ("x", "y", "width", "height"),
    "keypoint": ("x", "y"),
}


UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what the server puts before the name of an uploaded file


class Value(Loose):
    x: Coordinate = 0
    y: Coordinate = 0
    width: Coordinate = 0
    height: Coordinate = 0
    across: Coordinate = Field(default=0, alias="radiusX")
    down: Coordinate = Field(default=0, alias="radiusY")
    rotation: Coordinate = 0
    points: list[Position] = []
    rle: list[Byte] = []


class LabelStudioResult(Loose):
    id: str = ""
    type: str = ""
    control: str = Field(default="", alias="from_name")
    width: Side | None = Field(default=None, alias="original_width")
    height: Side | None = Field(default=None, alias="original_height")
    item: int | None = Field(default=None, alias="item_index")
    turned: float | None = Field(default=None, alias="image_rotation")
    value: dict[str, Any] = {}


RESULT, VALUE = TypeAdapter(LabelStudioResult), TypeAdapter(Value)


def image_of(addresses: list[str], results: list[LabelStudioResult], name: str) -> ListedImage:
    remarks: Counter[str] = Counter()
    labels: dict[str, list[str]] = defaultdict(list)
    for result in results:
        labels[result.id] += _labels(result.value)
    drawn, stated = [], None
    for number, result in enumerate(results):
        kind = result.type.removesuffix("labels")
        if kind not in KINDS:
            if kind:  # "labels" alone name a shape of the same id
                marks.pass_over(kind, remarks)
            continue
        if result.item:
            raise ReadError("a task of several images", where=name, remedy="make a task of each image")
        if result.turned:
            raise ReadError(
                f"a shape on an image that was turned by {result.turned:g} degrees",
                where=name,
                remedy="rotate the image itself, and annotate the rotated image",
            )
        if result.width is None or result.height is None:
            raise ReadError(
                "a shape without the size of its image", where=name, expected="original_width, original_height"
            )
        stated = float(result.width), float(result.height)
        shape = _shape(kind, result, stated, remarks, name)
        if shape is not None:
            own = _labels(result.value) or (labels[result.id] if result.id else []) or [""]
            drawn.append(ListedShape(shape, tuple(own), result.id or str(number), ranked=False))
    names = [file_of(address) for address in addresses if address]
    shapes = {result.id for result in results if result.type.removesuffix("labels") in KINDS}
    choices = [result for result in results if result.type == "choices" and result.id not in shapes]
    chosen = [(result.value.get("choices"), result.control) for result in choices]
    of_image = tuple(Said(str(label), control) for some, control in chosen if isinstance(some, list) for label in some)
    return ListedImage(names[0] if names else "", stated, drawn, remarks, tuple(aliases(names)), of_image)


def _labels(value: dict[str, Any]) -> list[str]:
    found = [one for key, one in value.items() if key.endswith("labels") and isinstance(one, list)]
    return [str(label) for listed in found for label in listed]


def file_of(address: str) -> str:
    """The file of an address: of a local one what follows `?d=`."""
    return unquote(address.rpartition("?d=")[2].partition("?")[0])


def aliases(names: list[str]) -> Iterator[str]:
    yield from names[1:]
    for name in names:
        folder, slash, last = name.rpartition("/")
        if UPLOADED.match(last):
            yield f"{folder}{slash}{UPLOADED.sub('', last)}"


def _shape(
    kind: str, result: LabelStudioResult, size: tuple[float, float], remarks: Counter[str], name: str
) -> Geometry | None:
    if lacking := [key for key in PARTS[kind] if key not in result.value]:
        raise ReadError(f"a {kind} without {lacking[0]}", where=name)
    try:
        value = VALUE.validate_python(result.value)
    except ValidationError as error:
        raise ReadError(str(first_fault(error)), where=name) from None
    if kind == "brush":
        return brush_outline(value.rle, (int(size[0]), int(size[1])), name)
    wide, high = size[0] / 100, size[1] / 100
    x, y = value.x * wide, value.y * high
    if kind == "polygon":
        return polygon([(p[0] * wide, p[1] * high) for p in value.points], remarks)
    if kind == "keypoint":
        return shapely.Point(x, y)
    if kind == "ellipse":
        across, down = value.across * wide, value.down * high
        found = ellipse((x - across, y - down, x + across, y + down), remarks)
    else:
        right, bottom = x + value.width * wide, y + value.height * high
        found = polygon([(x, y), (right, y), (right, bottom), (x, bottom)], remarks)
    return found and affinity.rotate(found, value.rotation, origin=(x, y))
