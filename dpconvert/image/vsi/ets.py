"""One file of tiles of an Olympus slide (`stack1/frame_t.ets`): the tiles of one image at all its resolutions.

Layout, all numbers little-endian, as Bio-Formats (`CellSensReader`) and slideio describe it:

    0       SIS, the number of coordinates of a tile, and the places of the second header and of the list of tiles
    header  ETS, the kind of samples, their number per pixel, the compression, the size of a tile, whether a pyramid
    list    per tile its coordinates (column, row, further axes, and last its level in a pyramid), place and length
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from dpconvert.errors import ReadError
from dpconvert.image.decode import decode
from dpconvert.image.guards import jpeg2000
from dpconvert.image.rgb import KindError
from dpconvert.image.tiff.pieces import Pieces
from dpconvert.image.tiff.tiff_checks import SEGMENT_LIMIT
from dpconvert.image.unread import UNREAD
from dpconvert.plural import counted

PIXEL_FILE = re.compile(r"(?i)(?:^|/)stack\d+/frame_\w*\.(ets|tiff?)$")  # below the folder of a slide
FIRST = struct.Struct("<4s3IQ2IQ2I")  # up to the number of tiles
SECOND = struct.Struct("<4s9I")  # up to the size of a tile
AT_PYRAMID = 4 * 38  # bytes from the start of the second header, behind hints (17), background (10) and order
KINDS: Mapping[int, type[np.unsignedinteger[Any]]] = {2: np.uint8, 4: np.uint16}
RAW, JPEG, JPEG_2000, PNG = 0, 2, 3, 8
COMPRESSIONS = {RAW: "none", JPEG: "JPEG", JPEG_2000: "JPEG 2000", PNG: "PNG"}
COORDINATES = range(2, 17)  # of a tile
MOST_SIDE, MOST_LEVELS = 1 << 24, 24  # pixels of an image along one axis, and its halvings
FETCH = "fetch it again"

Place = tuple[int, int]  # column and row
Level = Mapping[Place, tuple[int, int]]  # place -> offset and length of the data


class TileFile:
    """The tiles of the first plane of one image.

    tile: width and height of a tile in pixels. components: samples per pixel. kind: their type. axes: the number of
    places on each axis after x and y. levels: tiles by place, finest level first; a level that lacks tiles is left out
    with all coarser ones.

    Raises:
        ReadError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._pieces = path, Pieces(path)
        self._bare, self._twice = np.zeros(0, np.int64), 0
        try:
            self.axes, self.levels = self._list(self._headers())
        except ReadError:
            self.close()
            raise

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height of the finest level in tiles; 0 without any."""
        columns, rows = ([place[axis] for place in self.levels[0]] for axis in (0, 1))
        return max(columns, default=-1) + 1, max(rows, default=-1) + 1

    def fits(self, width: int, height: int) -> bool:
        """Whether an image of this size has exactly these columns and rows of tiles."""
        sides = zip(self.extent, self.tile, (width, height), strict=True)
        return all((count - 1) * tile < side <= count * tile for count, tile, side in sides)

    def lies_in(self, width: int, height: int) -> bool:
        """Whether the tiles lie in an image of this size and span at least half of each of its sides."""
        sides = zip(self.extent, self.tile, (width, height), strict=True)
        return all((count - 1) * tile < side <= 2 * count * tile for count, tile, side in sides)

    def samples(self, level: int, place: Place) -> NDArray[Any] | None:
        """Return the samples of a tile (height, width, components); None if the image has none there.

        Raises:
            ReadError: the tile is damaged.
        """
        if place not in self.levels[level]:
            return None
        offset, length = self.levels[level][place]
        wanted = (self.tile[1], self.tile[0])
        try:
            found = self._decoded(self._pieces.read(offset, length, "a tile"))
            if found.shape[:2] != wanted:
                raise ValueError(f"{found.shape[1]} x {found.shape[0]} pixels")
        except (ValueError, imagecodecs.Jpeg2kError) as error:
            what = f"a damaged tile at column {place[0]}, row {place[1]} of level {level}: {error}"
            raise ReadError(what, where=self.path, remedy=FETCH) from None
        return found

    def close(self) -> None:
        """Release the file."""
        self._pieces.close()

    def _decoded(self, data: bytes) -> NDArray[Any]:
        wide, tall = self.tile
        if self._compression == RAW:
            return np.frombuffer(data, np.dtype(self.kind).newbyteorder("<")).reshape(tall, wide, self.components)
        if self._compression in (JPEG, PNG) and self.kind == np.uint8:
            try:
                return decode(data)
            except KindError as error:
                raise ValueError(str(error)) from None
        if (jpeg2000.claimed(data) or 0) > wide * tall * self.components:
            raise ValueError("it claims more samples than a tile has")
        unpacked = imagecodecs.png_decode if self._compression == PNG else imagecodecs.jpeg2k_decode
        found = np.atleast_3d(unpacked(data))
        if found.dtype != self.kind or found.shape[2] != self.components:
            raise ValueError(f"{found.shape[2]} components of {found.dtype}")
        return found

    def _headers(self) -> NDArray[Any]:
        """Read both headers; return the list of tiles."""
        head = FIRST.unpack(self._pieces.read(0, FIRST.size, "the header"))
        mark, coordinates, second, listed, count = head[0], head[3], head[4], head[7], head[8]
        if mark[:3] != b"SIS" or coordinates not in COORDINATES:
            raise ReadError("not a file of tiles (ETS)", where=self.path, remedy=FETCH)
        mark, _, kind, components, _, compression, _, wide, tall, _ = SECOND.unpack(
            self._pieces.read(second, SECOND.size, "the header")
        )
        (self.is_pyramid,) = struct.unpack("<I", self._pieces.read(second + AT_PYRAMID, 4, "the header"))
        least = 3 if self.is_pyramid else 2
        if mark[:3] != b"ETS" or not 0 < wide * tall * components <= SEGMENT_LIMIT // 2 or coordinates < least:
            raise ReadError("not a file of tiles (ETS)", where=self.path, remedy=FETCH)
        self.tile, self.components, self._compression = (wide, tall), components, compression
        self.kind, self._number = KINDS.get(kind), kind
        form = np.dtype(
            [("_", "<u4"), ("at", "<i4", (coordinates,)), ("offset", "<u8"), ("length", "<u4"), ("__", "<u4")]
        )
        data = self._pieces.read(listed, count * form.itemsize, "the list of tiles")
        return np.frombuffer(data, form)

    def _list(self, tiles: NDArray[Any]) -> tuple[list[int], list[Level]]:
        """Return the number of places on each axis after x and y, and the tiles of the first plane at each level."""
        at = tiles["at"].astype(np.int64)
        level = at[:, -1] if self.is_pyramid else np.zeros(len(at), np.int64)
        further = at[:, 2 : -1 if self.is_pyramid else None]
        is_finest, sides = level == 0, at[:, :2] * self.tile
        if at.min(initial=0) < 0 or level.max(initial=0) > MOST_LEVELS or sides.max(initial=0) > MOST_SIDE:
            raise ReadError("not a file of tiles (ETS): impossible places of tiles", where=self.path, remedy=FETCH)
        if not is_finest.any():
            return [], [{}]
        is_first = (further == further[is_finest].min(axis=0)).all(axis=1)
        places = at[:, 1] * MOST_SIDE + at[:, 0]
        self._bare = np.setdiff1d(places[is_finest], places[is_finest & is_first])
        axes = [len(np.unique(axis)) for axis in further[is_finest].T]
        return axes, self._complete([tiles[is_first & (level == n)] for n in range(int(level.max()) + 1)])

    def _complete(self, levels: Sequence[NDArray[Any]]) -> list[Level]:
        """Return the levels by place, up to the first that lacks a tile of the level before."""
        found: list[Level] = []
        for tiles in levels:
            listed = {
                (int(at[0]), int(at[1])): (int(offset), int(length))
                for at, offset, length in zip(tiles["at"], tiles["offset"], tiles["length"], strict=True)
            }
            if found and not {(column // 2, row // 2) for column, row in found[-1]} <= listed.keys():
                break
            self._twice += len(tiles) - len(listed)
            found.append(listed)
        return found

    def check(self) -> None:
        """Check that the tiles are of a kind that is read, and that each place has one in the first plane.

        Raises:
            ReadError: they are not, or a place has none or several.
        """
        self._check_kind()
        if self._twice:
            raise ReadError("several tiles in one place", where=self.path, remedy=FETCH)
        if len(self._bare):
            row, column = divmod(int(self._bare[0]), MOST_SIDE)
            raise ReadError(
                f"{counted(len(self._bare), 'place')} without a tile in the first plane, which is the one read",
                where=self.path,
                found=f"one at column {column}, row {row}",
                remedy="save the plane that is meant as a slide of its own",
            )

    def _check_kind(self) -> None:
        if self.kind is None:
            what = "pixels of a kind that is not read"
            raise ReadError(what, where=self.path, found=f"number {self._number}", expected="8 or 16 bits, unsigned")
        if self._compression not in COMPRESSIONS:
            expected = ", ".join(COMPRESSIONS.values())
            what = "tiles in a compression that is not read"
            raise ReadError(
                what, where=self.path, found=f"number {self._compression}", expected=expected, remedy=UNREAD
            )
        if self._compression == RAW and self.components > 1:
            raise ReadError(
                "uncompressed colour tiles, whose order of red, green and blue the format does not state",
                where=self.path,
                remedy=f"{UNREAD}, and compare the colours",
            )
