"""Computes the prints of an image: a digest of its pixels, and its waves.

The waves are the lowest SIDE x SIDE coefficients of the cosine transform (DCT-II) of the grey image, stretched to a
square, as in perceptual hashing (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010).
They hardly change when an image is rescaled or recompressed. Mirroring only flips the signs of odd ones, and rotating
also exchanges rows and columns, so that all eight orientations of an image can be compared by their waves.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy import fft

from dpconvert.errors import ShardError
from dpconvert.image.guards.libtiff import UNREADABLE

SIDE = 16
SQUARE = 64  # px
EVEN = 3.0  # grey levels; an image that varies less has no waves to compare
DIGEST = 16  # bytes
# The energy of images falls with the frequency: with these weights, all waves count equally.
WEIGHTS = np.hypot(*np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")).astype(np.float32)


@dataclass(frozen=True)
class Prints:
    """The prints of N images. pixels: (N, DIGEST) uint8. waves: (N, SIDE, SIDE) int8. even: (N,) too uniform."""

    pixels: NDArray[np.uint8]
    waves: NDArray[np.int8]
    even: NDArray[np.bool_]

    @classmethod
    def empty(cls, count: int) -> Prints:
        """Space for `count` images."""
        waves = np.zeros((count, SIDE, SIDE), np.int8)
        return cls(np.zeros((count, DIGEST), np.uint8), waves, np.zeros(count, bool))

    def put(self, places: NDArray[np.intp], others: Prints) -> None:
        """Write others' prints to these places."""
        self.pixels[places], self.waves[places], self.even[places] = others.pixels, others.waves, others.even


def prints(images: list[bytes], names: list[str]) -> Prints:
    """The prints of PNG or JPEG images.

    Raises:
        ShardError: an image cannot be decoded; `names` identifies it.
    """
    result = Prints.empty(len(images))
    for i, (data, name) in enumerate(zip(images, names, strict=True)):
        grey = _decoded(data, name, result.pixels[i])
        result.waves[i], result.even[i] = waves(grey), grey.std() < EVEN
    return result


def waves(grey: NDArray[np.float32]) -> NDArray[np.int8]:
    """The weighted waves of a square image, scaled so that the largest is 127."""
    weighted = fft.dctn(grey, norm="ortho")[:SIDE, :SIDE] * WEIGHTS
    largest = max(float(np.abs(weighted).max()), 1e-6)
    scaled: NDArray[np.int8] = np.rint(weighted * (127 / largest)).astype(np.int8)
    return scaled


def _decoded(data: bytes, name: str, digest: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The image in grey, SQUARE x SQUARE. The digest of its size and RGB pixels is written to `digest`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the conversion has dealt with whatever Pillow warns about
            with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                image.load()
                deep = image.mode.startswith("I")
                eight = Pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if deep else image
                rgb = eight.convert("RGB")
    except UNREADABLE as error:
        raise ShardError(f"image cannot be decoded: {error}", where=name, remedy="convert the source again") from None
    sha256 = hashlib.sha256(f"{rgb.width} {rgb.height} ".encode() + rgb.tobytes()).digest()
    digest[:] = np.frombuffer(sha256[:DIGEST], np.uint8)
    return np.asarray(rgb.convert("L").resize((SQUARE, SQUARE), Pillow.Resampling.BOX), np.float32)
