"""Where the overlapping tiles of a slide lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.image import Image, scales, tissue
from mtrain.errors import UsageError
from mtrain.predict.slide import GIVE_MPP, Patch, enough_tissue, no_tissue
from mtrain.predict.tiling import starts

ALMOST = 1e-6  # pixels of the map by which rounding may move an edge


@dataclass(frozen=True)
class TileLayout:
    """The tiles of a slide. The map covers the whole slide from its level-0 corner on.

    at: (N, 2), x and y of each tile in pixels of the map, row by row.
    pitch: number of level-0 pixels in one pixel of the map, along x and y.
    shape: height and width of the map.
    frame: width and height of a tile at level 0.
    skipped: number of tiles that hold too little tissue, and are not in `at`.
    origin: level-0 pixel at which coordinates for QuPath start, the corner of the slide's bounds.
    """

    at: NDArray[np.int64]
    pitch: tuple[float, float]
    shape: tuple[int, int]
    frame: tuple[int, int]
    skipped: int = 0
    origin: tuple[int, int] = (0, 0)

    def boxes(self) -> NDArray[np.int64]:
        """The tiles as x, y, width, height in level-0 pixels: (N, 4)."""
        corners = np.rint(self.at * self.pitch).astype(np.int64)
        return np.concatenate([corners, np.broadcast_to(self.frame, corners.shape)], axis=1)


def layout(image: Image, patch: Patch, size: int, path: Path) -> TileLayout:
    """Tiles of `size` pixels, which overlap by half: those with any tissue, or with the share that the user gives.

    A tile that holds only the edge of the tissue may hold an object of it, so that the share of tissue in the patches
    of the training is not required.

    Raises:
        UsageError: the slide is smaller than a tile, or holds no tissue.
    """
    scale = scales(image, patch.mpp, patch.given_mpp, str(path), GIVE_MPP)
    frame = np.maximum(1, np.rint(np.multiply(patch.side, scale))).astype(np.int64)
    pitch = (frame / size).tolist()
    whole = np.floor(np.divide([image.width, image.height], pitch) + ALMOST).astype(np.int64)
    if whole.min() < size:
        raise UsageError(
            "this slide is smaller than a patch",
            where=path,
            expected=f"at least {frame[0]} x {frame[1]} pixels",
            found=f"{image.width} x {image.height}",
            remedy="give a smaller side of patches with --patch PX",
        )
    columns, rows = (_covering(axis, image, pitch[axis], int(whole[axis]), size) for axis in (0, 1))
    at = np.array([(x, y) for y in rows for x in columns], np.int64)
    every = TileLayout(at, (pitch[0], pitch[1]), (int(whole[1]), int(whole[0])), (int(frame[0]), int(frame[1])))
    enough = _with_tissue(image, patch, every.boxes())
    if not enough.any():
        raise no_tissue(path)
    return replace(every, at=at[enough], skipped=int((~enough).sum()), origin=image.bounds[:2])


def _covering(axis: int, image: Image, pitch: float, whole: int, size: int) -> list[int]:
    """Where tiles begin that cover what the slide states to contain pixels, along x (0) or y (1)."""
    first = int(image.bounds[axis] / pitch + ALMOST)
    last = min(math.ceil((image.bounds[axis] + image.bounds[axis + 2]) / pitch - ALMOST), whole)
    first = max(0, min(first, last - size))
    last = max(last, first + size)
    return [first + start for start in starts(last - first, size)]


def _with_tissue(image: Image, patch: Patch, boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which boxes (N, 4) are predicted; by default also those next to tissue, whose edge is known only roughly."""
    if patch.least is not None:
        return enough_tissue(image, patch, boxes)
    found = tissue(image, rule=patch.tissue_rule, mpp=patch.given_mpp)
    edge = np.array([image.width / found.mask.shape[1], image.height / found.mask.shape[0]])
    wider = np.concatenate([boxes[:, :2] - edge, boxes[:, 2:] + 2 * edge], axis=1)
    return found.share(wider) > 0
