"""Open images with Pillow, only in formats that datasets use; Pillow knows more, some of which run a program."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image as Pillow

from dpconvert.image.guards import jpeg2000
from dpconvert.image.guards.jpeg import checked_size

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def open_image(file: Path | io.BytesIO) -> Pillow.Image:
    """Open an image in one of FORMATS without decoding it; decoding will take seconds and less than a gigabyte.

    Raises:
        ValueError: decoding may take far longer or far more memory.
        One of UNREADABLE: the image cannot be read.
    """
    image = Pillow.open(file, formats=FORMATS)
    try:
        if image.format in ("JPEG", "MPO"):
            checked_size(_bytes(file))
        elif image.format == "JPEG2000" and jpeg2000.claimed(_bytes(file)) is None:
            raise ValueError("JPEG 2000 whose headers do not tell its size, or with a palette")
    except ValueError:
        image.close()
        raise
    return image


def _bytes(file: Path | io.BytesIO) -> bytes:
    return file.read_bytes() if isinstance(file, Path) else file.getvalue()
