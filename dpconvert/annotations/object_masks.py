"""Masks that distinguish objects: one object for each mask, or each value, or each colour of a mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpconvert.annotations import mask_pixels
from dpconvert.annotations.masks import STRETCHED, LabelMask, WhiteIsZero, is_stretched, read, two_readings
from dpconvert.errors import ReadError

JPEG = b"\xff\xd8\xff"
ONE_NUMBER = "mask with a single number for separate areas, which count as one object"
ALL_CORNERS = "mask whose object reaches all four corners, as if black and white were swapped"
ONE_COLOUR = "object whose colour covers separate areas"
SHOWN = 5  # values in a message
SPECKS = 4  # pixels: what blended colours cover, along the edges of objects


def read_single(
    data: bytes,
    name: str,
    label: str,
    size: tuple[int, int],
    *,
    threshold: int | None = None,
    white_is_zero: WhiteIsZero = "",
) -> LabelMask:
    """A mask of a single object, whose values are above 0 (above `threshold`), for an image of `size` (width, height).

    Raises:
        ReadError: not a readable mask; or without `threshold`, of several values above 0, which may be several objects.
    """
    if threshold is not None or mask_pixels.zero_is_white(data):
        values = dict[int | str, str]({0: "", 1: label})
        mask = read(data, name, values, size, threshold=threshold or 0, instances=True, white_is_zero=white_is_zero)
        mask.remarks.update(_all_corners(mask.values))
        return mask
    cells, is_colour = _cells(data, name)
    found = [value for value in np.unique(cells).tolist() if value > 0]
    if len(found) > 1:
        shown = ", ".join(mask_pixels.shown(value, colours=is_colour) for value in found[:SHOWN])
        raise ReadError(
            f"several {'colours' if is_colour else 'values above 0'} in a mask of one object",
            where=name,
            found=f"{shown}, ... ({len(found)})" if len(found) > SHOWN else shown,
            remedy='if each is an object, say `objects = "colours"` in [layout]'
            if is_colour
            else 'if each is an object, say `objects = "values"` in [layout]; if all are one, `threshold = 0`',
        )
    remarks = Counter({STRETCHED: int(is_stretched(cells, size, name))}) + _all_corners(cells)
    return LabelMask((cells > 0).astype(np.uint8), {1: label}, *size, instances=True, remarks=+remarks)


def _all_corners(cells: NDArray[Any]) -> Counter[str]:
    """The remark on an object that is in all four corners of its mask, though not everywhere."""
    return +Counter({ALL_CORNERS: int(bool((cells[[0, 0, -1, -1], [0, -1, 0, -1]] > 0).all() and (cells == 0).any()))})


def _cells(data: bytes, name: str) -> tuple[NDArray[np.integer], bool]:
    """The values of a mask, and whether they are colours."""
    try:
        return mask_pixels.read(data, name, colours=False), False
    except mask_pixels.ColourError:
        return mask_pixels.read(data, name, colours=True), True


def read_numbered(
    data: bytes, name: str, label: str, size: tuple[int, int], *, white_is_zero: WhiteIsZero = ""
) -> LabelMask:
    """A mask whose values above 0 number the objects of one label, for an image of `size` (width, height).

    Raises:
        ReadError: not a readable mask, a JPEG file, of another shape than the image, with a negative value, or a TIFF
            whose zero is white and `white_is_zero` does not say how to read it.
    """
    _check_lossless(data, name)
    if not white_is_zero and mask_pixels.zero_is_white(data):
        raise two_readings(name)
    try:
        values = mask_pixels.read(data, name, colours=False, reading=white_is_zero or "shown")
    except mask_pixels.ColourError as error:
        raise ReadError(
            error.what,
            where=name,
            expected=error.expected,
            found=error.found,
            remedy='if each colour is an object, say `objects = "colours"` in [layout]',
        ) from None
    remarks = Counter({STRETCHED: int(is_stretched(values, size, name))})
    numbers = np.unique(values).tolist()
    if numbers[0] < 0:
        raise ReadError("a mask value that numbers no object", where=name, expected="0 or more", found=numbers[0])
    numbers = [number for number in numbers if number]
    if len(numbers) == 1:
        remarks[ONE_NUMBER] += _areas(values, numbers) > 1
    return LabelMask(values, dict.fromkeys(numbers, label), *size, instances=True, remarks=+remarks)


def read_coloured(data: bytes, name: str, label: str, size: tuple[int, int]) -> LabelMask:
    """A mask in which each colour but black is an object of one label, for an image of `size` (width, height).

    Raises:
        ReadError: not a readable mask, a JPEG file, of another shape than the image, without black, or in colours that
            do not distinguish objects: smoothed ones, or those that recur.
    """
    _check_lossless(data, name)
    values = mask_pixels.read(data, name, colours=True)
    remarks = Counter({STRETCHED: int(is_stretched(values, size, name))})
    present, counts = np.unique(values, return_counts=True)
    if present[0] != 0:
        raise ReadError(
            "a mask of objects in colours without a black background",
            where=name,
            found=mask_pixels.shown(int(present[counts.argmax()]), colours=True) + " most often",
            remedy="make the background black (#000000), or save masks whose values number the objects",
        )
    colours = present[1:].tolist()
    if (counts[1:] < SPECKS).sum() * 2 > len(colours):
        raise ReadError(
            f"a mask whose colours blend: most of its {len(colours)} colours cover fewer than {SPECKS} pixels",
            where=name,
            remedy="export it without smoothing, one colour an object",
        )
    areas = _areas(values, colours)
    if areas > 2 * len(colours):
        raise ReadError(
            "a mask in which a colour is several objects",
            where=name,
            found=f"{areas} separate areas in {len(colours)} colours",
            remedy="export masks whose values number the objects; if the colours are classes, name them under `values`",
        )
    remarks[ONE_COLOUR] += areas - len(colours)
    return LabelMask(values, dict.fromkeys(colours, label), *size, instances=True, remarks=+remarks)


def _check_lossless(data: bytes, name: str) -> None:
    if data.startswith(JPEG):
        raise ReadError(
            "a JPEG file, which does not keep the numbers of objects",
            where=name,
            expected="a lossless format, such as PNG or TIFF",
            remedy="export the mask again as PNG; if every file is one object, state `objects = true`",
        )


def _areas(values: NDArray[Any], numbers: Collection[int]) -> int:
    """The number of connected areas of these values."""
    from scipy import ndimage  # a third of the time that a worker takes to start, and few sources need it

    found, places = np.unique(values, return_inverse=True)
    numbered = places.reshape(values.shape) + 1
    pieces = zip(found.tolist(), ndimage.find_objects(numbered), strict=True)
    return sum(
        ndimage.label(numbered[at] == place, np.ones((3, 3)))[1]
        for place, (value, at) in enumerate(pieces, start=1)
        if value in numbers
    )
