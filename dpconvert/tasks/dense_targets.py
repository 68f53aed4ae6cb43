"""Checks of the dense targets of one sample: its mask against the card and the index, its points and boxes likewise."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.card import IGNORE, DenseCard
from dpconvert.image.decode import decode
from dpconvert.image.guards.allowed_formats import open_image
from dpconvert.image.guards.libtiff import UNREADABLE
from dpconvert.pixel_runs import cells_of

Row = Mapping[str, Any]  # of the index
KINDS = {"points": 2, "boxes": 4}  # coordinates of each object


def mask(data: bytes, offset: int, dense: DenseCard | None, row: Row) -> Iterator[str]:
    """The problems of a mask: its bytes, its place in the tar (`offset` of its content), its size and its values."""
    assert dense is not None
    assert dense.seg is not None
    if (offset, len(data)) != (row.get("seg_offset"), row.get("seg_length")):
        yield "offset or length of the mask differs from the index"
    if hashlib.sha256(data).hexdigest() != row.get("seg_sha256"):
        yield "mask differs from the index"
    try:
        values = decode_mask(data)
    except ValueError as error:
        yield f"mask cannot be decoded: {error}"
        return
    if values.shape != (row["stored_height"], row["stored_width"]):
        yield "mask is not of the image's size"
    unknown = values[(values != IGNORE) & (values >= len(dense.seg.classes))]
    if len(unknown):
        yield f"mask has the value {unknown[0]}, which is not a class"


def objects(fields: Mapping[str, Any], dense: DenseCard | None, row: Row) -> Iterator[str]:
    """The problems of points, boxes and instances in the JSON of a sample."""
    yield from _instances(fields, dense, row)
    count = 0
    for kind, length in KINDS.items():
        stated = None if dense is None else getattr(dense, kind)
        if (stated is None) != (kind not in fields):
            yield f"{kind} in the JSON, but not in the card" if stated is None else f"no {kind} in the JSON"
        elif stated is not None:
            found = fields[kind]
            if not isinstance(found, list) or not all(_is_object(one, length) for one in found):
                yield f"{kind} are not lists of {length} coordinates and a class"
                continue
            count += len(found)
            if any(one[-1] not in range(len(stated.classes)) for one in found):
                yield f"{kind} of an unknown class"
            if not all(_is_inside(one[:-1], row, is_box=kind == "boxes") for one in found):
                yield f"{kind} outside the image"
    if dense is not None and (dense.points or dense.boxes) and row.get("objects") != count:
        yield "number of objects differs from the index"


def _instances(fields: Mapping[str, Any], dense: DenseCard | None, row: Row) -> Iterator[str]:
    stated = None if dense is None else dense.instances
    if (stated is None) != ("instances" not in fields):
        yield "instances in the JSON, but not in the card" if stated is None else "no instances in the JSON"
    elif stated is not None:
        size = int(row["stored_width"]), int(row["stored_height"])
        taken = np.zeros((size[1], size[0]), np.bool_)
        try:
            for *runs, label in fields["instances"]:
                if label not in range(len(stated.classes)):
                    yield "instances of an unknown class"
                cells = cells_of(runs, size)
                if (taken & cells).any():
                    yield "instances that share pixels"
                taken |= cells
        except (TypeError, ValueError) as error:
            yield f"instances are not lists of runs of pixels and a class: {error}"


def decode_mask(data: bytes) -> NDArray[np.uint8]:
    """A mask (height, width) of a shard.

    Raises:
        ValueError: The content is not a PNG file of mode L.
    """
    try:
        with open_image(io.BytesIO(data)) as image:
            if image.format != "PNG" or image.mode != "L":
                raise ValueError(f"{image.format} of mode {image.mode} instead of PNG of mode L")
            decode(data)  # which refuses what Pillow passes over, such as a file whose end is missing
            return np.asarray(image)
    except (Pillow.DecompressionBombError, *UNREADABLE) as error:
        raise ValueError(str(error)) from None


def _is_object(one: Any, length: int) -> bool:
    if not isinstance(one, list) or len(one) != length + 1 or not isinstance(one[-1], int):
        return False
    return all(isinstance(number, int | float) and math.isfinite(number) for number in one)


def _is_inside(at: list[float], row: Row, *, is_box: bool) -> bool:
    """Whether a point lies on a pixel, or a box (left, top, right, bottom) in the image with its sides in order."""
    width, height = int(row["stored_width"]), int(row["stored_height"])
    if is_box:
        return 0 <= at[0] <= at[2] <= width and 0 <= at[1] <= at[3] <= height
    return 0 <= at[0] < width and 0 <= at[1] < height
