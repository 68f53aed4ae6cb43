"""Whether the samples of an image need a range of values to become 8-bit pixels, from its header only."""

from __future__ import annotations

import io
import warnings

from dpconvert.errors import ReadError
from dpconvert.image import pnm
from dpconvert.image.flat import TIFF_MAGIC, content, head
from dpconvert.image.guards import jpeg2000
from dpconvert.image.guards.allowed_formats import open_image
from dpconvert.image.guards.libtiff import DAMAGED, UNREADABLE, open_tiff
from dpconvert.image.ome.ome_metadata import Opened

PNG_BITS = 24  # offset of the bits per sample
JPEG_2000 = b"\0\0\0\x0c", b"\xff\x4f\xff\x51"


def takes_range(file: Opened) -> bool:
    """Whether samples have more than 8 bits, a sign or fractions; also True if the header cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the decoder handles whatever Pillow warns of
            return _takes_range(file, head(file))
    except (*DAMAGED, *UNREADABLE, ReadError):
        return True
    finally:
        if isinstance(file, io.BytesIO):
            file.seek(0)


def _takes_range(file: Opened, start: bytes) -> bool:
    if start in TIFF_MAGIC:
        with open_tiff(file) as tiff:
            kind = tiff.pages.first.dtype
            return kind is None or kind.itemsize > 1 or kind.kind not in "bu"
    if start.startswith(b"\x89PNG"):
        return _bytes(file, PNG_BITS + 1)[PNG_BITS:] == b"\x10"
    if pnm.is_netpbm(start):
        return pnm.read(content(file)).white > 255
    if start in JPEG_2000:
        return any(kind > (8, False) for kind in jpeg2000.precisions(content(file)))
    with open_image(file) as image:
        return image.mode.startswith(("I", "F"))


def _bytes(file: Opened, count: int) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:count]
    with file.open("rb") as opened:
        return opened.read(count)
