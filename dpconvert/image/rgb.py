"""The one rule by which samples of any kind become the 8-bit RGB pixels that everything here works on.

Whoever decodes a file, and whatever with, hands its samples to `to_rgb` and says what they are:

    bits        of N bits the upper eight are kept; fewer than eight are stretched to 0 to 255
    other kinds signed, floating-point and 32-bit samples have no white of their own: refused without a `range`
    palette     looked up
    grey        repeated; of MinIsWhite ("inverted") the complement
    CMYK        each of R, G, B is what its ink and black leave: (255 - ink) (255 - black) / 255
    YCbCr       JPEG's, of ITU-R BT.601 in full range
    opacity     laid over white, after its samples have become 8 bits; associated (premultiplied) opacity is told apart
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

Range = tuple[float, float]  # samples that become 0 and 255
Opacity = Literal["", "associated", "unassociated"]
Space = Literal["RGB", "CMYK", "YCbCr"]  # of three channels or more
ORIENTATION = 274  # EXIF's and TIFF's tag
TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
JPEG_SCAN = b"\xff\xda"
MAY_TURN = b"Exif", b"eXIf", b"Orientation", b"exif"  # without one of these words no PNG or JPEG states an orientation
UNUSED = 2  # upper bits: an image of more than eight that uses none of these is one of fewer bits, or black


class KindError(ValueError):
    """An image that the rule has no pixels for, and what to do about it."""

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
    """Samples (height, width) or (height, width, channels) as uint8 RGB (height, width, 3).

    bits: significant bits of a sample, 0 for all of its type. opacity: what the last channel is, beyond grey or RGB;
    "" ignores it. palette: colours (N, 3) by index. scale: see `eight_bits`.

    Raises:
        KindError: a kind of samples that the rule has nothing for.
        ValueError: a number of channels that it has nothing for.
    """
    planes = samples[:, :, None] if samples.ndim == 2 else samples
    if palette is not None:
        return np.ascontiguousarray(palette[planes[:, :, 0].astype(np.intp).clip(0, len(palette) - 1)])
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
    """Samples of any kind as 8 bits: unsigned ones by their upper eight bits, others by the `scale` that is stated.

    scale: the samples that become 0 and 255; what lies beyond is cut off. Samples of at most 8 bits need none.

    Raises:
        KindError: signed, floating-point or 32-bit samples without a scale.
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
        raise unknown_range(samples.dtype)
    return (samples >> (bits - 8)).clip(0, 255).astype(np.uint8)


def check_bits(samples: NDArray[Any], bits: int = 0, scale: Range | None = None) -> None:
    """Refuse an image that states more bits than it uses: 12 bits kept in 16 would come out nearly black.

    Raises:
        KindError: its largest sample, not 0, is below a quarter of what its bits reach to.
    """
    bits = bits or 8 * samples.dtype.itemsize
    if scale is not None or samples.dtype.kind != "u" or not 8 < bits <= 16:
        return
    largest = int(samples.max(initial=0))
    if 0 < largest < 1 << (bits - UNUSED):
        fewer = max(largest.bit_length(), 8)
        raise KindError(
            f"no sample above {largest}, where {bits} bits reach to {(1 << bits) - 1}: of {fewer} bits?",
            STATE_RANGE.format((1 << fewer) - 1),
        )


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels (height, width, ...) as they are to be seen, by EXIF's orientation 1 to 8 (TIFF 6.0, section 8)."""
    if orientation in TURNED:
        pixels = np.swapaxes(pixels, 0, 1)
    down, across = FLIPPED.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::down, ::across])


# after the exchange of axes: steps down and across
FLIPPED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


def orientation_of(data: bytes) -> int:
    """The orientation that a PNG or JPEG states, as Pillow finds it in EXIF or XMP; 1, upright, where there is none."""
    scan = data.find(JPEG_SCAN) if data.startswith(JPEG_SCAN[:1]) else -1  # before which a JPEG states all
    end = scan if scan >= 0 else len(data)
    if not any(data.find(word, 0, end) >= 0 for word in MAY_TURN):
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged EXIF part, which then states nothing
            with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                return valid_orientation(image.getexif().get(ORIENTATION))
    except UNREADABLE:
        return 1


def unknown_range(kind: np.dtype[Any]) -> KindError:
    """What to raise for samples of a kind whose black and white nothing states."""
    example = 1 if kind.kind == "f" else np.iinfo(kind).max
    return KindError(f"{kind} samples: which are black and which are white is not known", STATE_RANGE.format(example))


def several(frames: int) -> KindError:
    """What to raise for an animation."""
    return KindError(f"an animation of {frames} images, where one is expected", ONE_IMAGE)


def valid_orientation(stated: object) -> int:
    """1 to 8; whatever else a tag holds is upright, as viewers take it."""
    return stated if isinstance(stated, int) and 1 <= stated <= 8 else 1


def _over_white(colour: NDArray[np.uint8], opacity: NDArray[np.uint8], kind: Opacity) -> Pixels:
    if kind == "unassociated":
        return over(np.concatenate([colour, opacity], axis=2), WHITE)
    laid = colour.astype(np.uint16) + (255 - opacity.astype(np.uint16))
    return laid.clip(0, 255).astype(np.uint8)
