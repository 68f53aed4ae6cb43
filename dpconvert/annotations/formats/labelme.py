"""LabelMe JSON: one image, pixels from the top left; polygons, rectangles, circles, points and masks.

https://github.com/wkentaro/labelme. A rectangle or mask is given by two corners, a turned rectangle by four, a circle
by its centre and a point on it. A mask is a PNG in base64 that fills its corners, both included; their fractions are
cut. Open lines are passed over and counted.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections import Counter
from typing import Annotated

import numpy as np
import shapely
from PIL import Image as Pillow
from pydantic import Field, TypeAdapter

from dpconvert.annotations import marks, outlines
from dpconvert.annotations.geometry import Geometry, ellipse, polygon
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, parsed
from dpconvert.errors import ReadError

Position = Annotated[list[Coordinate], Field(min_length=2)]
Side = Annotated[float, Field(gt=0, lt=1_000_000)]


class Shape(Loose):
    label: str = ""
    points: list[Position] = []
    kind: str = Field(default="polygon", alias="shape_type")
    mask: str | None = None


class LabelMeFile(Loose):
    shapes: list[Shape]
    path: str | None = Field(default=None, alias="imagePath")
    flags: dict[str, bool | None] | None = None
    height: Side | None = Field(default=None, alias="imageHeight")
    width: Side | None = Field(default=None, alias="imageWidth")


FILE = TypeAdapter(LabelMeFile)


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the only image of the file.

    Raises:
        ReadError: The content is not such a file, or a mask cannot be decoded.
    """
    file, remarks = parsed(data, name, FILE), Counter[str]()
    drawn = [
        ListedShape(shape, (one.label,), str(number))
        for number, one in enumerate(file.shapes)
        for shape in _shapes(one, remarks, name)
    ]
    size = (file.width, file.height) if file.width and file.height else None
    flags = tuple(name for name, is_set in (file.flags or {}).items() if is_set)
    return [ListedImage(file.path or "", size=size, drawn=drawn, remarks=remarks, labels=flags)]


def _shapes(one: Shape, remarks: Counter[str], name: str) -> list[Geometry]:
    points = [(p[0], p[1]) for p in one.points]
    found: Geometry | None = None
    if one.kind in ("point", "points"):
        return [shapely.Point(point) for point in points]
    if one.kind in ("polygon", "oriented_rectangle") or (one.kind == "rectangle" and len(points) == 4):
        found = polygon(points, remarks)
    elif one.kind == "mask" and one.mask and len(points) == 2:
        found = _mask(one.mask, points, name)
    elif one.kind == "rectangle" and len(points) >= 2:
        left, top, right, bottom = shapely.MultiPoint(points).bounds
        found = polygon([(left, top), (right, top), (right, bottom), (left, bottom)], remarks)
    elif one.kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        found = ellipse((x - radius, y - radius, x + radius, y + radius), remarks)
    elif one.kind == "linestrip":
        found = marks.enclosed(points, remarks)
    else:
        marks.pass_over(one.kind, remarks)
    return [] if found is None else [found]


def _mask(text: str, corners: list[tuple[float, float]], name: str) -> Geometry | None:
    try:
        with Pillow.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
            if image.width * image.height > Pillow.MAX_IMAGE_PIXELS:  # type: ignore[operator]
                raise ReadError("a mask that is too large", where=name, found=f"{image.width} x {image.height}")
            pixels = np.asarray(image.convert("L")) > 0
    except (binascii.Error, OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise ReadError(f"a mask that cannot be decoded: {error}", where=name) from None
    corner, last = (np.trunc(at) for at in corners)
    if (last - corner + 1 != pixels.shape[::-1]).any():
        width, height = last - corner + 1
        raise ReadError(
            "a mask does not fill its corners",
            where=name,
            expected=f"{width:g} x {height:g}",
            found=f"{pixels.shape[1]} x {pixels.shape[0]}",
        )
    if not pixels.any():
        return None
    return shapely.transform(outlines.outline(outlines.of_mask(pixels)), lambda xy: xy + corner)
