"""Open images with Pillow, only in formats that datasets use; Pillow knows more, some of which run a program."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImagePalette
from PIL.BmpImagePlugin import BmpImageFile
from PIL.TiffImagePlugin import COLORMAP, TiffImageFile

from dpconvert.image.guards.jpeg import checked_size

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
HEADER, OS2 = 14, 12  # where a BMP states the size of its header, and the size of the first kind
BITS_OF_OS2, BITS_OF_BMP = 24, 28  # where it states its bits per pixel
MOST_OF_A_BYTE = 255
INDEXES = {4: "P;4", 8: "P"}  # Pillow's raw modes, by bits per pixel


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
        if isinstance(image, BmpImageFile):
            head = _bytes(file)[:32]
            at = BITS_OF_OS2 if head[HEADER] == OS2 else BITS_OF_BMP
            _restore_palette(image, int.from_bytes(head[at : at + 2], "little"))
        if isinstance(image, TiffImageFile) and image.mode == "P":
            _restore_colours(image)
    except ValueError:
        image.close()
        raise
    return image


def _restore_palette(image: BmpImageFile, bits: int) -> None:
    """Restore the palette of a BMP whose colours are black and white, or equal their indexes, where Pillow drops it.

    Pillow then reads indexes of 4 or 8 `bits` as if each took 1 or 8: an image in black and white would be black.
    """
    if bits not in INDEXES or image.mode not in ("1", "L") or (image.mode, bits) == ("L", 8):
        return
    shades = (0, 255) if image.mode == "1" else range(1 << bits)
    image._mode, image.palette = "P", ImagePalette.raw("RGB", bytes(shade for shade in shades for _ in "RGB"))
    tile = image.tile[0]
    assert isinstance(tile.args, tuple)
    image.tile = [tile._replace(args=(INDEXES[bits], *tile.args[1:]))]


def _restore_colours(image: TiffImageFile) -> None:
    """Take colours of at most 255 as of 8 bits, as libtiff does; Pillow divides all by 256, and makes these black."""
    colours = image.tag_v2.get(COLORMAP) or ()
    if colours and max(colours) <= MOST_OF_A_BYTE:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _bytes(file: Path | io.BytesIO) -> bytes:
    return file.read_bytes() if isinstance(file, Path) else file.getvalue()
