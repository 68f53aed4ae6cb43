"""Open images with Pillow, only in formats that datasets use; Pillow knows more, some of which run a program."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image as Pillow

from dpconvert.image.guards.jpeg import checked_size

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def open_image(file: Path | io.BytesIO) -> Pillow.Image:
    """Open an image in one of FORMATS without decoding it.

    Raises:
        ValueError: it is a JPEG of so many scans that decoding takes far longer than its size suggests.
        One of UNREADABLE: the image cannot be read.
    """
    image = Pillow.open(file, formats=FORMATS)
    try:
        if image.format in ("JPEG", "MPO"):
            checked_size(_bytes(file))
    except ValueError:
        image.close()
        raise
    return image


def _bytes(file: Path | io.BytesIO) -> bytes:
    return file.read_bytes() if isinstance(file, Path) else file.getvalue()
