"""What the tags of a TIFF's page say of its samples, and the samples as RGB by the one rule (dpconvert.image.rgb)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from dpconvert.image.base import Pixels
from dpconvert.image.guards.jpeg import adobe_transform
from dpconvert.image.guards.libtiff import NEW_JPEG
from dpconvert.image.guards.tiff_segments import STREAMS
from dpconvert.image.rgb import ORIENTATION, Opacity, Range, check_bits, to_rgb, unknown_range, valid_orientation

GREY_INVERTED, GREY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLOURS = {GREY_INVERTED: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}  # channels that are no extra samples
OPACITY: dict[int, Opacity] = {1: "associated", 2: "unassociated"}  # ExtraSamples; 0 says that it is something else
SIGNIFICANT = re.compile(r'<(?:\w+:)?Pixels\b[^<>]*\bSignificantBits="(\d{1,2})"')
MAX_SAMPLE_VALUE = 281
LOOKED_AT = 1 << 20  # characters of OME's XML


def settle_colours(page: tifffile.TiffPage) -> bool:
    """Believe a JPEG stream's own marker of its colours where the tag says otherwise; whether it did.

    Some writers compress YCbCr and leave the tag at RGB. Decoders that go by the tag alone (libtiff, so OpenSlide) show
    such a file in wrong colours; cut out of the TIFF, its tiles are decoded by the marker.

    Raises:
        OSError: the file cannot be read.
    """
    if page.compression != NEW_JPEG or page.photometric not in (RGB, YCBCR) or page.samplesperpixel != len("RGB"):
        return False
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:  # each stream is of one colour, and says nothing of them
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
    """Decoded samples (height, width) or (height, width, channels) of a page as uint8 RGB (height, width, 3).

    bits: see `significant_bits`.

    Raises:
        KindError: a kind of samples that the rule has nothing for.
    """
    kind = page.photometric
    if kind == PALETTE and page.colormap is not None:
        return to_rgb(samples, palette=(np.asarray(page.colormap) >> 8).astype(np.uint8).T)
    return to_rgb(
        samples,
        bits=bits,
        opacity=_opacity(page),
        inverted=kind == GREY_INVERTED,
        space="CMYK" if kind == CMYK else "YCbCr" if kind == YCBCR and page.compression in STREAMS else "RGB",
        scale=scale,
    )


def check_page_bits(samples: NDArray[Any], page: tifffile.TiffPage, bits: int, scale: Range | None) -> None:
    """See `check_bits`; of a whole image.

    Raises:
        KindError: it uses few of its bits.
    """
    if page.photometric != PALETTE:
        colours = samples[..., : COLOURS.get(page.photometric, 1)] if samples.ndim == 3 else samples
        check_bits(colours, bits, scale)


def check_kind(page: tifffile.TiffPage, scale: Range | None) -> None:
    """Refuse a page whose samples the rule has nothing for, as its tags describe them.

    Raises:
        KindError: its samples need a scale that is not stated.
        ValueError: channels, or a kind of colours or of samples, that are not known here.
    """
    channels, kind, stored = page.samplesperpixel, page.photometric, page.dtype
    extra = channels - COLOURS.get(kind, channels + 1)
    known = extra == 0 or (extra > 0 and _opacity(page) != "") or (extra == 1 and kind in (RGB, YCBCR))
    if stored is None or stored.kind not in "buif" or not known or page.imagedepth != 1:
        raise ValueError(f"{channels} channels of {stored}, photometric {kind}")
    if scale is None and (stored.kind in "if" or stored.itemsize > 2):
        raise unknown_range(stored)


def significant_bits(page: tifffile.TiffPage) -> int:
    """Bits of a sample as the file states them, in OME's XML or its own tags; 0 for all of its type.

    MaxSampleValue counts where it is all ones, as of cameras: 4095 says 12 bits.
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
    """As the file packs them."""
    bits = page.bitspersample
    return page.samplesperpixel * (bits if isinstance(bits, int) else max(bits))


def orientation_of_page(page: tifffile.TiffPage) -> int:
    """How a page is to be turned."""
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
