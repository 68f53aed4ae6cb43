"""Read the size of an image from the header of its file, so that planning need not decode it.

The size is returned only if the file is complete, so that a plan detects truncated files before anything is written.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL import Image as Pillow

from dpconvert.image.guards.libtiff import UNREADABLE
from dpconvert.image.rgb import TURNED, orientation_of

OFFSETS_AND_COUNTS = ((273, 279), (324, 325))  # TIFF tags of strips and of tiles
ENDS: dict[type, bytes] = {PngImagePlugin.PngImageFile: b"IEND\xaeB`\x82", JpegImagePlugin.JpegImageFile: b"\xff\xd9"}


def complete_size(file: Path | io.BytesIO) -> tuple[int, int] | None:
    """Return (width, height) of a complete TIFF, BMP, PNG or JPEG; None for others, or if this cannot be determined."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the decoder handles whatever Pillow warns of
            with Pillow.open(file, formats=("BMP", "JPEG", "PNG", "TIFF")) as image:
                whole = _last_byte(image) <= _length(file) and _ends(file, image)
                return _upright(file, image) if whole else None
    except UNREADABLE:
        return None
    finally:
        if isinstance(file, io.BytesIO):
            file.seek(0)


def _upright(file: Path | io.BytesIO, image: Pillow.Image) -> tuple[int, int]:
    """Return the size of the upright image; for a TIFF, Pillow returns it already."""
    width, height = image.size
    if type(image) not in ENDS:
        return width, height
    data = file.getvalue() if isinstance(file, io.BytesIO) else file.read_bytes()
    return (height, width) if orientation_of(data) in TURNED else (width, height)


def _last_byte(image: Pillow.Image) -> float:
    """Return the end of the pixel data; infinity if the header does not state it."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        ends = [
            offset + count
            for at, length in OFFSETS_AND_COUNTS
            if at in tags and length in tags
            for offset, count in zip(tags[at], tags[length], strict=True)
        ]
        return max(ends, default=float("inf"))
    if isinstance(image, BmpImagePlugin.BmpImageFile) and image.tile[0].codec_name == "raw":
        tile = image.tile[0]
        assert isinstance(tile.args, tuple)
        return tile.offset + int(tile.args[1]) * image.height
    return 0 if type(image) in ENDS else float("inf")


def _ends(file: Path | io.BytesIO, image: Pillow.Image) -> bool:
    """Whether the file ends as its format must."""
    mark = ENDS.get(type(image), b"")
    if isinstance(file, io.BytesIO):
        return file.getvalue().endswith(mark)
    with file.open("rb") as opened:
        opened.seek(-len(mark), io.SEEK_END)
        return opened.read() == mark


def _length(file: Path | io.BytesIO) -> int:
    return len(file.getvalue()) if isinstance(file, io.BytesIO) else file.stat().st_size
