"""Zeiss CZI, read piece by piece by Zeiss's own library (extra `czi`): all scenes of a file are one image.

Only pixels of full resolution are used. Format: https://github.com/ZEISS/libczi.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from dpconvert.errors import ReadError
from dpconvert.image.base import Pixels
from dpconvert.image.rgb import KindError, Range, check_bits, to_rgb
from dpconvert.image.spacing import Spacing, of_texts
from dpconvert.image.spots import spots
from dpconvert.plural import counted

MICROMETRES = 1e6  # in a metre
KINDS = {"Bgr24": 8, "Bgr48": 16, "Gray8": 8, "Gray16": 16}  # bits of a sample
WHITE = (1.0, 1.0, 1.0)
FRAMES = 256  # approximate number of frames checked, over all scenes
OF_SCENES = "several scenes read as one image: annotations count from the corner of all scenes, not of their own"
BEYOND = {"Z": "focal plane", "T": "time point"}  # axes of which only the first is read
DAMAGED = (RuntimeError, OSError, ValueError, KeyError, TypeError, IndexError)  # raised by the library


class CziLevel(NamedTuple):
    """The size of a level in pixels."""

    width: int
    height: int


class Tile(NamedTuple):
    """A tile of full resolution: its place on each axis that is not x or y, and its frame (x, y, width, height)."""

    plane: dict[str, int]
    frame: tuple[int, int, int, int]


class CziPages:
    """The image of a CZI file.

    Raises:
        ReadError: the file is damaged, has several channels, or pixels of another kind.
    """

    in_strips = False

    def __init__(self, path: Path, scale: Range | None = None) -> None:
        from pylibCZIrw.czi import CziReader

        self.path, self.scale = path, scale
        try:
            self._reader = CziReader(str(path))
            box = self._reader.total_bounding_rectangle_no_pyramid
            kinds = self._reader.pixel_types
            scenes = len(self._reader.scenes_bounding_rectangle_no_pyramid)
            tiles = _tiles(self._reader)
            self.spacing = _spacing(self._reader.metadata)
        except DAMAGED as error:
            raise ReadError(f"not a readable CZI file: {error}", where=path, remedy="fetch it again") from None
        self._bits = _bits(kinds, path)
        self.x, self.y, self.width, self.height = box.x, box.y, box.w, box.h
        self.levels: Sequence[CziLevel] = [CziLevel(box.w, box.h)]
        places = {axis: sorted({tile.plane[axis] for tile in tiles if axis in tile.plane}) for axis in BEYOND}
        self._plane = {"C": 0, **{axis: found[0] for axis, found in places.items() if found}}
        more = ((BEYOND[axis], len(found) - 1) for axis, found in places.items())
        planes = (f"{counted(count, f'more {what}')} not read" for what, count in more if count > 0)
        self.notes = (*planes, *([OF_SCENES] if scenes > 1 else []))
        self._check_planes(tiles)
        self._check_bits()

    def region(self, level: int, x: int, y: int, w: int, h: int) -> Pixels:
        """Return a frame as uint8 RGB (h, w, 3); white where the file has no pixels.

        Raises:
            ReadError: the file is damaged in this frame.
        """
        try:
            return to_rgb(self._samples(x, y, w, h), scale=self.scale)
        except KindError as error:
            raise ReadError(str(error), where=self.path, remedy=error.remedy) from None

    def close(self) -> None:
        """Release the file."""
        self._reader.close()

    def _samples(self, x: int, y: int, w: int, h: int) -> np.ndarray[Any, Any]:
        frame = (self.x + x, self.y + y, w, h)
        try:
            found = self._reader.read(roi=frame, plane=self._plane, background_pixel=WHITE)
        except DAMAGED as error:
            raise ReadError(f"cannot be read at {(x, y, w, h)}: {error}", where=self.path) from None
        return np.ascontiguousarray(found[:, :, ::-1])  # blue comes first

    def _check_planes(self, tiles: Sequence[Tile]) -> None:
        """Refuse an image that has places without a tile in the plane that is read: they would be white."""
        read, others = list[Tile](), list[Tile]()
        for tile in tiles:
            is_read = all(tile.plane.get(axis, at) == at for axis, at in self._plane.items())
            (read if is_read else others).append(tile)
        if not others:
            return
        there = shapely.STRtree([_box(tile) for tile in read])
        covered = set(there.query([_box(tile).centroid for tile in others], predicate="intersects")[0].tolist())
        if bare := [tile for number, tile in enumerate(others) if number not in covered]:
            self.close()
            plane = " and ".join(f"{BEYOND[axis]} {self._plane[axis]}" for axis in bare[0].plane if axis in BEYOND)
            raise ReadError(
                f"{counted(len(bare), 'tile')} without pixels in the first plane ({plane}), which is the one read",
                where=self.path,
                found=f"one at {bare[0].frame[:2]}",
                remedy="save the plane that is meant, or one per scene, as a file of its own",
            )

    def _check_bits(self) -> None:
        """Check frames spread over each scene: between scenes there are no pixels."""
        if self._bits == 8:
            return
        scenes = list(self._reader.scenes_bounding_rectangle_no_pyramid.values())
        boxes = [(box.x - self.x, box.y - self.y, box.w, box.h) for box in scenes] or [(0, 0, self.width, self.height)]
        count = max(math.isqrt(FRAMES // len(boxes)), 1)
        try:
            looked_at = [
                self._samples(left + x, top + y, w, h).reshape(-1)
                for left, top, width, height in boxes
                for x, y, w, h in spots(width, height, count)
            ]
            check_bits(np.concatenate(looked_at), scale=self.scale)
        except KindError as error:
            self.close()
            raise ReadError(str(error), where=self.path, remedy=error.remedy) from None


def _tiles(reader: Any) -> list[Tile]:
    """Return the tiles of full resolution."""
    found = list[Tile]()

    def add(_: int, block: Any) -> bool:
        box, size = block.logicalRect, block.physicalSize
        if (box.w, box.h) == (size.w, size.h):
            found.append(Tile(block.coordinate.to_dict(), (box.x, box.y, box.w, box.h)))
        return True

    reader.enumerate_subblocks(add)
    return found


def _box(tile: Tile) -> shapely.Polygon:
    x, y, w, h = tile.frame
    return shapely.box(x, y, x + w, y + h)


def _bits(kinds: Mapping[int, str], path: Path) -> int:
    """Return the bits of a sample of the only channel.

    Raises:
        ReadError: there are several channels, or their pixels are of another kind.
    """
    if len(kinds) != 1:
        raise ReadError(
            "an image of several channels (fluorescence), not RGB", where=path, found=f"{len(kinds)} channels"
        )
    if kinds[0] not in KINDS:
        raise ReadError("pixels of a kind that is not read", where=path, found=kinds[0], expected=", ".join(KINDS))
    return KINDS[kinds[0]]


def _spacing(metadata: Any) -> Spacing:
    """Return the micrometres per pixel of the metadata, which states metres."""
    items = metadata
    for name in ("ImageDocument", "Metadata", "Scaling", "Items", "Distance"):
        items = items.get(name) if isinstance(items, Mapping) else None
    scaling = {item.get("@Id"): item.get("Value") for item in ([items] if isinstance(items, Mapping) else items or [])}
    texts = [None if scaling.get(axis) is None else f"{float(str(scaling[axis])) * MICROMETRES:.6g}" for axis in "XY"]
    return of_texts(*texts)
