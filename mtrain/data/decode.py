"""Bytes of one picture in, RGB pixels out: uint8, (height, width, 3) in memory.

Rules: grey is repeated over three channels; transparency is composited on white; a palette is looked up; of 16 bits the
upper eight are kept. Orientation tags are not applied: labels refer to the pixels as stored.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from dpconvert.image.guards.jpeg import checked_size
from dpconvert.image.guards.libtiff import UNREADABLE

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
WHITE = 255
FREE, RATIO = 1 << 26, 1500  # decoded bytes that need no proof; how many a stored byte may stand for beyond them


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """The picture in `data`, as (height, width, 3) uint8.

    Raises:
        ValueError: not a complete PNG or JPEG picture, or one that claims far more pixels than it can hold.
    """
    if data.startswith(JPEG_START):
        pixels = _decode_jpeg(data)
    elif data.startswith(PNG_START):
        pixels = _decode_png(data)
    else:
        raise ValueError("neither PNG nor JPEG")
    return _rgb(pixels)


def _decode_jpeg(data: bytes) -> npt.NDArray[Any]:
    if data.find(JPEG_SCAN, max(data.rfind(JPEG_END), 0)) >= 0:  # libjpeg would fill what is missing with grey
        raise ValueError("the JPEG stream has no end")
    size = checked_size(data)
    if size is None:
        return _decode_pillow(data)
    _check_claim(data, *size)
    try:
        pixels: npt.NDArray[Any] = imagecodecs.jpeg8_decode(data, outcolorspace="RGB")
    except imagecodecs.Jpeg8Error:  # CMYK, which libjpeg does not convert, or damaged: Pillow tells
        return _decode_pillow(data)
    return pixels


def _decode_png(data: bytes) -> npt.NDArray[Any]:
    if len(data) >= 24:
        _check_claim(data, *struct.unpack_from(">II", data, 16))
    try:
        pixels: npt.NDArray[Any] = imagecodecs.png_decode(data)
    except imagecodecs.PngError as error:
        raise ValueError(str(error)) from None
    return pixels


def _decode_pillow(data: bytes) -> npt.NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, which are judged here
            picture = Image.open(io.BytesIO(data), formats=("JPEG",))
        _check_claim(data, *picture.size)
        return np.array(picture.convert("RGB"))
    except UNREADABLE as error:
        raise ValueError(str(error).partition("\n")[0]) from None


def _check_claim(data: bytes, width: int, height: int) -> None:
    if 3 * width * height > max(FREE, RATIO * len(data)):
        raise ValueError(f"it claims {width} x {height} pixels in {len(data)} bytes")


def _rgb(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(h, w), or (h, w, 1 to 4) with the opacity last when there are 2 or 4 channels, to (h, w, 3) uint8."""
    if pixels.dtype == np.uint16:
        pixels = pixels >> 8
    pixels = pixels.astype(np.uint8, copy=False)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[-1] in (2, 4):
        opacity = pixels[..., -1:].astype(np.uint16)
        over_white = pixels[..., :-1] * opacity + WHITE * (WHITE - opacity) + WHITE // 2
        pixels = (over_white // WHITE).astype(np.uint8)
    return pixels if pixels.shape[-1] == 3 else np.repeat(pixels, 3, axis=-1)
