"""Overviews of images of any size, and their resolution."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dpconvert.errors import ReadError
from dpconvert.image.base import Image, Pixels
from dpconvert.manifest.rules import SANE_MPP

BAND = 1 << 23  # pixels read at once for an overview
PART = 4096  # level-0 rows that are read together where a row of tiles is decoded for few of them


def thumbnail(image: Image, side: int) -> Pixels:
    """The whole image with its longer side `side` px (never enlarged), read in bands of bounded memory."""
    bands = Bands.of(image, side)
    return bands.read(image, 0, len(bands.edges) - 1)


@dataclass(frozen=True)
class Bands:
    """An overview (`width` x `height` px) and the rows between which it is read at once, whoever reads them."""

    width: int
    height: int
    edges: list[int]

    @classmethod
    def of(cls, image: Image, side: int) -> Bands:
        """Those of the overview whose longer side is `side` px."""
        scale = min(1.0, side / max(image.width, image.height))
        size = width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        if image.reduction(image.width, image.height, size) > 1:
            rows = max(1, PART * height // image.height)
        else:
            coarser = image.downsample(image.width, image.height, size)
            rows = max(1, int(BAND * coarser**2 / image.width * height / image.height))
        return cls(width, height, [*range(0, height, rows), height])

    def read(self, image: Image, first: int, last: int) -> Pixels:
        """The bands from number `first` up to `last`, which is not among them."""
        bands = []
        for top, bottom in pairwise(self.edges[first : last + 1]):
            y0, y1 = (edge * image.height // self.height for edge in (top, bottom))
            bands.append(image.overview(0, y0, image.width, y1 - y0, out=(self.width, bottom - top)))
        return np.concatenate(bands)


def resolution(image: Image, told: float | None, where: str) -> tuple[float, float]:
    """Micrometres per pixel at level 0 along x and y: the file's own, else what the user or the manifest told.

    Raises:
        ReadError: nobody knows.
    """
    found = image.spacing.axes or (told and (told, told))
    if not found:
        raise ReadError(
            "states an absurd resolution" if image.spacing.stated else "states no resolution",
            where=where,
            expected=f"{SANE_MPP[0]} to {SANE_MPP[1]} um per pixel",
            found=image.spacing.stated or None,
            remedy="give it with --mpp, or as `mpp` in the manifest",
        )
    return found


def scales(image: Image, mpp: float | None, told: float | None, where: str) -> tuple[float, float]:
    """Level-0 pixels, along x and y, in a square pixel of `mpp` micrometres; None: as wide as the file's own.

    Where the file's own are not square, they are taken as wide as along the coarser axis: nothing is enlarged.

    Raises:
        ReadError: `mpp` is given, and nobody knows the resolution of level 0.
    """
    if mpp is None:
        across, down = image.spacing.axes or (1.0, 1.0)
        mpp = max(across, down)
    else:
        across, down = resolution(image, told, where)
    return mpp / across, mpp / down
