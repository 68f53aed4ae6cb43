"""Overviews of pictures of any size, and where tissue is on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpconvert.errors import ReadError
from dpconvert.manifest import SANE_MPP
from dpconvert.raster import Coverage
from dpconvert.slide.image import Image, Pixels

BAND = 1 << 23  # pixels read at once for an overview
TISSUE_MPP, TISSUE_SIDE = 8.0, 2048
SATURATION = 0.05, 0.15  # Otsu's threshold is kept between these: a picture may be all background or all tissue
DARK = 20  # below this in every channel: scanner background or padding, whatever its hue


def thumbnail(image: Image, side: int) -> Pixels:
    """The whole picture with its longer side `side` px (never enlarged), read in bands of bounded memory."""
    scale = min(1.0, side / max(image.width, image.height))
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    coarser = image.downsample(image.width, image.height, (width, height))
    rows = max(1, int(BAND * coarser**2 / image.width * height / image.height))
    bands = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        y0, y1 = (edge * image.height // height for edge in (top, bottom))
        bands.append(image.read(0, y0, image.width, y1 - y0, out=(width, bottom - top)))
    return np.concatenate(bands)


@dataclass(frozen=True)
class TissueMask:
    """Where tissue is: `mask` over the whole picture at low resolution, and the saturation that decided it."""

    mask: NDArray[np.bool_]
    threshold: float
    coverage: Coverage

    def share(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Share of tissue in boxes (N, 4) of x, y, width, height in level-0 pixels."""
        return self.coverage.share(boxes)


def tissue(image: Image) -> TissueMask:
    """Tissue by Otsu's threshold on the saturation at about 8 um/px; black is background, as white is.

    Camelyon16's normal_144 is padded with black; other scanners leave dark borders.
    """
    side = max(image.width, image.height)
    wanted = side * image.mpp / TISSUE_MPP if image.mpp else TISSUE_SIDE
    small = thumbnail(image, int(min(max(wanted, TISSUE_SIDE / 2), 2 * TISSUE_SIDE)))
    high, low = small.max(axis=2), small.min(axis=2)
    saturation = (high - low) / np.maximum(high, 1)
    lit = high >= DARK
    threshold = float(np.clip(otsu(saturation[lit]), *SATURATION))
    mask = lit & (saturation > threshold)
    return TissueMask(mask, threshold, Coverage(mask, image.width, image.height))


def otsu(values: NDArray[np.float64], bins: int = 256) -> float:
    """Otsu's threshold of values in [0, 1]: the cut with the largest variance between the two sides (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    between = below * above * (sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)) ** 2
    return float(edges[int(np.argmax(between)) + 1])


def resolution(image: Image, told: float | None, where: str) -> float:
    """Micrometres per pixel at level 0: the file's own, else what the user or the manifest told.

    Raises:
        ReadError: nobody knows.
    """
    found = image.mpp or told
    if found is None:
        raise ReadError(
            "states an absurd resolution" if image.stated else "states no resolution",
            where=where,
            expected=f"{SANE_MPP[0]} to {SANE_MPP[1]} um per pixel",
            found=image.stated or None,
            remedy="give it with --mpp, or as `mpp` in the manifest",
        )
    return found
