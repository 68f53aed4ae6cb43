"""Decode each JPEG tile of a slide about once, or pass it on as it is stored.

Tiles are decoded into reused arrays, since allocating new memory takes a quarter of the decoding time.
"""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.errors import ReadError
from dpconvert.image.base import BLOCK, CELL
from dpconvert.image.guards.jpeg import checked_size
from dpconvert.image.guards.libtiff import DAMAGED
from dpconvert.image.tiff.pieces import Pieces
from dpconvert.image.tiff.tiff_pages import ROW_CACHE, TiffPages
from dpconvert.image.tiff.tiff_rgb import RGB, YCBCR

REMEMBERED = 1024  # number of evicted tiles to remember
EIGHTH = 8  # side of a JPEG block in pixels; the mean of a block can be decoded separately
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
ADOBE_MARKER = b"\xff\xee\x00\x0eAdobe"
ADOBE = tuple(ADOBE_MARKER + b"\x00\x64\x00\x00\x00\x00" + bytes([transform]) for transform in (0, 1))


@dataclass(frozen=True, eq=False)
class TileLevel:
    """One resolution: its size, the size of its tiles, the number of tile columns, and the offsets of tiles."""

    width: int
    height: int
    tile: tuple[int, int]
    columns: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    tables: bytes
    photometric: int
    colorspace: int | None

    @classmethod
    def of(cls, page: tifffile.TiffPage) -> TileLevel:
        """Return the tiles of a page that consists only of JPEG tiles of 8-bit RGB."""
        wide, tall = page.tilewidth, page.tilelength
        return cls(
            page.imagewidth,
            page.imagelength,
            (wide, tall),
            -(-page.imagewidth // wide),
            np.array(page.dataoffsets, np.int64),
            np.array(page.databytecounts, np.int64),
            page.jpegtables or b"",
            int(page.photometric),
            None if page.photometric == YCBCR or page.is_jfif else RGB,
        )

    @cached_property
    def head(self) -> bytes:
        """Return the header that turns a tile into a file: the shared tables, and an Adobe marker of the colours."""
        return SOI + ADOBE[self.photometric == YCBCR] + self.tables[2:-2]


class JpegTiles:
    """The levels of a slide, finest first, each consisting only of JPEG tiles."""

    def __init__(self, path: Path, levels: list[TileLevel]) -> None:
        self.path, self.levels = path, levels
        self.sizes = {level.tile for level in levels}
        self._pieces = Pieces(path)
        self._decoded: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._kept, self._most = 0, 0
        self._given_up: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._again: set[int] = set()  # levels with evicted tiles that were requested again

    @classmethod
    def of(cls, path: Path, sizes: list[tuple[int, int]]) -> JpegTiles | None:
        """Return the tiles of a TIFF with levels of these sizes (width, height); None unless all are plain JPEG."""
        try:
            pages = TiffPages(path)
        except ReadError:
            return None
        try:
            if [(level.width, level.height) for level in pages.levels] != sizes or not pages.is_plain_jpeg:
                return None
            return cls(path, [TileLevel.of(level.pages[0]) for level in pages.levels])
        except DAMAGED:
            return None
        finally:
            pages.close()

    def region(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """Return a frame inside a level, in pixels of that level: a new uint8 RGB array (h, w, 3).

        Raises:
            ReadError: the file is damaged in this frame.
        """
        at = self.levels[level]
        wide, tall = at.tile
        across, down = (x + w - 1) // wide - x // wide + 1, (y + h - 1) // tall - y // tall + 1
        self._most = self._wanted(level, across, down)
        if across == down == 1:  # the most common and fastest case
            tile = self._tile(level, y // tall * at.columns + x // wide)
            return tile[y % tall : y % tall + h, x % wide : x % wide + w].copy()
        return _joined((x, y, w, h), at.tile, lambda row, column: self._tile(level, row * at.columns + column))

    def eighth(self, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """Return a frame of the finest level reduced to an eighth, in reduced pixels: uint8 RGB (h, w, 3).

        Only the mean of each block of 8 x 8 pixels is decoded (the first coefficient of the DCT).

        Raises:
            ReadError: the file is damaged in this frame.
        """
        at = self.levels[0]
        size = at.tile[0] // EIGHTH, at.tile[1] // EIGHTH
        return _joined((x, y, w, h), size, lambda row, column: self._eighth(at, row * at.columns + column, size))

    def stored(self, level: int, x: int, y: int, w: int, h: int) -> bytes | None:
        """Return the stored tile that is exactly this frame of a level, as a complete JPEG file; None if there is none.

        The shared tables are inserted, and an Adobe marker that states whether the colours are RGB or YCbCr.

        Raises:
            ReadError: the file is truncated or damaged in this tile.
        """
        at = self.levels[level]
        wide, tall = at.tile
        if w != wide or h != tall or x % wide or y % tall:
            return None
        index = y // tall * at.columns + x // wide
        data = self._read(at, index).rstrip(b"\0")
        if not data.startswith(SOI) or not data.endswith(EOI):
            raise ReadError(f"tile {index} is not a JPEG image", where=self.path, remedy="fetch it again")
        return _file(at, data)

    def close(self) -> None:
        """Release the file."""
        self._pieces.close()
        self._decoded.clear()

    def _tile(self, level: int, index: int) -> NDArray[np.uint8]:
        """Return a decoded tile, which is valid until the next call."""
        key = level, index
        if (found := self._decoded.get(key)) is not None:
            self._decoded.move_to_end(key)
            return found
        if key in self._given_up:
            self._again.add(level)
            self._most = self._wanted(level, 1, 1)
        at = self.levels[level]
        data, array = self._read(at, index), self._array(at)
        try:
            checked_size(data)
            imagecodecs.jpeg8_decode(
                data, tables=at.tables or None, colorspace=at.colorspace, outcolorspace=RGB, out=array
            )
        except (RuntimeError, ValueError, TypeError) as error:
            raise ReadError(f"tile {index} cannot be read: {error}", where=self.path) from None
        self._decoded[key] = array
        self._kept += array.nbytes
        return array

    def _eighth(self, at: TileLevel, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        data = self._read(at, index)
        stored = io.BytesIO(_file(at, data))
        try:
            checked_size(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # warnings about sizes that are refused below
                with Pillow.open(stored, formats=("JPEG",)) as image:
                    image.draft("RGB", size)
                    if (image.mode, image.size) != ("RGB", size):
                        raise ValueError(f"an image of {image.mode}, {image.size} where {size} is expected")
                    return np.asarray(image)
        except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
            raise ReadError(f"tile {index} cannot be read: {error}", where=self.path) from None

    def _array(self, at: TileLevel) -> NDArray[np.uint8]:
        """Return memory for a tile: that of the least recently used tile once the cache is full."""
        shape, free = (at.tile[1], at.tile[0], 3), None
        size = shape[0] * shape[1] * 3
        while self._decoded and self._kept + size > self._most:
            key, free = self._decoded.popitem(last=False)
            self._kept -= free.nbytes
            self._given_up[key] = None
            if len(self._given_up) > REMEMBERED:
                self._given_up.popitem(last=False)
        return free if free is not None and free.shape == shape else np.empty(shape, np.uint8)

    def _wanted(self, level: int, across: int, down: int) -> int:
        """Return the bytes of decoded tiles to keep for a frame of `across` x `down` tiles and for later frames.

        As long as no tile is requested twice, this is the size of the frame's own tiles, which fits the processor's
        cache. Otherwise it covers all tiles that patches of the same cells, or bands of an overview, can request; a
        larger cache would only be slower.
        """
        wide, tall = self.levels[level].tile
        if level in self._again:
            across, down = max(across, BLOCK // wide + 2), max(down, CELL // tall + 2)
        return min(across * down * wide * tall * 3, ROW_CACHE)

    def _read(self, at: TileLevel, index: int) -> bytes:
        return self._pieces.read(int(at.offsets[index]), int(at.counts[index]), f"tile {index}")


def _file(at: TileLevel, data: bytes) -> bytes:
    """Return a stored tile as a complete JPEG file."""
    head = SOI + at.tables[2:-2] if ADOBE_MARKER in data[:64] else at.head
    return b"".join((head, memoryview(data)[2:]))


def _joined(
    frame: tuple[int, int, int, int], size: tuple[int, int], tile: Callable[[int, int], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Return the frame (x, y, w, h) of an image that consists of tiles of one size (width, height)."""
    (x, y, w, h), (wide, tall) = frame, size
    out = np.empty((h, w, 3), np.uint8)
    for row in range(y // tall, (y + h - 1) // tall + 1):
        top, bottom = max(row * tall, y), min((row + 1) * tall, y + h)
        for column in range(x // wide, (x + w - 1) // wide + 1):
            left, right = max(column * wide, x), min((column + 1) * wide, x + w)
            part = tile(row, column)[top - row * tall : bottom - row * tall]
            out[top - y : bottom - y, left - x : right - x] = part[:, left - column * wide : right - column * wide]
    return out
