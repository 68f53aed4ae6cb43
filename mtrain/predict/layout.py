"""Where the overlapping tiles of a slide lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.image import Image, scales, tissue
from mtrain.errors import UsageError
from mtrain.predict.slide import Patch
from mtrain.predict.tiling import starts


@dataclass(frozen=True)
class Layout:
    """The tiles of a slide.

    at: (N, 2), x and y of each tile in pixels of the map, row by row.
    pitch: number of level-0 pixels in one pixel of the map, along x and y.
    corner: x and y of the map at level 0.
    shape: height and width of the map.
    frame: width and height of a tile at level 0.
    """

    at: NDArray[np.int64]
    pitch: tuple[float, float]
    corner: tuple[int, int]
    shape: tuple[int, int]
    frame: tuple[int, int]

    def boxes(self) -> NDArray[np.int64]:
        """The tiles as x, y, width, height in level-0 pixels: (N, 4)."""
        corners = np.rint(self.at * self.pitch).astype(np.int64) + self.corner
        return np.concatenate([corners, np.broadcast_to(self.frame, corners.shape)], axis=1)


def layout(image: Image, patch: Patch, size: int, path: Path) -> Layout:
    """Tiles of `size` pixels with enough tissue, which overlap by half.

    Raises:
        UsageError: the slide is smaller than a tile, or holds no tissue.
    """
    left, top, width, height = image.bounds
    scale = scales(image, patch.mpp, patch.told, str(path))
    frame_x, frame_y = (max(1, round(patch.side * axis)) for axis in scale)
    pitch = frame_x / size, frame_y / size
    across, down = int(width / pitch[0] + 1e-6), int(height / pitch[1] + 1e-6)
    if min(across, down) < size:
        raise UsageError("this slide is smaller than a patch", where=path)
    at = np.array([(x, y) for y in starts(down, size) for x in starts(across, size)], np.int64)
    every = Layout(at, pitch, (left, top), (down, across), (frame_x, frame_y))
    enough = tissue(image, rule=patch.tissue_rule, mpp=patch.told).share(every.boxes()) >= patch.tissue
    if not enough.any():
        raise UsageError("no patch of this slide holds enough tissue", where=path)
    return Layout(at[enough], pitch, (left, top), (down, across), (frame_x, frame_y))
