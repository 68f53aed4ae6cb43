"""The rule that converts samples of any kind to the 8-bit RGB pixels that the programs work on.

Every decoder passes its samples to `to_rgb` and states their kind:

    bits        the upper eight of N bits are kept; fewer than eight are stretched to 0 to 255
    other kinds signed, floating-point and 32-bit samples have no defined white: refused without a `range`
    palette     looked up; an index without a colour is refused
    grey        repeated; complemented if MinIsWhite ("inverted")
    CMYK        each of R, G, B is (255 - ink) (255 - black) / 255
    YCbCr       that of JPEG: ITU-R BT.601 in full range
    opacity     composited over white after conversion to 8 bits; associated (premultiplied) opacity is supported
    orientation EXIF's and TIFF's tag is applied: pixels are upright, as viewers show them

ICC profiles and gamma are not applied. docs/format.md states the same for readers of shards.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.image.base import WHITE, Pixels, over
from dpconvert.image.guards.libtiff import UNREADABLE

STATE_RANGE = "state which samples are black and white in the manifest, as `range = [0, {}]` under [pixels]"
ONE_IMAGE = "save the one that is meant as a file of its own"

NO_COLOUR = "save it again with the program that shows it as it should be"
MOST_COLOURS = 256  # of a palette

Range = tuple[float, float]  # samples that become 0 and 255
Opacity = Literal["", "associated", "unassociated"]
Space = Literal["RGB", "CMYK", "YCbCr"]  # for three or more channels
ORIENTATION = 274  # EXIF's and TIFF's tag
TURNED = (5, 6, 7, 8)  # orientations that swap width and height
JPEG_SCAN = b"\xff\xda"
MAY_TURN = b"Exif", b"eXIf", b"Orientation", b"exif"  # a PNG or JPEG without these words has no orientation
MANY = 100  # a white of as many is one of levels, not of fractions
STANDARDIZED = 3  # samples from -1 to 1, or less a mean and divided by a deviation, lie within this of 0
FEW_BELOW = 0.05  # share of the samples far below black
FAR_ABOVE, MOST_ABOVE = 2, 0.5  # times white, beyond which no more than this share of the samples may lie
UNUSED = 2  # upper bits; an image of more than 8 bits that uses none of them has fewer bits, or is black


class KindError(ValueError):
    """The rule does not cover an image; the error states what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


def to_rgb(
    samples: NDArray[Any],
    *,
    bits: int = 0,
    opacity: Opacity = "",
    palette: NDArray[np.uint8] | None = None,
    inverted: bool = False,
    space: Space = "RGB",
    scale: Range | None = None,
) -> Pixels:
    """Convert samples (height, width) or (height, width, channels) to uint8 RGB (height, width, 3).

    bits: significant bits per sample, 0 for all of its type. opacity: the kind of the last channel beyond grey or RGB;
    "" ignores it. palette: colours (N, 3) by index. scale: see `eight_bits`.

    Raises:
        KindError: the rule does not cover this kind of samples, or an index has no colour in the palette.
        ValueError: the rule does not cover this number of channels.
    """
    planes = samples[:, :, None] if samples.ndim == 2 else samples
    if palette is not None:
        check_indexes(planes[:, :, 0], len(palette))
        return np.ascontiguousarray(palette[planes[:, :, 0].astype(np.intp)])
    channels = planes.shape[2]
    colours = 4 if space == "CMYK" else 3 if channels >= 3 else 1
    if colours > channels:
        raise ValueError(f"{channels} channels of {space}")
    shown = eight_bits(planes[:, :, : colours + bool(opacity)], bits, scale)
    colour = shown[:, :, :colours]
    if inverted:
        colour = 255 - colour
    if space != "RGB" and colours >= 3:
        colour = np.asarray(Pillow.fromarray(np.ascontiguousarray(colour), space).convert("RGB"))
    if colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    if opacity and channels > colours:
        return _over_white(colour, shown[:, :, colours:], opacity)
    return np.ascontiguousarray(colour)


def eight_bits(samples: NDArray[Any], bits: int = 0, scale: Range | None = None) -> NDArray[np.uint8]:
    """Convert samples to 8 bits: unsigned ones by their upper eight bits, others by `scale`.

    scale: the sample values that become 0 and 255; values beyond are clipped. Samples of up to 8 bits need no scale.

    Raises:
        KindError: the samples are signed, floating-point or 32-bit, and there is no scale.
    """
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * 255
    bits = bits or 8 * samples.dtype.itemsize
    if samples.dtype == np.uint8 and bits == 8:
        return samples
    if samples.dtype.kind == "u" and bits < 8:
        return (samples.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
    if scale is not None:
        low, high = scale
        found = (np.nan_to_num(samples.astype(np.float64)) - low) / (high - low) * 255
        return (found.clip(0, 255) + 0.5).astype(np.uint8)
    if samples.dtype.kind != "u" or bits > 16:
        raise unknown_range(samples.dtype, _white(samples))
    return (samples >> (bits - 8)).clip(0, 255).astype(np.uint8)


def check_bits(samples: NDArray[Any], bits: int = 0, scale: Range | None = None) -> None:
    """Refuse an image that states more bits than it uses: 12 bits kept in 16 would come out nearly black.

    Raises:
        KindError: the largest sample is not 0, but below a quarter of the range of its bits; or fractions of 1 have a
            `scale` of levels, or the reverse.
    """
    bits = bits or 8 * samples.dtype.itemsize
    if scale is not None and samples.dtype.kind != "b" and bits > 8:
        _check_scale(samples, scale)
    if scale is not None or samples.dtype.kind != "u" or not 8 < bits <= 16:
        return
    largest = int(samples.max(initial=0))
    if 0 < largest < 1 << (bits - UNUSED):
        fewer = max(largest.bit_length(), 8)
        raise KindError(
            f"no sample above {largest}, where {bits} bits reach to {(1 << bits) - 1}: of {fewer} bits?",
            STATE_RANGE.format((1 << fewer) - 1),
        )


def _check_scale(samples: NDArray[Any], scale: Range) -> None:
    """Refuse fractions of 1 whose white is stated to be far above 1, and levels whose white is stated to be 1: they
    would become black, or white. So would samples around 0, as networks take them, where black is stated to be 0, and
    samples of 16 bits whose white is stated to be that of 12.
    """
    (low, high), numbers = scale, np.nan_to_num(samples)
    smallest, largest = float(numbers.min(initial=0)), float(numbers.max(initial=0))
    has_fractions = bool((numbers != numbers.round()).any())
    are_fractions = smallest >= 0 and 0 < largest <= 1 and has_fractions
    are_standardized = -STANDARDIZED <= smallest < 0 and largest <= STANDARDIZED and has_fractions and low >= 0
    many_above = float((numbers > low + FAR_ABOVE * (high - low)).mean() if numbers.size else 0) > MOST_ABOVE
    many_below = are_standardized and bool((numbers < low - (high - low) / 10).mean() > FEW_BELOW)
    are_levels = largest >= MANY and not ((numbers > low) & (numbers < high)).any()
    if ((are_fractions or are_standardized) and high >= MANY) or (are_levels and high <= 1) or many_below or many_above:
        raise KindError(
            f"samples from {smallest:g} to {largest:g}, where `range` under [pixels] states {low:g} to {high:g}",
            "correct the range in the manifest",
        )


def check_indexes(indexes: NDArray[Any], known: int) -> None:
    """Refuse indexes beyond a palette of `known` colours, which decoders show as black or in any colour.

    Raises:
        KindError: there is such an index.
    """
    largest = int(indexes.max(initial=0))
    if largest >= known:
        raise KindError(
            f"an index that its palette gives no colour: {largest}, where it has 0 to {known - 1}", NO_COLOUR
        )


def check_palette(image: Pillow.Image) -> None:
    """Apply `check_indexes` to an image that Pillow opened, which it decodes if it has fewer colours than indexes.

    Raises:
        KindError: an index has no colour.
    """
    if image.mode == "P" and image.palette is not None:
        channels, _, _ = (image.palette.rawmode or image.palette.mode).partition(";")  # "RGB;L": of a TIFF, in planes
        known = len(image.palette.palette) // len(channels)
        if known < MOST_COLOURS:
            check_indexes(np.asarray(image), known)


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn pixels (height, width, ...) upright, by EXIF's orientation 1 to 8 (TIFF 6.0, section 8)."""
    if orientation in TURNED:
        pixels = np.swapaxes(pixels, 0, 1)
    down, across = FLIPPED.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::down, ::across])


# steps along rows and columns after the axes are swapped
FLIPPED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


def orientation_of(data: bytes) -> int:
    """Return the orientation of a PNG or JPEG that Pillow finds in EXIF or XMP; 1 (upright) by default."""
    scan = data.find(JPEG_SCAN) if data.startswith(JPEG_SCAN[:1]) else -1  # all metadata of a JPEG precedes the scan
    end = scan if scan >= 0 else len(data)
    if not any(data.find(word, 0, end) >= 0 for word in MAY_TURN):
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about damaged EXIF data, which is ignored
            with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                return valid_orientation(image.getexif().get(ORIENTATION))
    except UNREADABLE:
        return 1


def _white(samples: NDArray[Any]) -> int:
    """Return what white may be in samples of whole numbers: the largest of 8, 9, ... bits; 0 if that is unknown."""
    largest = int(samples.max(initial=0)) if samples.dtype.kind in "ui" else 0
    return (1 << max(largest.bit_length(), 8)) - 1 if largest > 0 else 0


def unknown_range(kind: np.dtype[Any], white: int = 0) -> KindError:
    """Return the error for samples whose black and white are not stated. white: what it may be, 0 if unknown."""
    example = white or (1 if kind.kind == "f" else np.iinfo(kind).max)
    return KindError(f"{kind} samples: which are black and which are white is not known", STATE_RANGE.format(example))


def several(frames: int) -> KindError:
    """Return the error for an animation."""
    return KindError(f"an animation of {frames} images, where one is expected", ONE_IMAGE)


def valid_orientation(stated: object) -> int:
    """Return an orientation from 1 to 8; any other value of the tag counts as upright, as in viewers."""
    return stated if isinstance(stated, int) and 1 <= stated <= 8 else 1


def _over_white(colour: NDArray[np.uint8], opacity: NDArray[np.uint8], kind: Opacity) -> Pixels:
    if kind == "unassociated":
        return over(np.concatenate([colour, opacity], axis=2), WHITE)
    laid = colour.astype(np.uint16) + (255 - opacity.astype(np.uint16))
    return laid.clip(0, 255).astype(np.uint8)
