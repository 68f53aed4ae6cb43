"""Images of the formats that datasets come in, opened by Pillow, which knows many more: some by running a program."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image as Pillow

from dpconvert.image.guards import jpeg2000
from dpconvert.image.guards.jpeg import checked_size

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
OF_A_PIXEL = 16  # samples, or what costs as much, that a pixel of JPEG 2000 may take: tiles of 256 px take 6
CHEAP = 1 << 24  # that any image may take: a third of a second, 134 MB


def open_image(file: Path | io.BytesIO) -> Pillow.Image:
    """An image of one of FORMATS, not yet decoded, which costs what its size tells.

    Raises:
        ValueError: decoding takes far longer, or far more memory.
        One of UNREADABLE: it cannot be read.
    """
    image = Pillow.open(file, formats=FORMATS)
    try:
        if image.format in ("JPEG", "MPO"):
            checked_size(_bytes(file))
        elif image.format == "JPEG2000":
            cost = jpeg2000.claimed(_bytes(file))
            if cost is None or cost > max(OF_A_PIXEL * image.width * image.height, CHEAP):
                raise ValueError("JPEG 2000 of very many precincts, layers or tiles, or with a palette")
    except ValueError:
        image.close()
        raise
    return image


def _bytes(file: Path | io.BytesIO) -> bytes:
    return file.read_bytes() if isinstance(file, Path) else file.getvalue()
