"""Overviews of pictures of any size, and where tissue is on them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpconvert.errors import ReadError
from dpconvert.image.base import Image, Pixels
from dpconvert.image.coverage import Coverage
from dpconvert.manifest.model import SANE_MPP

BAND = 1 << 23  # pixels read at once for an overview
SLOW = 1 << 28  # pixels decoded for an overview from which on it is worth sharing
PART = 4096  # level-0 rows that are read together where a row of tiles is decoded for few of them
TISSUE_MPP, TISSUE_SIDE = 8.0, 2048
SATURATION = 0.05, 0.15  # Otsu's threshold is kept between these: a picture may be all background or all tissue
DARK = 20  # below this in every channel: scanner background or padding, whatever its hue


def thumbnail(image: Image, side: int) -> Pixels:
    """The whole picture with its longer side `side` px (never enlarged), read in bands of bounded memory."""
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


def tissue_parts(image: Image) -> list[tuple[int, int]]:
    """Which bands of the overview for `tissue` to read together where several processes do; none where one is enough.

    One is enough where a coarse level is stored. Parts are so high that few tiles are decoded for two of them.
    """
    bands = Bands.of(image, _tissue_side(image))
    coarser = image.downsample(image.width, image.height, (bands.width, bands.height))
    if image.width * image.height < SLOW * coarser**2:
        return []
    count = len(bands.edges) - 1
    step = max(1, PART * count // image.height)
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def tissue_part(image: Image, first: int, last: int) -> Pixels:
    """Some bands of the overview for `tissue`."""
    return Bands.of(image, _tissue_side(image)).read(image, first, last)


@dataclass(frozen=True)
class TissueMask:
    """Where tissue is: `mask` over the whole picture at low resolution, and the saturation that decided it."""

    mask: NDArray[np.bool_]
    threshold: float
    coverage: Coverage

    def share(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Share of tissue in boxes (N, 4) of x, y, width, height in level-0 pixels."""
        return self.coverage.share(boxes)


def tissue(image: Image, overview: Pixels | None = None) -> TissueMask:
    """Tissue by Otsu's threshold on the saturation at about 8 um/px; black is background, as white is.

    Camelyon16's normal_144 is padded with black; other scanners leave dark borders.

    overview: all parts, where they have been read already.
    """
    small = thumbnail(image, _tissue_side(image)) if overview is None else overview
    high, low = small.max(axis=2), small.min(axis=2)
    saturation = (high - low) / np.maximum(high, 1)
    lit = high >= DARK
    threshold = float(np.clip(otsu(saturation[lit]), *SATURATION))
    mask = lit & (saturation > threshold)
    return TissueMask(mask, threshold, Coverage(mask, image.width, image.height))


def _tissue_side(image: Image) -> int:
    side = max(image.width, image.height)
    wanted = side * image.mpp / TISSUE_MPP if image.mpp else TISSUE_SIDE
    return int(min(max(wanted, TISSUE_SIDE / 2), 2 * TISSUE_SIDE))


def otsu(values: NDArray[np.float64], bins: int = 256) -> float:
    """Otsu's threshold of values in [0, 1]: the cut with the largest variance between the two sides (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    between = below * above * (sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)) ** 2
    return float(edges[int(np.argmax(between)) + 1])


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
