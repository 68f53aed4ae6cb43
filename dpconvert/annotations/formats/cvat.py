"""CVAT XML for images 1.1: several images, each with its size; pixels from the top left.

https://docs.cvat.ai/docs/manual/advanced/xml_format/. Boxes and ellipses may be turned (degrees, clockwise, about their
middle). A mask is run lengths along the rows of its frame, off first. Tags, open polylines, cuboids and skeletons are
passed over and counted; the tracks of a video belong to no image file, and a file of nothing else is refused.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import shapely
from shapely import affinity

from dpconvert.annotations import marks, outlines
from dpconvert.annotations.geometry import Geometry, ellipse, polygon
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing import xml_tree
from dpconvert.errors import ReadError

MOST_PIXELS = 1 << 28
TRACK = "track of a video passed over"


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the images of the file.

    Raises:
        ReadError: The content is not such XML, it holds the tracks of a video, or a mask does not fill its frame.
    """
    document = xml_tree.root(data, name, "annotations")
    images, tracks = list(document.iterfind("image")), len(document.findall("track"))
    if tracks and not images:
        raise ReadError(
            "it contains tracks of a video and no images", where=name, remedy='export it as "CVAT for images"'
        )
    found = [_image(image, name) for image in images]
    if found:
        found[0].remarks.update({TRACK: tracks} if tracks else {})
    return found


def _image(image: Any, name: str) -> ListedImage:
    remarks: Counter[str] = Counter()
    stated = [xml_tree.number(image, side, name) for side in ("width", "height") if image.get(side)]
    drawn = []
    for number, element in enumerate(image):
        drawn += [
            ListedShape(shape, (element.get("label", ""),), f"{image.get('id', '')}-{number}")
            for shape in _shapes(element, remarks, name)
        ]
    size = (stated[0], stated[1]) if len(stated) == 2 and min(stated) > 0 else None
    tags = tuple(element.get("label", "") for element in image if element.tag == "tag")
    return ListedImage(image.get("name", ""), size, drawn, remarks, labels=tags)


def _shapes(element: Any, remarks: Counter[str], name: str) -> list[Geometry]:
    found: Geometry | None = None
    match element.tag:
        case "points":
            return [shapely.Point(point) for point in _points(element, name)]
        case "polygon":
            found = polygon(_points(element, name), remarks)
        case "polyline":
            found = marks.enclosed(_points(element, name), remarks)
        case "box":
            left, top, right, bottom = (xml_tree.number(element, side, name) for side in ("xtl", "ytl", "xbr", "ybr"))
            found = _turned(
                polygon([(left, top), (right, top), (right, bottom), (left, bottom)], remarks), element, name
            )
        case "ellipse":
            x, y, across, down = (xml_tree.number(element, key, name) for key in ("cx", "cy", "rx", "ry"))
            found = _turned(ellipse((x - across, y - down, x + across, y + down), remarks), element, name)
        case "mask":
            found = _mask(element, name)
        case tag:
            marks.pass_over(str(tag), remarks)
    return [] if found is None else [found]


def _points(element: Any, name: str) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in element.get("points", "").split(";") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ReadError("points that are not pairs of x and y", where=name, found=repr(element.get("points"))[:40])
    what = f"points of <{element.tag}>"
    return [(xml_tree.parsed(x, what, name), xml_tree.parsed(y, what, name)) for x, y in pairs]


def _turned(shape: Geometry | None, element: Any, name: str) -> Geometry | None:
    if shape is None or not element.get("rotation"):
        return shape
    return affinity.rotate(shape, xml_tree.number(element, "rotation", name), origin="centroid")


def _mask(element: Any, name: str) -> Geometry | None:
    left, top, width, height = (int(xml_tree.number(element, key, name)) for key in ("left", "top", "width", "height"))
    try:
        counts = np.array([int(count) for count in element.get("rle", "").split(",")], np.int64)
    except (ValueError, OverflowError):
        raise ReadError("run lengths that cannot be read", where=name, found=repr(element.get("rle"))[:40]) from None
    if not 0 < width * height <= MOST_PIXELS or (counts < 0).any() or counts.sum() != width * height:
        raise ReadError("run lengths do not fill the mask", where=name, expected=width * height, found=counts.sum())
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    if not pixels.any():
        return None
    corner = left, top
    return shapely.transform(outlines.outline(outlines.of_mask(pixels)), lambda xy: xy + corner)
