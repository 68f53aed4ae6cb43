"""Bytes of one picture in, RGB pixels out: a uint8 tensor (3, height, width), channels last in memory.

Rules: grey is repeated over three channels; transparency is composited on white; a palette is looked up; of 16 bits the
upper eight are kept. Orientation tags are not applied: labels refer to the pixels as stored.
"""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
WHITE = 255


def decode(data: bytes) -> Tensor:
    """The picture in `data`, as (3, height, width) uint8.

    Raises:
        ValueError: not a complete PNG or JPEG picture.
    """
    if data.startswith(JPEG_START):
        pixels = _decode_jpeg(data)
    elif data.startswith(PNG_START):
        pixels = _decode_png(data)
    else:
        raise ValueError("neither PNG nor JPEG")
    return torch.from_numpy(_rgb(pixels)).permute(2, 0, 1)


def _decode_jpeg(data: bytes) -> npt.NDArray[Any]:
    if data.find(JPEG_SCAN, max(data.rfind(JPEG_END), 0)) >= 0:  # libjpeg would fill what is missing with grey
        raise ValueError("the JPEG stream has no end")
    try:
        pixels: npt.NDArray[Any] = imagecodecs.jpeg8_decode(data, outcolorspace="RGB")
    except imagecodecs.Jpeg8Error:  # CMYK, which libjpeg does not convert, or damaged: Pillow tells
        return _decode_pillow(data)
    return pixels


def _decode_png(data: bytes) -> npt.NDArray[Any]:
    try:
        pixels: npt.NDArray[Any] = imagecodecs.png_decode(data)
    except imagecodecs.PngError as error:
        raise ValueError(str(error)) from None
    return pixels


def _decode_pillow(data: bytes) -> npt.NDArray[Any]:
    try:
        return np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None


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
