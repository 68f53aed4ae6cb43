"""Read TIFFs that OpenSlide refuses, strip by strip or tile by tile: only the parts that a frame needs.

Supported are OME-TIFF, planar files, PackBits, strips, 16 bits and palettes, colour channels in one page or in three,
and pyramids in sub-images or in later pages. Pixels are returned as RGB by the rule of dpconvert.image.rgb in the order
of the file; `orientation` states how to turn them. Parts missing from the file are white.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from dpconvert.errors import ReadError
from dpconvert.image.base import Pixels
from dpconvert.image.guards.libtiff import DAMAGED, NEW_JPEG
from dpconvert.image.guards.tiff_segments import JPEG, check_segment
from dpconvert.image.ome.ome_metadata import Opened
from dpconvert.image.rgb import KindError, Range
from dpconvert.image.spacing import Spacing
from dpconvert.image.spots import spots
from dpconvert.image.tiff.pieces import Pieces
from dpconvert.image.tiff.tiff_checks import (
    SEGMENT_LIMIT,
    UnknownKindError,
    check_pages,
    dtype_of,
    has_plain_jpeg_tiles,
    is_read_by_libtiff,
    planes_of,
    segments_of,
    shape_of,
)
from dpconvert.image.tiff.tiff_layout import name, opened
from dpconvert.image.tiff.tiff_rgb import (
    CMYK,
    GREY,
    GREY_INVERTED,
    PALETTE,
    RGB,
    YCBCR,
    check_page_bits,
    orientation_of_page,
    page_rgb,
    settle_colours,
    significant_bits,
)

CACHE = 1 << 26  # bytes of decoded segments to keep
ROW_CACHE = 3 << 26  # the same if the segments side by side take more, since they are requested repeatedly
STRIP_ROWS = 1024  # rows that most rows of patches span
logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its messages are raised as errors here


class TiffPages:
    """The image of a TIFF with its coarser levels, finest first; `layout` describes the rest of the file.

    Raises:
        ReadError: the file is damaged, or its pixels or segments cannot be read piece by piece.
    """

    def __init__(self, file: Opened, scale: Range | None = None) -> None:
        self.file, self.scale = file, scale
        self.where = name(file)
        self._cache: OrderedDict[tuple[int, int, int], NDArray[Any]] = OrderedDict()
        self._kept = 0
        self._pieces: dict[str, Pieces] = {}  # this file, and others that contain planes of an OME-TIFF
        self._tiff, self.layout = opened(file)
        self.levels = self.layout.levels
        try:
            check_pages(self.levels, self.where, scale)
            self.is_settled = bool(sum(settle_colours(page) for level in self.levels for page in level.pages))
            first = self.levels[0].pages[0]
            self.bits, self.orientation = significant_bits(first), orientation_of_page(first)
        except KindError as error:
            self.close()
            raise UnknownKindError(str(error), where=self.where, remedy=error.remedy) from None
        except DAMAGED as error:
            self.close()
            raise ReadError(f"not a readable TIFF: {error}", where=self.where, remedy="fetch it again") from None
        except ReadError:
            self.close()
            raise
        self.width, self.height = self.levels[0].width, self.levels[0].height

    @property
    def spacing(self) -> Spacing:
        """Micrometres per pixel, as the file states them."""
        return self.layout.spacing

    @property
    def notes(self) -> tuple[str, ...]:
        """Parts of the file that are not read."""
        return self.layout.notes

    def region(self, level: int, x: int, y: int, w: int, h: int) -> Pixels:
        """Return a frame of a level, in pixels of that level: uint8 RGB (h, w, 3).

        Raises:
            ReadError: the file is damaged in this frame.
        """
        page = self.levels[level].pages[0]
        try:
            return page_rgb(self._samples(level, x, y, w, h), page, self.bits, self.scale)
        except KindError as error:
            raise ReadError(str(error), where=self.where, remedy=error.remedy) from None

    def check_bits(self) -> None:
        """Refuse an image whose coarsest level uses few of its bits, or is not of the stated scale.

        Raises:
            ReadError: the image uses few of its bits, its samples contradict the scale, or the file is damaged.
        """
        page = self.levels[0].pages[0]
        if dtype_of(page).itemsize == 1:
            return
        number = len(self.levels) - 1
        at = self.levels[number]
        looked_at = [self._samples(number, *frame) for frame in spots(at.width, at.height)]
        try:
            check_page_bits(np.stack(looked_at).reshape(-1, 1, looked_at[0].shape[2]), page, self.bits, self.scale)
        except KindError as error:
            raise ReadError(str(error), where=self.where, remedy=error.remedy) from None

    def _samples(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[Any]:
        at = self.levels[level]
        planes = [
            self._plane(level, page, plane, x, y, w, h)
            for page in range(len(at.pages))
            for plane in range(planes_of(at.pages[page]))
        ]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    @property
    def in_strips(self) -> bool:
        """Whether the finest level is stored in full-width strips, which must be decoded as a whole."""
        page = self.levels[0].pages[0]
        return not page.is_tiled and not page.is_memmappable

    @property
    def is_plain(self) -> bool:
        """Whether OpenSlide, which has its own rule, reads the same pixels: 8-bit grey or RGB, upright."""
        page = self.levels[0].pages[0]
        if not all(is_read_by_libtiff(page) for level in self.levels for page in level.pages):
            return False
        usual = page.photometric in (GREY, RGB) or (page.photometric == YCBCR and page.compression == NEW_JPEG)
        opaque = page.samplesperpixel == (1 if page.photometric == GREY else 3)
        whole_bytes = dtype_of(page) == np.uint8 and self.bits in (0, 8)
        return usual and opaque and whole_bytes and self.orientation == 1 and not self.is_settled

    @property
    def is_plain_jpeg(self) -> bool:
        """Whether every level consists of whole JPEG tiles of 8-bit RGB, with none missing."""
        return all(has_plain_jpeg_tiles(level) for level in self.levels)

    def close(self) -> None:
        """Release the file."""
        self._tiff.close()
        while self._pieces:
            self._pieces.popitem()[1].close()

    def _plane(self, level: int, page: int, plane: int, x: int, y: int, w: int, h: int) -> NDArray[Any]:
        tags = self.levels[level].pages[page]
        wide, tall, columns, rows = segments_of(tags)
        channels = 1 if planes_of(tags) > 1 else tags.samplesperpixel
        kind = dtype_of(tags)
        if wide * tall * channels * kind.itemsize > SEGMENT_LIMIT:
            stored = kind.newbyteorder(tags.parent.byteorder)
            try:
                mapped = self._mapped(tags, stored)
            except DAMAGED as error:
                raise ReadError(f"cannot be read: {error}", where=self.where) from None
            return np.array(mapped[plane, y : y + h, x : x + w], dtype=kind)
        down, across = range(y // tall, (y + h - 1) // tall + 1), range(x // wide, (x + w - 1) // wide + 1)
        if len(down) == len(across) == 1:  # a single segment
            segment = self._segment(level, page, (plane * rows + down[0]) * columns + across[0])
            top, left = y - down[0] * tall, x - across[0] * wide
            if segment is not None and segment.shape[0] >= top + h and segment.shape[1] >= left + w:
                return segment[top : top + h, left : left + w]
        out: NDArray[Any] = np.full((h, w, channels), _white(tags), kind)
        for row in down:
            for column in across:
                segment = self._segment(level, page, (plane * rows + row) * columns + column)
                if segment is not None:
                    _paste(out, segment, column * wide - x, row * tall - y)
        return out

    def _segment(self, level: int, page: int, index: int) -> NDArray[Any] | None:
        """Return a decoded strip or tile (rows, columns, channels); None for one that is missing from the file."""
        key = level, page, index
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        tags = self.levels[level].pages[page]
        try:
            offset, count = tags.dataoffsets[index], tags.databytecounts[index]
            if not offset or not count:
                return None
            data = self._pieces_of(tags).read(offset, count, f"segment {index}")
            check_segment(tags, data)
            tables = {"jpegtables": tags.jpegtables, "jpegheader": tags.jpegheader} if tags.compression in JPEG else {}
            decoded = tags.decode(data, index, **tables)[0]
        except DAMAGED as error:
            raise ReadError(f"segment {index} cannot be read: {error}", where=self.where) from None
        if decoded is None:
            return None
        segment: NDArray[Any] = decoded[0].astype(dtype_of(tags), copy=False)  # fax decoders return bits as bytes
        self._keep(key, segment, kept_at_most(self._side_by_side(level, segment)))
        return segment

    def _mapped(self, page: tifffile.TiffPage, kind: np.dtype[Any]) -> NDArray[Any]:
        """Map all pixels of an uncompressed page, (planes, rows, columns, channels), to be read on access."""
        file, shape = self._file(page), shape_of(page)
        if isinstance(file, Path):
            return np.memmap(file, kind, "r", offset=page.dataoffsets[0], shape=shape)
        whole = np.frombuffer(file.getbuffer(), kind, math.prod(shape), page.dataoffsets[0])
        return whole.reshape(shape)

    def _file(self, page: tifffile.TiffPage) -> Opened:
        """Return the file that contains a page."""
        return Path(page.parent.filehandle.path) if isinstance(self.file, Path) else self.file

    def _pieces_of(self, page: tifffile.TiffPage) -> Pieces:
        file = self._file(page)
        if str(file) not in self._pieces:
            self._pieces[str(file)] = Pieces(file)
        return self._pieces[str(file)]

    def _side_by_side(self, level: int, segment: NDArray[Any]) -> int:
        """Return the decoded bytes of all segments beside this one: a row of tiles, or a block of strips."""
        pages = self.levels[level].pages
        _, tall, columns, rows = segments_of(pages[0])
        if not pages[0].is_tiled:
            columns = min(-(-STRIP_ROWS // tall), rows)
        return segment.nbytes * (columns + 1) * len(pages) * planes_of(pages[0])

    def _keep(self, key: tuple[int, int, int], segment: NDArray[Any], most: int) -> None:
        self._cache[key] = segment
        self._kept += segment.nbytes
        while self._kept > most and len(self._cache) > 1:
            self._kept -= self._cache.popitem(last=False)[1].nbytes


def kept_at_most(side_by_side: int) -> int:
    """Return the bytes of decoded segments to keep if those side by side take `side_by_side` bytes."""
    return max(CACHE, min(side_by_side, ROW_CACHE))


def _white(page: tifffile.TiffPage) -> int:
    if page.photometric in (GREY_INVERTED, PALETTE, CMYK):
        return 0
    kind = dtype_of(page)
    if kind.kind == "f":
        return 1
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 8 * kind.itemsize
    return 1 if kind == np.bool_ else min(int(np.iinfo(kind).max), (1 << bits) - 1)


def _paste(out: NDArray[Any], segment: NDArray[Any], left: int, top: int) -> None:
    """Paste a segment into `out` at its corner, clipped to `out`."""
    height, width = out.shape[:2]
    source = segment[max(-top, 0) : height - top, max(-left, 0) : width - left]
    down, right = max(top, 0), max(left, 0)
    out[down : down + source.shape[0], right : right + source.shape[1]] = source
