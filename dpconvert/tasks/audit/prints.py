"""A picture in, its prints out: a digest of its pixels, and the waves that it is made of.

The waves are the lowest SIDE x SIDE coefficients of the cosine transform (DCT-II) of the picture in grey, stretched to
a square, as in perceptual hashing (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010).
They hardly change when a picture is scaled or compressed again. Mirroring changes the signs of odd ones alone, and
turning besides exchanges rows and columns, so that all eight positions of a picture can be compared by their waves.
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
EVEN = 3.0  # grey levels; a picture that varies less has no waves to compare
DIGEST = 16  # bytes
# What pictures hold falls with the frequency: weighted so, all waves count alike in a comparison.
WEIGHTS = np.hypot(*np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")).astype(np.float32)


@dataclass(frozen=True)
class Prints:
    """Of N pictures. pixels: (N, DIGEST) uint8; waves: (N, SIDE, SIDE) int8; even: (N,), too even to be compared."""

    pixels: NDArray[np.uint8]
    waves: NDArray[np.int8]
    even: NDArray[np.bool_]

    @classmethod
    def empty(cls, count: int) -> Prints:
        """Space for `count` pictures."""
        waves = np.zeros((count, SIDE, SIDE), np.int8)
        return cls(np.zeros((count, DIGEST), np.uint8), waves, np.zeros(count, bool))

    def put(self, places: NDArray[np.intp], others: Prints) -> None:
        """Write others' prints to these places."""
        self.pixels[places], self.waves[places], self.even[places] = others.pixels, others.waves, others.even


def prints(pictures: list[bytes], names: list[str]) -> Prints:
    """The prints of PNG or JPEG pictures.

    Raises:
        ShardError: one does not decode; `names` says which.
    """
    found = Prints.empty(len(pictures))
    for i, (data, name) in enumerate(zip(pictures, names, strict=True)):
        grey = _decoded(data, name, found.pixels[i])
        found.waves[i], found.even[i] = waves(grey), grey.std() < EVEN
    return found


def waves(grey: NDArray[np.float32]) -> NDArray[np.int8]:
    """The weighted waves of a square picture, scaled so that the largest is 127."""
    weighted = fft.dctn(grey, norm="ortho")[:SIDE, :SIDE] * WEIGHTS
    largest = max(float(np.abs(weighted).max()), 1e-6)
    scaled: NDArray[np.int8] = np.rint(weighted * (127 / largest)).astype(np.int8)
    return scaled


def _decoded(data: bytes, name: str, digest: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The picture in grey, SQUARE x SQUARE; the digest of its size and RGB pixels is written to `digest`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of was judged when it was converted
            with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
                picture.load()
                deep = picture.mode.startswith("I")
                eight = Pillow.fromarray((np.asarray(picture) >> 8).astype(np.uint8)) if deep else picture
                rgb = eight.convert("RGB")
    except UNREADABLE as error:
        raise ShardError(f"a picture does not decode: {error}", where=name, remedy="convert it again") from None
    told = hashlib.sha256(f"{rgb.width} {rgb.height} ".encode() + rgb.tobytes()).digest()[:DIGEST]
    digest[:] = np.frombuffer(told, np.uint8)
    return np.asarray(rgb.convert("L").resize((SQUARE, SQUARE), Pillow.Resampling.BOX), np.float32)
