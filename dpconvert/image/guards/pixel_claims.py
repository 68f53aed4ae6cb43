"""Limit the pixels that a file may claim: no format compresses gigabytes into a few bytes."""

from __future__ import annotations

FREE, RATIO = 1 << 26, 1500  # decoded bytes that are always allowed; maximum decoded bytes per stored byte beyond that
MOST_PIXELS = 178_956_970  # pixels of an image in memory: Pillow's limit, half a gigabyte of RGB


class TooLargeError(ValueError):
    """An image has more than MOST_PIXELS pixels."""


class ClaimError(ValueError):
    """A file claims far more pixels than it can contain."""


def check_claim(width: int, height: int, stored: int, bytes_per_pixel: float = 3.0) -> None:
    """Refuse a file of `stored` bytes that claims far more samples than it can contain.

    bytes_per_pixel: size of the packed samples, 1 for 8-bit grey. Deflate packs at most 1032 of them into one byte, so
    an empty mask of any size is valid.

    Raises:
        ClaimError: the file claims too many samples.
        TooLargeError: the file may contain them, but they are too many to hold in memory.
    """
    if width * height * bytes_per_pixel > max(FREE, RATIO * stored):
        raise ClaimError(f"claims {width} x {height} pixels in {stored} bytes")
    if width * height > MOST_PIXELS:
        raise TooLargeError(f"{width} x {height} pixels, too many to be held at once")
