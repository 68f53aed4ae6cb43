"""Frames spread over a level of an image, by which its samples are checked without reading all of them."""

from __future__ import annotations

import numpy as np

SPOTS, SPOT = 16, 256  # frames per side, and their side in pixels


def spots(width: int, height: int, count: int = SPOTS) -> list[tuple[int, int, int, int]]:
    """Return frames (x, y, width, height): the whole level, or `count` x `count` frames spread over a large one."""
    if width * height <= (count * SPOT) ** 2:
        return [(0, 0, width, height)]
    wide, tall = min(SPOT, width), min(SPOT, height)
    corners = [(x, y) for y in np.linspace(0, height - tall, count) for x in np.linspace(0, width - wide, count)]
    return [(int(x), int(y), wide, tall) for x, y in corners]
