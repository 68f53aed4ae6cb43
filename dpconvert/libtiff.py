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
