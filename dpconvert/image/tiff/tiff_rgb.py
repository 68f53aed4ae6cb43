"""Interpret the tags of a TIFF page, and convert its samples to RGB by the rule of dpconvert.image.rgb."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from dpconvert.image.base import Pixels
from dpconvert.image.guards.allowed_formats import MOST_OF_A_BYTE
from dpconvert.image.guards.jpeg import adobe_transform
from dpconvert.image.guards.libtiff import NEW_JPEG
from dpconvert.image.guards.tiff_segments import STREAMS
from dpconvert.image.rgb import (
    ORIENTATION,
    KindError,
    Opacity,
    Range,
    check_bits,
    to_rgb,
    unknown_range,
    valid_orientation,
)

GREY_INVERTED, GREY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLOURS = {GREY_INVERTED: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}  # channels besides extra samples
OPACITY: dict[int, Opacity] = {1: "associated", 2: "unassociated"}  # ExtraSamples; 0 means something else
APERIO_YCBCR = 33003  # JPEG 2000 of YCbCr, whatever the tag of the colour space says
SIGNIFICANT = re.compile(r'<(?:\w+:)?Pixels\b[^<>]*\bSignificantBits="(\d{1,2})"')
MAX_SAMPLE_VALUE = 281
CHANNELS = "save it in grey or RGB; state an opacity in the tag ExtraSamples"
SIGNED = -(1 << 15)  # c0 in ImageJ's description: what it adds to samples of 16 bits
SAVE_AS_8_BITS = "save it in 8 bits with ImageJ: Image > Type > 8-bit"
LOOKED_AT = 1 << 20  # characters of the OME-XML


def settle_colours(page: tifffile.TiffPage) -> bool:
    """Trust the colour marker of a JPEG stream over the tag if they differ; return whether they did.

    Some writers compress YCbCr but write RGB into the tag. Decoders that use only the tag (libtiff and so OpenSlide)
    show such a file in wrong colours, while its extracted tiles are decoded by the marker.

    Raises:
        OSError: the file cannot be read.
    """
    if page.compression != NEW_JPEG or page.photometric not in (RGB, YCBCR) or page.samplesperpixel != len("RGB"):
        return False
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:  # one channel per stream, without colours
        return False
    stated = adobe_transform(_first_segment(page))
    if stated is None and page.jpegtables:
        stated = adobe_transform(page.jpegtables)
    if stated is None and page.photometric == RGB and page.is_jfif:
        stated = 1
    meant = None if stated is None else {0: RGB, 1: YCBCR}.get(stated)
    if meant is None or meant == page.photometric:
        return False
    page.photometric = tifffile.PHOTOMETRIC(meant)
    return True


def page_rgb(samples: NDArray[Any], page: tifffile.TiffPage, bits: int = 0, scale: Range | None = None) -> Pixels:
    """Convert decoded samples (height, width) or (height, width, channels) of a page to uint8 RGB (height, width, 3).

    bits: see `significant_bits`.

    Raises:
        KindError: the rule does not cover this kind of samples.
    """
    kind = page.photometric
    if kind == PALETTE and page.colormap is not None:
        return to_rgb(samples, palette=_palette(page.colormap))
    return to_rgb(
        samples,
        bits=bits,
        opacity=_opacity(page),
        inverted=kind == GREY_INVERTED,
        space="CMYK" if kind == CMYK else "YCbCr" if _is_ycbcr(page) else "RGB",
        scale=scale,
    )


def _palette(colormap: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the colours (N, 3) of a colour map (3, N): 16 bits, or 8 where some writer put no more, as in libtiff."""
    colours = np.asarray(colormap).T
    return (colours >> 8 if colours.max(initial=0) > MOST_OF_A_BYTE else colours).astype(np.uint8)


def _is_ycbcr(page: tifffile.TiffPage) -> bool:
    """Whether decoded samples are YCbCr; the decoder of JPEG returns RGB, whatever the page states."""
    return page.compression == APERIO_YCBCR or (page.photometric == YCBCR and page.compression in STREAMS)


def check_page_bits(samples: NDArray[Any], page: tifffile.TiffPage, bits: int, scale: Range | None) -> None:
    """Apply `check_bits` to a whole image.

    Raises:
        KindError: the image uses few of its bits.
    """
    if page.photometric != PALETTE:
        colours = samples[..., : COLOURS.get(page.photometric, 1)] if samples.ndim == 3 else samples
        check_bits(colours, bits, scale)


def check_kind(page: tifffile.TiffPage, scale: Range | None) -> None:
    """Refuse a page if the rule does not cover its samples as described by its tags.

    Raises:
        KindError: the samples need a scale, which is not stated, or are signed ones of ImageJ; or there are channels of
            unknown meaning.
        ValueError: the channels, the colour space or the sample type are not supported.
    """
    channels, kind, stored = page.samplesperpixel, page.photometric, page.dtype
    extra = channels - COLOURS.get(kind, channels + 1)
    known = extra == 0 or (extra > 0 and _opacity(page) != "") or (extra == 1 and kind in (RGB, YCBCR))
    if extra > 0 and not known:
        raise KindError(f"{channels} channels, of which {extra} have no known meaning", CHANNELS)
    if stored is None or stored.kind not in "buif" or not known or page.imagedepth != 1:
        raise ValueError(f"{channels} channels of {stored}, photometric {kind}")
    if scale is None and (stored.kind in "if" or stored.itemsize > 2):
        raise unknown_range(stored)
    if stored.kind == "u" and page.parent.is_imagej and (page.parent.imagej_metadata or {}).get("c0") == SIGNED:
        raise KindError("signed samples, which ImageJ keeps as unsigned ones", SAVE_AS_8_BITS)


def significant_bits(page: tifffile.TiffPage) -> int:
    """Return the bits per sample stated in OME-XML or in the tags; 0 for all bits of the type.

    MaxSampleValue is used if it is 2^n - 1, as cameras write it: 4095 means 12 bits.
    """
    if page.dtype is None or page.dtype.kind != "u":
        return 0
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 0
    largest = page.tags.valueof(MAX_SAMPLE_VALUE)
    stated = (max(largest, default=0) if isinstance(largest, tuple) else largest) or 0
    if isinstance(stated, int) and stated.bit_count() == stated.bit_length() and 8 < stated.bit_length() < bits:
        bits = stated.bit_length()
    found = SIGNIFICANT.search((page.parent.ome_metadata or "")[:LOOKED_AT]) if page.parent.is_ome else None
    return min(bits, int(found[1])) if found and int(found[1]) else bits


def bits_per_pixel(page: tifffile.TiffPage) -> int:
    """Return the bits per pixel as packed in the file."""
    bits = page.bitspersample
    return page.samplesperpixel * (bits if isinstance(bits, int) else max(bits))


def orientation_of_page(page: tifffile.TiffPage) -> int:
    """Return the orientation of a page."""
    return valid_orientation(page.tags.valueof(ORIENTATION))


def _opacity(page: tifffile.TiffPage) -> Opacity:
    extra = page.extrasamples
    return OPACITY.get(int(extra[0]), "") if extra else ""


def _first_segment(page: tifffile.TiffPage) -> bytes:
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if offset and count:
            page.parent.filehandle.seek(offset)
            return bytes(page.parent.filehandle.read(min(count, 1 << 16)))
    return b""
