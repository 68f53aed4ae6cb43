"""JSON of the Digital Slide Archive (HistomicsUI, HistomicsTK): one slide, level-0 pixels, y down.

https://github.com/girder/large_image/blob/master/girder_annotation/docs/annotations.rst. A file is an annotation with
elements, the same inside `annotation` as its server answers, or a list of either. An element's label is its own, else
its group, else the annotation's name. Rectangles and ellipses are turned by radians about their centre. Heat maps,
grids, overlays and open lines are passed over and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import shapely
from pydantic import Field, TypeAdapter
from shapely import affinity

from dpconvert.annotations import marks
from dpconvert.annotations.geometry import Geometry, ellipse, polygon
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, parsed

Position = Annotated[list[Coordinate], Field(min_length=2)]


class Label(Loose):
    value: str = ""


class DsaElement(Loose):
    type: str
    id: str = ""
    label: Label = Label()
    group: str | None = ""
    center: Position | None = None
    points: list[Position] = []
    holes: list[list[Position]] = []
    closed: bool = False
    width: Coordinate = 0
    height: Coordinate = 0
    radius: Coordinate = 0
    rotation: Coordinate = 0


class Document(Loose):
    name: str | None = ""
    elements: list[DsaElement] = []
    annotation: Document | None = None

    def all(self) -> Iterator[tuple[DsaElement, str]]:
        """All elements, each with the name of its annotation."""
        yield from ((element, self.name or "") for element in self.elements)
        if self.annotation is not None:
            yield from self.annotation.all()


FILE: TypeAdapter[Document | list[Document]] = TypeAdapter(Document | list[Document])


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the only slide of the file.

    Raises:
        ReadError: The content is not such a file.
    """
    file, remarks = parsed(data, name, FILE), Counter[str]()
    documents = file if isinstance(file, list) else [file]
    elements = [pair for document in documents for pair in document.all()]
    drawn = [
        ListedShape(shape, (element.label.value, element.group or "", called), element.id or str(number))
        for number, (element, called) in enumerate(elements)
        if (shape := _shape(element, remarks)) is not None
    ]
    return [ListedImage(drawn=drawn, remarks=remarks)]


def _shape(element: DsaElement, remarks: Counter[str]) -> Geometry | None:
    x, y = (element.center or [0.0, 0.0])[:2]
    across, down = element.width / 2, element.height / 2
    match element.type:
        case "polyline" if element.closed:
            rings = [[(p[0], p[1]) for p in ring] for ring in (element.points, *element.holes)]
            outer, *holes = (polygon(ring, remarks) for ring in rings)
            cut = shapely.union_all([hole for hole in holes if hole is not None])
            return outer and (shapely.difference(outer, cut) if holes else outer)
        case "polyline":
            return marks.enclosed([(p[0], p[1]) for p in element.points], remarks)
        case "rectangle" if element.center:
            found = polygon(
                [(x - across, y - down), (x + across, y - down), (x + across, y + down), (x - across, y + down)],
                remarks,
            )
        case "ellipse" if element.center:
            found = ellipse((x - across, y - down, x + across, y + down), remarks)
        case "circle" if element.center:
            found = ellipse((x - element.radius, y - element.radius, x + element.radius, y + element.radius), remarks)
        case "point" if element.center:
            found = shapely.Point(x, y)
        case kind:
            marks.pass_over(kind, remarks)
            return None
    return found and affinity.rotate(found, element.rotation, origin=(x, y), use_radians=True)
