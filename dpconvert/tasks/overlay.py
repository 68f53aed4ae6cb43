"""Draws dense targets on an image: veils for classes, rings for points, frames for boxes, outlines for instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageColor, ImageDraw

from dpconvert.card import IGNORE
from dpconvert.pixel_runs import numbered

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#f0e442", "#56b4e9", "#cc79a7", "#e69f00", "#999999")  # Okabe and Ito's
VEIL = 90  # of 255: opacity of a class
RING = 3  # pixels: radius of a point


def colour_of(number: int) -> str:
    """The colour of a class by its number; colours repeat after the eighth."""
    return COLOURS[number % len(COLOURS)]


def overlaid(
    image: Pillow.Image,
    stored: tuple[int, int],
    mask: NDArray[np.uint8] | None,
    objects: Mapping[str, Sequence[Sequence[Any]]],
) -> Pillow.Image:
    """An RGB image with its targets drawn on it. What is not annotated keeps its colours.

    stored: (width, height) of the image in the shard, to which mask and objects refer; `image` may be smaller.
    """
    drawn = image if mask is None else _veiled(image, mask)
    drawn = _outlined(drawn, stored, objects.get("instances", ()))
    pen = ImageDraw.Draw(drawn := drawn.copy())
    across, down = image.width / stored[0], image.height / stored[1]
    for left, top, right, bottom, label in objects.get("boxes", ()):
        pen.rectangle((left * across, top * down, right * across, bottom * down), outline=colour_of(label))
    for x, y, label in objects.get("points", ()):
        x, y = x * across, y * down
        pen.ellipse((x - RING, y - RING, x + RING, y + RING), outline=colour_of(label), width=2)
    return drawn


def _outlined(image: Pillow.Image, stored: tuple[int, int], instances: Sequence[Sequence[Any]]) -> Pillow.Image:
    """The image with the border pixels of each instance in the colour of its class."""
    if not instances:
        return image
    numbers = numbered({"stored_width": stored[0], "stored_height": stored[1], "instances": instances})
    shown = np.asarray(Pillow.fromarray(numbers).resize(image.size, Pillow.Resampling.NEAREST))
    wide = np.pad(shown, 1, mode="edge")
    middle = wide[1:-1, 1:-1]
    others = (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
    border = (middle > 0) & np.any([other != middle for other in others], axis=0)
    table = np.array([(0, 0, 0), *(ImageColor.getrgb(colour_of(label)) for *_, label in instances)], np.uint8)
    return Pillow.fromarray(np.where(border[:, :, None], table[shown], np.asarray(image)))


def _veiled(image: Pillow.Image, mask: NDArray[np.uint8]) -> Pillow.Image:
    shown = np.asarray(Pillow.fromarray(mask).resize(image.size, Pillow.Resampling.NEAREST))
    table = np.array([ImageColor.getrgb(colour_of(number)) for number in range(IGNORE + 1)], np.uint16)
    under = np.asarray(image).astype(np.uint16)
    veiled = (under * (255 - VEIL) + table[shown] * VEIL) // 255
    return Pillow.fromarray(np.where((shown == IGNORE)[:, :, None], under, veiled).astype(np.uint8))
