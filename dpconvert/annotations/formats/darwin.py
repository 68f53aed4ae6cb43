"""Darwin JSON of V7, versions 1 and 2: one image, pixels from the top left.

https://docs.v7labs.com/reference/darwin-json. A polygon's paths are filled by the even-odd rule, so that inner ones are
holes; an ellipse's angle is in radians. Tags are labels of the whole
image; open lines, skeletons and raster layers are passed over and counted.
"""

from __future__ import annotations

from collections import Counter

import shapely
from pydantic import TypeAdapter
from shapely import affinity

from dpconvert.annotations import marks
from dpconvert.annotations.geometry import Geometry, ellipse, polygon
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, parsed
from dpconvert.errors import ReadError

OTHERS = ("skeleton", "cuboid", "tag", "raster_layer", "mask", "table", "string", "graph", "link")
VIDEO = "annotation of a video passed over"


class Position(Loose):
    x: Coordinate
    y: Coordinate


class DarwinBox(Loose):
    x: Coordinate
    y: Coordinate
    w: Coordinate
    h: Coordinate


class DarwinOutline(Loose):
    path: list[Position] | list[list[Position]] = []
    paths: list[list[Position]] = []
    additional_paths: list[list[Position]] = []

    def rings(self) -> list[list[Position]]:
        """The paths of the polygon, in either version of the format."""
        first = [self.path] if self.path and isinstance(self.path[0], Position) else self.path
        return [*first, *self.additional_paths, *self.paths]


class DarwinLine(Loose):
    path: list[Position] = []


class Ellipse(Loose):
    center: Position
    radius: Position
    angle: Coordinate = 0


class DarwinAnnotation(Loose):
    id: str | int = ""
    name: str = ""
    polygon: DarwinOutline | None = None
    complex_polygon: DarwinOutline | None = None
    bounding_box: DarwinBox | None = None
    ellipse: Ellipse | None = None
    keypoint: Position | None = None
    frames: dict[str, object] | None = None
    line: DarwinLine | None = None
    skeleton: object = None
    cuboid: object = None
    tag: object = None
    raster_layer: object = None
    mask: object = None
    table: object = None
    string: object = None
    graph: object = None
    link: object = None

    @property
    def kind(self) -> str:
        """The type of an annotation whose shape is not read."""
        return next((kind for kind in OTHERS if getattr(self, kind) is not None), "unnamed")


class Slot(Loose):
    width: float | None = None
    height: float | None = None


class Item(Loose):
    name: str = ""
    slots: list[Slot] = []


class DarwinFile(Loose):
    item: Item | None = None
    image: Slot | None = None
    annotations: list[DarwinAnnotation] = []


FILE = TypeAdapter(DarwinFile)


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the only image of the file.

    Raises:
        ReadError: The content is not such a file, or it annotates a video or several slots.
    """
    file, remarks = parsed(data, name, FILE), Counter[str]()
    drawn = []
    for number, one in enumerate(file.annotations):
        shape = _shape(one, remarks)
        if shape is not None:
            drawn.append(ListedShape(shape, (one.name,), str(one.id or number)))
    slots = file.item.slots if file.item else [file.image] if file.image else []
    if len(slots) > 1:
        raise ReadError(f"an item of {len(slots)} slots", where=name, remedy="export an item for each image")
    if file.annotations and not drawn and remarks[VIDEO] == len(file.annotations):
        raise ReadError("the annotations of a video", where=name, remedy="export its frames as images")
    stated = slots[0] if slots else Slot()
    size = (stated.width, stated.height) if stated.width and stated.height else None
    tags = tuple(one.name for one in file.annotations if one.tag is not None)
    return [ListedImage(file.item.name if file.item else "", size=size, drawn=drawn, remarks=remarks, labels=tags)]


def _shape(one: DarwinAnnotation, remarks: Counter[str]) -> Geometry | None:
    outline = one.polygon or one.complex_polygon
    if one.frames is not None:
        remarks[VIDEO] += 1
    elif outline is not None:
        if not outline.rings():
            remarks["annotation without an outline"] += 1
        return _even_odd([polygon([(p.x, p.y) for p in ring], remarks) for ring in outline.rings()])
    elif one.ellipse is not None:
        (x, y), (across, down) = ((p.x, p.y) for p in (one.ellipse.center, one.ellipse.radius))
        found = ellipse((x - across, y - down, x + across, y + down), remarks)
        return found and affinity.rotate(found, one.ellipse.angle, origin=(x, y), use_radians=True)
    elif one.keypoint is not None:
        return shapely.Point(one.keypoint.x, one.keypoint.y)
    elif one.line is not None:
        return marks.enclosed([(p.x, p.y) for p in one.line.path], remarks)
    elif one.bounding_box is not None:
        box = one.bounding_box
        right, bottom = box.x + box.w, box.y + box.h
        return polygon([(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom)], remarks)
    else:
        marks.pass_over(one.kind, remarks)
    return None


def _even_odd(rings: list[Geometry | None]) -> Geometry | None:
    area: Geometry | None = None
    for ring in rings:
        if ring is not None:
            area = ring if area is None else shapely.symmetric_difference(area, ring)
    return area
