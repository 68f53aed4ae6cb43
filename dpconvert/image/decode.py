"""The decoder of PNG and JPEG for sources, for the verification of shards, and for training."""

from __future__ import annotations

import io
import logging
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.image.base import Pixels
from dpconvert.image.guards import jpeg2000
from dpconvert.image.guards.jpeg import checked_size
from dpconvert.image.guards.libtiff import UNREADABLE
from dpconvert.image.guards.pixel_claims import check_claim
from dpconvert.image.rgb import (
    KindError,
    Range,
    check_bits,
    check_palette,
    orientation_of,
    several,
    to_rgb,
    upright,
)

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
JPEG_LS, JPEG_HEAD = b"\xff\xf7", 1 << 10  # the marker of a frame in JPEG-LS, and the bytes that may precede it
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
GREY, RGB, PALETTE = 0, 2, 3

logging.getLogger("imagecodecs").addHandler(logging.NullHandler())  # what libpng says of profiles, times and texts


def decode(data: bytes, scale: Range | None = None, *, source: bool = False) -> Pixels:
    """Return the upright pixels of a PNG or JPEG, uint8 RGB (height, width, 3), by the rule of dpconvert.image.rgb.

    source: whether the file belongs to a source, so that an image that uses few of its bits (`check_bits`) or more than
    its palette (`check_palette`) is refused.

    Raises:
        KindError: the file is an animation, or the rule does not cover its samples.
        ValueError: the file is not a complete PNG or JPEG, or claims far more pixels than it can contain.
    """
    if data.startswith(JPEG_START):
        pixels = _decode_jpeg(data, scale, source)
    elif data.startswith(PNG_START):
        pixels = _decode_png(data, scale, source)
    else:
        raise ValueError("neither PNG nor JPEG")
    orientation = orientation_of(data)
    return pixels if orientation == 1 else upright(pixels, orientation)


def decode_jpeg2000(data: bytes) -> tuple[NDArray[Any], int] | None:
    """Return the original samples of a JPEG 2000 file and their bits; None if they have 8 bits, as Pillow returns them.

    Pillow rounds colour samples of more than 8 bits, which turns white into black, and shifts those of fewer.

    Raises:
        KindError: the components are of different kinds.
        ValueError: the file is damaged.
    """
    kinds = jpeg2000.precisions(data)
    if kinds <= {(8, False)}:
        return None
    if len(kinds) > 1:
        if max(kinds) <= (8, False) and not any(signed for _, signed in kinds):
            return None
        raise KindError("components of different numbers of bits", "export it with one kind of samples, as RGB")
    try:
        samples: NDArray[Any] = imagecodecs.jpeg2k_decode(data)
    except imagecodecs.Jpeg2kError as error:
        raise ValueError(str(error)) from None
    return samples, kinds.pop()[0]


def is_plain(data: bytes) -> bool:
    """Whether all readers see the same pixels in a PNG or JPEG, even without the rule.

    Such an image has at most 8 bits, is grey, RGB or has a palette (JPEG: grey or RGB, in any compression), is upright,
    has no transparency, and is not an animation.
    """
    if data.startswith(PNG_START):
        bits, colours = data[24], data[25]
        extra = {kind for kind, _ in png_chunks(data)} & {b"tRNS", b"acTL", b"fcTL"}
        usual = bits <= 8 and colours in (GREY, RGB, PALETTE) and not extra
    else:
        usual = _is_plain_jpeg(data)
    return usual and orientation_of(data) == 1


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of each chunk before the image data (PNG, section 5.3)."""
    at = len(PNG_START)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            return
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def _is_plain_jpeg(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF data and large images are handled elsewhere
            with Pillow.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return image.mode in ("L", "RGB")
    except UNREADABLE:
        return False


def _decode_jpeg(data: bytes, scale: Range | None, source: bool) -> Pixels:
    if data.find(JPEG_SCAN, max(data.rfind(JPEG_END), 0)) >= 0:  # libjpeg would fill missing parts with grey
        raise ValueError("the JPEG data end without an end-of-image marker")
    size = checked_size(data)
    if size is None and JPEG_LS in data[:JPEG_HEAD]:
        raise KindError("an image in JPEG-LS, a format that is not read", "convert it to PNG, which loses nothing")
    if size is None:
        return _decode_pillow(data)
    check_claim(*size, len(data))
    try:
        pixels: NDArray[Any] = imagecodecs.jpeg8_decode(data, outcolorspace="RGB")
    except imagecodecs.Jpeg8Error:  # CMYK, which libjpeg does not convert, or damaged: Pillow decides
        return _decode_pillow(data)
    bits = 12 if pixels.dtype == np.uint16 else 8
    if source:
        check_bits(pixels, bits, scale)
    return to_rgb(pixels, bits=bits, scale=scale)


def _decode_png(data: bytes, scale: Range | None, source: bool) -> Pixels:
    if len(data) >= 26:
        width, height, bits, colours = struct.unpack_from(">IIBB", data, 16)
        check_claim(width, height, len(data), PNG_CHANNELS.get(colours, 4) * bits / 8)
    for kind, content in png_chunks(data):
        if kind == b"acTL" and int.from_bytes(content[:4], "big") > 1:
            raise several(int.from_bytes(content[:4], "big"))
    try:
        pixels: NDArray[Any] = imagecodecs.png_decode(data)
    except (imagecodecs.PngError, UnicodeDecodeError) as error:
        raise ValueError(_png_fault(data) or str(error)) from None
    opaque = pixels.ndim == 2 or pixels.shape[2] in (1, 3)
    if source:
        check_bits(pixels if opaque else pixels[:, :, :-1], scale=scale)
        if data[25] == PALETTE:
            _check_palette(data)
    return to_rgb(pixels, opacity="" if opaque else "unassociated", scale=scale)


def _png_fault(data: bytes) -> str:
    """What is wrong with the names of a PNG's chunks, of which the library's message holds arbitrary memory; '' if
    nothing is.
    """
    at = len(PNG_START)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if not kind.isalpha():
            return f"byte {at + 4} is not the name of a chunk"
        at += 12 + length
    return "no image data" if len(data) < len(PNG_START) + 8 else ""


def _check_palette(data: bytes) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which are judged before
            with Pillow.open(io.BytesIO(data), formats=("PNG",)) as image:
                check_palette(image)
    except KindError:
        raise
    except UNREADABLE as error:
        raise ValueError(str(error).partition("\n")[0]) from None


def _decode_pillow(data: bytes) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which are judged here
            image = Pillow.open(io.BytesIO(data), formats=("JPEG",))
        check_claim(*image.size, len(data))
        return np.array(image.convert("RGB"))
    except UNREADABLE as error:
        raise ValueError(str(error).partition("\n")[0]) from None
