"""VGG Image Annotator 1 and 2: projects and regions in JSON or CSV; several images, pixels from the top left.

https://www.robots.ox.ac.uk/~vgg/software/via/. A region's label is one of its attributes: texts, and the chosen options
of check boxes; a region with two labels that the manifest knows is refused. The size of an image is not stated. Open
lines are passed over and counted.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import shapely
from pydantic import Field, TypeAdapter, ValidationError
from shapely import affinity

from dpconvert.annotations import marks
from dpconvert.annotations.geometry import Geometry, ellipse, polygon
from dpconvert.annotations.label_names import Said
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, parsed
from dpconvert.annotations.parsing.table import rows_of_program
from dpconvert.errors import ReadError
from dpconvert.validation_errors import first_fault

BUILT_IN = {"caption", "public_domain", "image_url"}  # attributes of files that VIA defines by itself


class ViaOutline(Loose):
    name: str = ""
    x: Coordinate = 0
    y: Coordinate = 0
    width: Coordinate = 0
    height: Coordinate = 0
    cx: Coordinate = 0
    cy: Coordinate = 0
    r: Coordinate = 0
    rx: Coordinate = 0
    ry: Coordinate = 0
    theta: Coordinate = 0
    all_points_x: list[Coordinate] = []
    all_points_y: list[Coordinate] = []

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The corners of a polygon or a line."""
        return list(zip(self.all_points_x, self.all_points_y, strict=False))


class Region(Loose):
    outline: ViaOutline = Field(alias="shape_attributes")
    attributes: dict[str, Any] = Field(default={}, alias="region_attributes")


class ViaImage(Loose):
    filename: str
    attributes: dict[str, Any] = Field(default={}, alias="file_attributes")
    regions: list[Region] | dict[str, Region] = []


class ViaProject(Loose):
    images: dict[str, ViaImage] = Field(alias="_via_img_metadata")


NEEDED = {
    "rect": ("x", "y", "width", "height"),
    "polygon": ("all_points_x", "all_points_y"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "point": ("cx", "cy"),
}
REGION = TypeAdapter(Region)
PROJECT, REGIONS = TypeAdapter(ViaProject), TypeAdapter(dict[str, ViaImage])


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the images of the file.

    Raises:
        ReadError: The content is not such a file.
    """
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _of_table(data, name)
    is_project = b'"_via_img_metadata"' in data
    images = parsed(data, name, PROJECT).images if is_project else parsed(data, name, REGIONS)
    return [_listed(one.filename, _regions(one), name, one.attributes) for one in images.values()]


def _regions(image: ViaImage) -> list[Region]:
    return list(image.regions.values()) if isinstance(image.regions, dict) else image.regions


def _listed(name: str, regions: list[Region], where: str, attributes: dict[str, Any]) -> ListedImage:
    remarks: Counter[str] = Counter()
    drawn = [
        ListedShape(shape, tuple(_labels(region.attributes)), str(number), ranked=False)
        for number, region in enumerate(regions)
        if (shape := _shape(region.outline, remarks, where)) is not None
    ]
    of_image = {key: value for key, value in attributes.items() if key not in BUILT_IN}
    return ListedImage(name, None, drawn, remarks, labels=tuple(filter(None, _labels(of_image))))


def _labels(attributes: dict[str, Any]) -> Iterator[str]:
    for key, value in attributes.items():
        picked = [option for option, chosen in value.items() if chosen] if isinstance(value, dict) else [value]
        yield from (Said(str(label), key) for label in picked)


def _shape(one: ViaOutline, remarks: Counter[str], where: str) -> Geometry | None:
    if lacking := [key for key in NEEDED.get(one.name, ()) if key not in one.model_fields_set]:
        raise ReadError(f"a {one.name} without {lacking[0]}", where=where)
    match one.name:
        case "rect":
            right, bottom = one.x + one.width, one.y + one.height
            return polygon([(one.x, one.y), (right, one.y), (right, bottom), (one.x, bottom)], remarks)
        case "polygon":
            if len(one.all_points_x) != len(one.all_points_y):
                raise ReadError("all_points_x and all_points_y differ in length", where=where)
            return polygon(one.corners, remarks)
        case "polyline" if one.corners:
            return marks.enclosed(one.corners, remarks)
        case "circle":
            return ellipse((one.cx - one.r, one.cy - one.r, one.cx + one.r, one.cy + one.r), remarks)
        case "ellipse":
            round_one = ellipse((one.cx - one.rx, one.cy - one.ry, one.cx + one.rx, one.cy + one.ry), remarks)
            return round_one and affinity.rotate(round_one, one.theta, origin=(one.cx, one.cy), use_radians=True)
        case "point":
            return shapely.Point(one.cx, one.cy)
    marks.pass_over(one.name, remarks)
    return None


def _of_table(data: bytes, name: str) -> list[ListedImage]:
    images: dict[str, list[Region]] = defaultdict(list)
    of_files: dict[str, dict[str, Any]] = {}
    try:
        for where, row in rows_of_program(data, name):
            regions, stated = images[row["filename"]], _object(row.get("file_attributes"), name)
            if of_files.setdefault(row["filename"], stated) != stated:
                raise ReadError("two rows about one image, with different file_attributes", where=where)
            outline = json.loads(row["region_shape_attributes"] or "{}")
            if outline:
                attributes = json.loads(row.get("region_attributes") or "{}")
                regions.append(REGION.validate_python({"shape_attributes": outline, "region_attributes": attributes}))
    except ValidationError as error:
        raise ReadError(str(first_fault(error)), where=name) from None
    except (KeyError, ValueError, RecursionError) as error:
        raise ReadError(f"not a table of VIA: {error}", where=name) from None
    return [_listed(image, regions, name, of_files[image]) for image, regions in images.items()]


def _object(text: str | None, name: str) -> dict[str, Any]:
    found = json.loads(text or "{}")
    if not isinstance(found, dict):
        raise ReadError("not a table of VIA: file_attributes that are not an object", where=name, found=text)
    return found
