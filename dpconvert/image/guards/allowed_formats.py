"""Images of the formats that datasets come in, opened by Pillow, which knows many more: some by running a program."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image as Pillow

from dpconvert.image.guards import jpeg2000
from dpconvert.image.guards.jpeg import checked_size

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def open_image(file: Path | io.BytesIO) -> Pillow.Image:
    """An image of one of FORMATS, not yet decoded, which takes seconds and less than a gigabyte to decode.

    Raises:
        ValueError: decoding may take far longer, or far more memory.
        One of UNREADABLE: it cannot be read.
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
