"""Brushes of Label Studio: run lengths of RGBA pixels, as the SDK's `brush.decode_rle` reads them."""

from __future__ import annotations

import numpy as np

from dpconvert.annotations import outlines
from dpconvert.annotations.geometry import Geometry
from dpconvert.errors import ReadError

MOST_PIXELS = 1 << 28


def brush_outline(coded: list[int], size: tuple[int, int], name: str) -> Geometry | None:
    """The outline of a brush on an image of this size (width, height); None if it marks no pixel.

    Raises:
        ReadError: the run lengths are damaged, or do not fill the image.
    """
    width, height = size
    if width * height > MOST_PIXELS:
        raise ReadError("a brush on too large an image", where=name, found=f"{width} x {height}")
    alpha = _decoded(coded, name)
    if len(alpha) != 4 * width * height:
        raise ReadError("run lengths do not fill the mask", where=name, expected=4 * width * height, found=len(alpha))
    pixels = alpha[3::4].reshape(height, width) > 0
    return outlines.outline(outlines.of_mask(pixels)) if pixels.any() else None


def _decoded(coded: list[int], name: str) -> np.ndarray:
    """The values of a brush: a number of them, the bits of a value, four widths of lengths, then runs and literals."""
    at, total = 0, 8 * len(coded)

    def take(count: int) -> int:
        nonlocal at
        at += count
        if at > total:
            raise ReadError("truncated run lengths", where=name)
        first = (at - count) // 8  # whole bytes, so that no long number is shifted
        last = -(-at // 8)
        value = int.from_bytes(bytes(coded[first:last]), "big")
        return value >> (8 * last - at) & ((1 << count) - 1)

    number, word = take(32), take(5) + 1
    widths = [take(4) + 1 for _ in range(4)]
    if number > 4 * MOST_PIXELS or word > 8:
        raise ReadError("run lengths of too many or too long values", where=name, found=number)
    values, done = np.zeros(number, np.uint8), 0
    while done < number:
        run = take(1)
        length = take(widths[take(2)]) + 1
        if run:
            values[done : done + length] = take(word)
        else:
            values[done : done + length] = [take(word) for _ in range(min(length, number - done))]
        done += length
    return values
