"""Projects of VGG Image Annotator 3, in JSON: several images, pixels from the top left.

https://gitlab.com/vgg/via/-/blob/master/via-3.x.y/CodeDoc.md. A region is `xy`: the number of a shape, then its
coordinates; it belongs to a view, and a view shows one file. A region's label is one of its attributes: texts, and the
chosen options of menus and check boxes. The size of an image is not stated. Lines, shapes drawn by extreme points, and
what is drawn in videos are passed over and counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import shapely
from pydantic import Field, TypeAdapter

from dpconvert.annotations import marks
from dpconvert.annotations.geometry import Geometry, ellipse, polygon
from dpconvert.annotations.label_names import Said
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, parsed
from dpconvert.errors import ReadError

IMAGE = 2  # type of a file
SHAPES: dict[float, str] = {
    1: "point",
    2: "rectangle",
    3: "circle",
    4: "ellipse",
    5: "line",
    6: "polyline",
    7: "polygon",
    8: "rectangle by extreme points",
    9: "circle by extreme points",
}
NUMBERS = {"point": 2, "rectangle": 4, "circle": 3, "ellipse": 4}  # of coordinates


class Attribute(Loose):
    name: str = Field(default="", alias="aname")
    options: dict[str, str] = {}


class Via3File(Loose):
    name: str = Field(alias="fname")
    kind: int = Field(default=IMAGE, alias="type")


class View(Loose):
    files: list[str | int] = Field(alias="fid_list")


class Via3Metadata(Loose):
    view: str | int = Field(alias="vid")
    xy: list[Coordinate] = []
    values: dict[str, Any] = Field(default={}, alias="av")


class Via3Project(Loose):
    attribute: dict[str, Attribute] = {}
    file: dict[str, Via3File]
    view: dict[str, View]
    metadata: dict[str, Via3Metadata]


PROJECT = TypeAdapter(Via3Project)


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the images of the project.

    Raises:
        ReadError: The content is not such a project, or a region is of no image or of several.
    """
    project = parsed(data, name, PROJECT)
    regions: dict[str, list[tuple[str, Via3Metadata]]] = defaultdict(list)
    for number, one in project.metadata.items():
        if one.xy or any(one.values.values()):  # of a region, or of the whole image
            regions[_file(project, one, number, name)].append((number, one))
    images = [_listed(project, file, regions[key], name) for key, file in project.file.items() if file.kind == IMAGE]
    videos = sum(len(regions[key]) for key, file in project.file.items() if file.kind != IMAGE)
    if images and videos:
        images[0].remarks["region of a video passed over"] += videos
    return images


def _file(project: Via3Project, one: Via3Metadata, number: str, name: str) -> str:
    """The key of the only file that a region's view shows."""
    view = project.view.get(str(one.view))
    files = [str(file) for file in view.files] if view is not None else []
    if len(files) != 1 or files[0] not in project.file:
        raise ReadError(
            f"region {number} does not belong to exactly one image",
            where=name,
            found=f"{len(files)} files in view {one.view}",
            remedy="draw on one image at a time",
        )
    return files[0]


def _listed(project: Via3Project, file: Via3File, regions: list[tuple[str, Via3Metadata]], name: str) -> ListedImage:
    remarks: Counter[str] = Counter()
    drawn = [
        ListedShape(shape, tuple(_labels(project, one.values, number, name)), number, ranked=False)
        for number, one in regions
        if one.xy and (shape := _shape(one.xy, number, remarks, name)) is not None
    ]
    whole = [label for number, one in regions if not one.xy for label in _labels(project, one.values, number, name)]
    return ListedImage(file.name, None, drawn, remarks, labels=tuple(filter(None, whole)))


def _labels(project: Via3Project, values: dict[str, Any], number: str, name: str) -> Iterator[str]:
    """Texts, and the options that an attribute's value chooses: one, or several with commas between them."""
    for attribute, value in values.items():
        described = project.attribute.get(attribute, Attribute())
        options, field = described.options, described.name or attribute
        chosen = str(value).split(",") if options and value else []
        if any(option in options for option in chosen):
            if unknown := [option for option in chosen if option not in options]:
                raise ReadError(
                    f"{number}: an option that the project does not list",
                    where=name,
                    found=", ".join(unknown),
                    expected=f"of {', '.join(options)}",
                    remedy="export the project again",
                )
            yield from (Said(options[option], field) for option in chosen)
        else:
            yield Said(str(value), field)


def _shape(xy: list[float], number: str, remarks: Counter[str], name: str) -> Geometry | None:
    kind, at = SHAPES.get(xy[0], f"shape {xy[0]:g}"), xy[1:]
    if len(at) != NUMBERS.get(kind, len(at)) or (kind in ("polygon", "polyline") and len(at) % 2):
        raise ReadError(f"region {number}: a {kind} of {len(at)} coordinates", where=name)
    match kind:
        case "point":
            return shapely.Point(at)
        case "rectangle":
            x, y, width, height = at
            return polygon([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], remarks)
        case "circle":
            x, y, radius = at
            return ellipse((x - radius, y - radius, x + radius, y + radius), remarks)
        case "ellipse":
            x, y, across, down = at
            return ellipse((x - across, y - down, x + across, y + down), remarks)
        case "polygon":
            return polygon(list(zip(at[::2], at[1::2], strict=True)), remarks)
        case "polyline":
            return marks.enclosed(list(zip(at[::2], at[1::2], strict=True)), remarks)
    marks.pass_over(kind, remarks)
    return None
