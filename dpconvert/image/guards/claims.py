"""How many pixels a file may claim: no format packs images so well that a few bytes could hold gigabytes."""

from __future__ import annotations

FREE, RATIO = 1 << 26, 1500  # decoded bytes that need no proof; how many a stored byte may stand for beyond them
MOST_PIXELS = 178_956_970  # of an image that is held as a whole: Pillow's limit, half a gigabyte of RGB


class TooLargeError(ValueError):
    """An image of more than MOST_PIXELS."""


class ClaimError(ValueError):
    """A file claims far more pixels than it can hold."""


def check_claim(width: int, height: int, stored: int, bytes_per_pixel: float = 3.0) -> None:
    """Refuse a file of `stored` bytes that claims far more samples than it can hold.

    bytes_per_pixel: of the samples as the format packs them, 1 for 8-bit grey: deflate packs at most 1032 of them into
    a byte, so that an empty mask of any size is a good file.

    Raises:
        ClaimError: it does.
        TooLargeError: it may well hold them, but they are too many to be held as a whole.
    """
    if width * height * bytes_per_pixel > max(FREE, RATIO * stored):
        raise ClaimError(f"claims {width} x {height} pixels in {stored} bytes")
    if width * height > MOST_PIXELS:
        raise TooLargeError(f"{width} x {height} pixels, too many to be held at once")
