"""Check the decoded size of a strip or tile of a TIFF before decoding it; it must not exceed that of the page by much.

tifffile gives stream decoders (deflate, LZW, PackBits, LZMA, Zstandard) the expected size. Image decoders (JPEG, JPEG
2000, WebP, PNG) trust the header of their data, whatever the TIFF states, so this module reads that header first.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import tifffile
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from dpconvert.errors import ReadError
from dpconvert.image.guards import jpeg2000
from dpconvert.image.guards.jpeg import checked_size

# values of the tag Compression
STREAMS = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000, 50013})
JPEG = frozenset({6, 7, 33007, 34892})
JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
WEBP = frozenset({34927, 50001})
PNG = 34933

LITTLE = 1 << 20  # samples that are always allowed
TOO_MUCH = 4  # maximum ratio of claimed samples to those of the segment


def check_segment(page: tifffile.TiffPage, data: bytes) -> None:
    """Refuse data that claim far more samples than a strip or tile of the page has.

    Raises:
        ValueError: they claim too many or do not state how many, or their compression is not supported.
    """
    if page.compression in STREAMS:
        return
    claimed = _reader(page.compression)(data)
    wide, tall = segment_size(page)
    if claimed is None or claimed > max(TOO_MUCH * wide * tall * page.samplesperpixel, LITTLE):
        fault = "do not state their size" if claimed is None else f"claim {claimed} samples"
        raise ValueError(f"its data {fault}, where {wide} x {tall} pixels are expected")


def pixels(page: tifffile.TiffPage, most: int) -> NDArray[Any]:
    """Return all pixels of a page, at most `most` bytes, in the shape of tifffile.

    Raises:
        One of DAMAGED: the page is damaged, or a strip or tile claims far more samples than it has.
        ReadError: the compression is not supported.
    """
    check_compression(page)
    wide, tall = segment_size(page)
    largest = wide * tall * page.samplesperpixel * max(page.nbytes // max(math.prod(page.shape), 1), 1)
    if max(page.nbytes, 0 if page.is_memmappable else largest) > most:
        raise ValueError(f"more than {most >> 20} MiB of pixels")
    if page.jpegheader is not None:
        raise ValueError("JPEG data whose header is stored elsewhere")
    if page.compression not in STREAMS:
        file = page.parent.filehandle
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if count:
                file.seek(offset)
                check_segment(page, file.read(count))
    return page.asarray()


def check_compression(page: tifffile.TiffPage) -> None:
    """Distinguish an unsupported compression from damage.

    Raises:
        ReadError: neither this module nor Pillow supports the compression.
    """
    read = STREAMS | JPEG | JPEG_2000 | WEBP | {PNG} | TiffImagePlugin.COMPRESSION_INFO.keys()
    if page.compression not in read:
        raise ReadError(
            "a TIFF with an unsupported compression",
            where=page.parent.filehandle.path,
            found=getattr(page.compression, "name", page.compression),
            remedy="save it with deflate, LZW, JPEG or JPEG 2000",
        )


def segment_size(page: tifffile.TiffPage) -> tuple[int, int]:
    """Return the width and height of a strip or tile."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip, page.imagelength)


def _reader(compression: int) -> Callable[[bytes], int | None]:
    if compression in JPEG:
        return _of_jpeg
    if compression in JPEG_2000:
        return jpeg2000.claimed
    if compression in WEBP:
        return _of_webp
    if compression == PNG:
        return _of_png
    raise ValueError(f"a compression that is not read, {tifffile.COMPRESSION(compression).name}")


def _of_jpeg(data: bytes) -> int | None:
    size = checked_size(data)
    return size and size[0] * size[1]


def _of_webp(data: bytes) -> int | None:
    """Return the size in the first chunk (RFC 9649), with which all following chunks must agree."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    if (kind := data[12:16]) == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        both = int.from_bytes(data[21:25], "little")
        width, height = 1 + (both & 0x3FFF), 1 + (both >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        return None
    return width * height * 4


def _of_png(data: bytes) -> int | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return int(width * height)
