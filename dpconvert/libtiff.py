"""TIFFs from anywhere: libtiff is kept quiet, and tifffile is spared directories that never end.

libtiff, which Pillow decodes TIFFs with, writes its own lines to stderr; after `quiet` it says nothing, in the whole
process, and Pillow raises, without a word of its own in a log. tifffile follows a chain of directories wherever it
leads; `open_tiff` looks first.
"""

from __future__ import annotations

import ctypes
import io
import logging
import math
import struct
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeGuard

import tifffile
from PIL import Image as Pillow
from PIL import _imaging

MOST_TAGS = 1 << 19  # of all directories; each takes tifffile some microseconds
MOST_OF_ONE = 4096  # as tifffile has it
NEW_JPEG = 7  # the usual JPEG in a TIFF; 6 is an older way
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers before a size
# what tifffile raises where a file is damaged
DAMAGED = (
    tifffile.TiffFileError, ValueError, OSError, KeyError, IndexError, RuntimeError, TypeError, AttributeError,
    struct.error, ZeroDivisionError, OverflowError, MemoryError,
)  # fmt: skip
# and Pillow, where a picture of any format is
UNREADABLE = (
    OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, AttributeError, OverflowError,
    RuntimeError, struct.error, zlib.error, Pillow.DecompressionBombError,
)  # fmt: skip


@cache
def quiet() -> None:
    """Take libtiff's handlers of errors and warnings away, where it can be reached, and Pillow's log."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):  # another build of Pillow: its lines stay
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.restype, handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            handler(None)


def open_tiff(file: Path | io.BytesIO) -> tifffile.TiffFile:
    """A TIFF opened by tifffile.

    Raises:
        One of DAMAGED: it cannot be read, or its directories lead back to one of them.
    """
    if isinstance(file, io.BytesIO):
        _check_directories(file, ndpi=False)
    else:
        with file.open("rb") as opened:
            _check_directories(opened, ndpi=file.suffix.lower() == ".ndpi")
    return tifffile.TiffFile(file)


def has_sizes(page: object) -> TypeGuard[tifffile.TiffPage]:
    """Whether a page is of tifffile's whole ones, and its sizes are numbers.

    Tags may hold anything, and a list times a number is a longer list: gigabytes, of a file of some bytes.
    """
    return isinstance(page, tifffile.TiffPage) and all(
        isinstance(size, int) for size in (page.imagewidth, page.imagelength, *page.shape)
    )


def tile_pixels(picture: Pillow.Image) -> int:
    """Pixels of a tile of a TIFF, which libtiff holds as a whole; 0 where there are no tiles."""
    tags = getattr(picture, "tag_v2", {})
    sides = [tags.get(tag) for tag in (322, 323)]
    return math.prod(side for side in sides if isinstance(side, int)) if None not in sides else 0


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in the head of a JPEG stream; None where its segments do not follow each other."""
    at = 2
    while len(data) > at + 9 and data[at] == 0xFF:
        if data[at + 1] in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def check_jpeg(page: tifffile.TiffPage, data: bytes) -> None:
    """A strip or tile must not claim far more pixels than the page has for it: decoders believe it.

    Raises:
        ValueError: it does, or says no size.
    """
    if page.compression != NEW_JPEG:
        return
    size = jpeg_size(data)
    tall = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    most = max(4 * (page.tilewidth if page.is_tiled else page.imagewidth) * tall, 1 << 24)
    if size is None or size[0] * size[1] > most:
        raise ValueError(f"JPEG data of {'no size' if size is None else f'{size[0]} x {size[1]} pixels'}")


def check_jpegs(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> None:
    """The same of all strips or tiles of a page."""
    if page.compression == NEW_JPEG:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if count:
                tiff.filehandle.seek(offset)
                check_jpeg(page, tiff.filehandle.read(count))


def _check_directories(file: BinaryIO, *, ndpi: bool) -> None:
    """Follow the chain to its end. ndpi: offsets of 64 bits in a TIFF of 32, as Hamamatsu writes them."""
    head = file.read(4)
    order = ">" if head[:2] == b"MM" else "<"
    big = head[2:] in (b"+\0", b"\0+")
    count_of, tag_size, offset_of = f"{order}{'Q' if big else 'H'}", 20 if big else 12, f"{order}{'QI'[not big]}"
    if ndpi:
        offset_of = "<Q"
    seen: set[int] = set()
    tags = 0
    try:
        (at,) = _unpacked(offset_of, file, 8 if big else 4)
        while at:
            (count,) = _unpacked(count_of, file, at)
            tags += count
            if at in seen or (count <= MOST_OF_ONE and tags > MOST_TAGS):
                raise ValueError("its directories have no end")
            seen.add(at)
            if count > MOST_OF_ONE:  # where tifffile stops too
                break
            (at,) = _unpacked(offset_of, file, at + struct.calcsize(count_of) + count * tag_size)
    except struct.error:  # cut off there: tifffile says what that means
        pass
    finally:
        file.seek(0)


def _unpacked(format: str, file: BinaryIO, at: int) -> tuple[int, ...]:
    try:
        file.seek(at)
    except (OverflowError, OSError) as error:
        raise struct.error(str(error)) from None
    return struct.unpack(format, file.read(struct.calcsize(format)))
