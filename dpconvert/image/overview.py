"""Overviews of images of any size, and their resolution."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dpconvert.errors import ReadError
from dpconvert.image.base import Image, Pixels
from dpconvert.manifest.rules import SANE_MPP

GIVE = "give it with --mpp, or as `mpp` in the manifest"
BAND = 1 << 23  # pixels read at once for an overview
PART = 4096  # level-0 rows to read together, so that few rows of tiles are decoded twice


def thumbnail(image: Image, side: int) -> Pixels:
    """Return the whole image with a longer side of `side` px (never enlarged), read in bands of bounded memory."""
    bands = Bands.of(image, side)
    return bands.read(image, 0, len(bands.edges) - 1)


@dataclass(frozen=True)
class Bands:
    """An overview (`width` x `height` px), and the rows that separate the bands in which it is read."""

    width: int
    height: int
    edges: list[int]

    @classmethod
    def of(cls, image: Image, side: int) -> Bands:
        """Return the bands of an overview with a longer side of `side` px."""
        scale = min(1.0, side / max(image.width, image.height))
        size = width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        if image.reduction(image.width, image.height, size) > 1:
            rows = max(1, PART * height // image.height)
        else:
            coarser = image.downsample(image.width, image.height, size)
            rows = max(1, int(BAND * coarser**2 / image.width * height / image.height))
        return cls(width, height, [*range(0, height, rows), height])

    def read(self, image: Image, first: int, last: int) -> Pixels:
        """Read the bands from `first` up to, but not including, `last`."""
        bands = []
        for top, bottom in pairwise(self.edges[first : last + 1]):
            y0, y1 = (edge * image.height // self.height for edge in (top, bottom))
            bands.append(image.overview(0, y0, image.width, y1 - y0, out=(self.width, bottom - top)))
        return np.concatenate(bands)


def resolution(image: Image, given: float | None, where: str, remedy: str = GIVE) -> tuple[float, float]:
    """Return micrometres per level-0 pixel along x and y, from the file, else from the user or the manifest.

    remedy: where the resolution is not known.

    Raises:
        ReadError: the resolution is unknown.
    """
    found = image.spacing.axes or (given and (given, given))
    if not found:
        raise ReadError(
            "states an absurd resolution" if image.spacing.stated else "states no resolution",
            where=where,
            expected=f"{SANE_MPP[0]} to {SANE_MPP[1]} um per pixel",
            found=image.spacing.stated or None,
            remedy=remedy,
        )
    return found


def scales(image: Image, mpp: float | None, given: float | None, where: str, remedy: str = GIVE) -> tuple[float, float]:
    """Return the level-0 pixels, along x and y, per square pixel of `mpp` micrometres; None keeps that of the file.

    If the file's pixels are not square, the coarser axis is kept, so that nothing is enlarged. remedy: as of
    `resolution`.

    Raises:
        ReadError: `mpp` is given, but the resolution of level 0 is unknown.
    """
    if mpp is None:
        across, down = image.spacing.axes or (1.0, 1.0)
        mpp = max(across, down)
    else:
        across, down = resolution(image, given, where, remedy)
    return mpp / across, mpp / down
