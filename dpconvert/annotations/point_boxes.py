"""Boxes in tables and JSON lists of points: which columns or keys hold them, and what x and y are beside a size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from dpconvert.errors import ReadError

BoxForm = Literal["", "xywh", "xyxy", "cxcywh", "none"]
RIGHT, BOTTOM, WIDTH, HEIGHT = EXTENT = (":right", ":bottom", ":width", ":height")  # our names; no column has these
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("mincol", "minrow", "maxcol", "maxrow"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("left", "top", "right", "bottom"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("xstart", "ystart", "xend", "yend"),
    ("startx", "starty", "endx", "endy"),
)
SIZES = (("width", "height"), ("w", "h"))
CORNER_AND_SIZE = tuple((*corners[:2], *size) for corners in CORNERS for size in SIZES)
FAR = tuple(corners[2:] for corners in CORNERS)
SIZED: tuple[BoxForm, ...] = ("xywh", "cxcywh")


def with_boxes(columns: Sequence[str], boxes: BoxForm, name: str) -> list[str]:
    """Return the columns of a head, or the keys of a JSON object, with those that hold a box by our names.

    Corners become x, y, RIGHT and BOTTOM, and so does the far one beside x and y; a width and a height beside x and y,
    or beside the upper left corner, become WIDTH and HEIGHT.

    Raises:
        ReadError: there are x, y and a size, and `boxes` does not state what x and y are; or it states the centre, and
            the columns are those of a corner.
    """
    plain = [re.sub(r"^b?box", "", re.sub(r"[\W_]", "", column.casefold())) for column in columns]
    if {"x", "y"} <= {*plain} and not {"x", "y"} <= {*columns}:  # bbox_x, bbox_y
        columns = [cell if cell in ("x", "y") else column for cell, column in zip(plain, columns, strict=True)]
    ours = _beside_a_point(columns, plain, boxes, name) if {"x", "y"} <= {*columns} else _corners(plain, boxes, name)
    return [ours.get(cell, column) for cell, column in zip(plain, columns, strict=True)]


def _beside_a_point(columns: Sequence[str], plain: Sequence[str], boxes: BoxForm, name: str) -> dict[str, str]:
    """The columns that make a box of x and y, and our names for them."""
    if boxes == "none":
        return {}
    if size := _first_of(SIZES, plain):
        if boxes not in SIZED:
            raise ReadError(
                "a width and a height beside x and y, which may be the corner of a box or its centre",
                where=name,
                found=", ".join(columns)[:120],
                remedy='say in the manifest\'s [layout] `boxes = "xywh"` (x and y are the upper left corner), "cxcywh" '
                '(the centre), or "none" (there are no boxes)',
            )
        return dict(zip(size, (WIDTH, HEIGHT), strict=True))
    far = () if _first_of(CORNERS, plain) else _first_of(FAR, plain)  # with both corners, x and y are a point in a box
    return dict(zip(far, (RIGHT, BOTTOM), strict=False))


def _corners(plain: Sequence[str], boxes: BoxForm, name: str) -> dict[str, str]:
    """The columns that hold two corners, or the upper left one and a size, and our names for them."""
    if corners := _first_of(CORNERS, plain):
        return dict(zip(corners, ("x", "y", RIGHT, BOTTOM), strict=True))
    corner = _first_of(CORNER_AND_SIZE, plain)
    if corner and boxes == "cxcywh":
        raise ReadError(
            "these columns are the corner of a box, and `boxes` says the centre",
            where=name,
            found=", ".join(corner),
            remedy="leave out `boxes`, or rename the columns if they are the centre",
        )
    return dict(zip(corner, ("x", "y", WIDTH, HEIGHT), strict=False))


def _first_of(some: Sequence[Sequence[str]], columns: Sequence[str]) -> Sequence[str]:
    return next((one for one in some if {*one} <= {*columns}), ())


def place_of(numbers: Mapping[str, float], boxes: BoxForm, where: str, place: str) -> tuple[float, ...]:
    """Return x and y of a point, or left, top, right and bottom of a box, in pixels.

    numbers: x, y, and RIGHT and BOTTOM or WIDTH and HEIGHT of a box. place: in the file `where`, for the error.

    Raises:
        ReadError: the box has no area.
    """
    x, y = numbers["x"], numbers["y"]
    if RIGHT in numbers:
        frame = x, y, numbers[RIGHT], numbers[BOTTOM]
    elif WIDTH in numbers:
        left, top = (x - numbers[WIDTH] / 2, y - numbers[HEIGHT] / 2) if boxes == "cxcywh" else (x, y)
        frame = left, top, left + numbers[WIDTH], top + numbers[HEIGHT]
    else:
        return x, y
    if frame[0] >= frame[2] or frame[1] >= frame[3]:
        found = f"{frame[2] - frame[0]:g} x {frame[3] - frame[1]:g}"
        raise ReadError(f"{place}: a box of no width or height", where=where, found=found)
    return frame
