"""Check that the pages of a TIFF can be read, and by which reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dpconvert.errors import ReadError
from dpconvert.image.guards.libtiff import DAMAGED, NEW_JPEG, has_sizes, open_tiff
from dpconvert.image.guards.tiff_segments import check_compression, segment_size
from dpconvert.image.rgb import KindError, Range
from dpconvert.image.tiff.tiff_layout import TiffLevel
from dpconvert.image.tiff.tiff_rgb import (
    PALETTE,
    RGB,
    YCBCR,
    check_kind,
)

FOCUS = 65424  # Hamamatsu's tag: the offset of a plane from the one in focus
SEGMENT_LIMIT = 1 << 28  # maximum bytes of a decoded strip or tile


class UnknownKindError(ReadError):
    """The rule does not cover these samples."""


def has_plain_jpeg_tiles(level: TiffLevel) -> bool:
    """Whether the tiles can be passed on as they are: JPEG of three interleaved channels, none of them missing."""
    page = level.pages[0]
    return (
        len(level.pages) == 1
        and page.is_tiled
        and page.compression == NEW_JPEG
        and page.photometric in (RGB, YCBCR)
        and page.samplesperpixel == 3
        and planes_of(page) == 1
        and page.dtype == np.uint8
        and all(page.databytecounts)
    )


def is_read_by_libtiff(page: tifffile.TiffPage) -> bool:
    """Whether libtiff can read the tiles of a page: it reads uncompressed ones in whole KiB, even beyond the end."""
    if page.compression != tifffile.COMPRESSION.NONE or not page.is_tiled:
        return True
    return all(count % 1024 == 0 for count in page.databytecounts)


def check_pages(levels: list[TiffLevel], where: str, scale: Range | None) -> None:
    """Check the pages of all levels.

    Raises:
        ReadError: damaged tables, segments of over SEGMENT_LIMIT bytes, or samples of a kind that nothing here reads.
    """
    for level in levels:
        for page in level.pages:
            _check_page(page, where, scale)


def _check_page(page: tifffile.TiffPage, where: str, scale: Range | None) -> None:
    channels, kind = page.samplesperpixel, page.photometric
    check_compression(page)
    try:
        check_kind(page, scale)
    except KindError:
        raise
    except ValueError as error:
        raise UnknownKindError(
            "pixels of an unknown kind",
            where=where,
            found=str(error),
            expected="grey, palette, RGB or CMYK, with or without opacity",
        ) from None
    palette = page.colormap if kind == PALETTE else None
    if palette is not None and not (palette.ndim == 2 and len(palette) == 3 and palette.size):
        raise ReadError("a truncated or damaged palette", where=where, found=f"{palette.shape}")
    wide, tall, columns, rows = segments_of(page)
    sizes = page.imagewidth, page.imagelength, wide, tall, channels
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ReadError(
            "invalid TIFF: width, height or tile size is not a positive integer",
            where=where,
            found=", ".join(map(str, sizes)),
        )
    expected = columns * rows * planes_of(page)
    if len(page.dataoffsets) < expected or len(page.databytecounts) < expected:
        raise ReadError("a TIFF with a truncated table of segments", where=where, expected=expected)
    held = wide * tall * (1 if planes_of(page) > 1 else channels) * dtype_of(page).itemsize
    if held > SEGMENT_LIMIT and not page.is_memmappable:
        raise ReadError(
            f"a strip or tile of {held >> 20} MiB",
            where=where,
            remedy="save it as a tiled TIFF: its parts are too large",
        )


def segments_of(page: tifffile.TiffPage) -> tuple[int, int, int, int]:
    """Return the width and height of segments, and the numbers of columns and rows of segments."""
    wide, tall = segment_size(page)
    return wide, tall, -(-page.imagewidth // wide), -(-page.imagelength // tall)


def planes_of(page: tifffile.TiffPage) -> int:
    return page.samplesperpixel if page.planarconfig == 2 else 1


def shape_of(page: tifffile.TiffPage) -> tuple[int, int, int, int]:
    """Return (planes, rows, columns, channels) of an uncompressed page."""
    planes = planes_of(page)
    return planes, page.imagelength, page.imagewidth, page.samplesperpixel // planes


def dtype_of(page: tifffile.TiffPage) -> np.dtype[Any]:
    assert page.dtype is not None
    return page.dtype


def more_planes(file: Path) -> int:
    """Return the focal planes of an NDPI that OpenSlide does not read: it reads the one in focus, of offset 0."""
    if file.suffix.lower() != ".ndpi":
        return 0
    try:
        with open_tiff(file) as tiff:
            return len({page.tags.valueof(FOCUS, 0) for page in tiff.pages if has_sizes(page)} - {0})
    except DAMAGED:
        return 0  # of a file that OpenSlide reads nonetheless
