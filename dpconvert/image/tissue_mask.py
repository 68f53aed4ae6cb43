"""Detect tissue on a slide at about 8 micrometres per pixel.

Rule "glass", the default: pixels that differ from the slide's own glass are tissue, whatever the stain. The glass is
the brightest flat, nearly neutral colour of the slide, also in an underexposed scan, where nothing else may be as
bright; an image without glass is compared with white. The difference is that of CIE 1976 L*a*b* (CIE 15, section
8.2.1); pixels brighter than the glass do not differ. Black or white padding and pen ink are not tissue.

Rule "saturation": Otsu's threshold on the saturation, clipped to 0.05 to 0.15, the only rule of earlier versions. In
immunohistochemistry it finds only the stained nuclei.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpconvert.image.base import Image, Pixels
from dpconvert.image.coverage import Coverage
from dpconvert.image.overview import PART, Bands, thumbnail
from dpconvert.manifest.rules import TissueRule

SLOW = 1 << 28  # number of decoded pixels from which sharing an overview among processes pays
TISSUE_MPP, LEAST_SIDE, MOST_SIDE = 8.0, 64, 4096
UNKNOWN_REDUCTION, UNKNOWN_SIDE = 4, (256, 2048)  # if the resolution is unknown: a quarter, within these sides

DARK = 20  # below this in every channel: scanner background or padding, whatever its hue
SATURATION = 0.05, 0.15  # limits of Otsu's threshold, since an image may be all background or all tissue

WHITE = 254  # at least this in every channel: overexposed glass, or padding around the scanned area
FRAME_RUN, FRAME_SHARE = 8, 0.5  # pixels in a straight edge; minimum share of straight edges in the outline of padding
BORDER_SHARE, BLACK_SHARE = 0.02, 0.1  # minimum share of the border: of glass next to white; of a black background
GLASS_LIGHT, GLASS_CHROMA, GLASS_STEP = 60.0, 12.0, 1.5  # minimum L*, maximum chroma, maximum range of L* in 3 x 3
GLASS_SHARE, DIM, DIM_SHARE = 0.005, 92.0, 0.15  # minimum share of glass in an overview; for glass below L* DIM
BRIGHTEST = 99  # percentile of L* that counts as the brightest of some pixels
DARKEST = 40.0  # minimum L* of glass in an underexposed scan, where nothing is brighter
ALIKE = 2.5  # difference in L* within which glass is of one colour
WHITE_LAB = 97.0, 0.0, 0.0
DIFFERENT = 3.5  # minimum difference from glass; at this scale glass itself varies by 1.2 to 2.3 (99th percentile)
STROKE = 5  # pixels: minimum width of a stroke of a black pen
KEPT = 0.4  # minimum share of tissue among a pixel's 3 x 3 neighbourhood
ROWS = 256  # rows of an overview to convert at once


@dataclass(frozen=True)
class TissueMask:
    """A low-resolution tissue mask of the whole image, and a description of the threshold."""

    mask: NDArray[np.bool_]
    threshold: str
    coverage: Coverage

    def share(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Return the share of tissue in boxes (N, 4): x, y, width, height in level-0 pixels."""
        return self.coverage.share(boxes)


def tissue(
    image: Image, overview: Pixels | None = None, *, rule: TissueRule = "glass", mpp: float | None = None
) -> TissueMask:
    """Detect tissue by a rule.

    overview: all parts, if they have been read already. mpp: micrometres per level-0 pixel if the file does not state
    it.
    """
    small = thumbnail(image, side(image, mpp)) if overview is None else overview
    mask, threshold = RULES[rule](small)
    return TissueMask(mask, threshold, Coverage(mask, image.width, image.height))


def tissue_parts(image: Image, mpp: float | None = None) -> list[tuple[int, int]]:
    """Return the parts of the overview for `tissue` to read in several processes; empty if one process suffices.

    One process suffices if a coarse level is stored. The parts are so high that few tiles are decoded for two of them.
    """
    bands = Bands.of(image, side(image, mpp))
    coarser = image.downsample(image.width, image.height, (bands.width, bands.height))
    if image.width * image.height < SLOW * coarser**2:
        return []
    count = len(bands.edges) - 1
    step = max(1, PART * count // image.height)
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def tissue_part(image: Image, first: int, last: int, mpp: float | None = None) -> Pixels:
    """Return some bands of the overview for `tissue`."""
    return Bands.of(image, side(image, mpp)).read(image, first, last)


def side(image: Image, mpp: float | None = None) -> int:
    """Return the longer side, in pixels, of the overview in which tissue is detected."""
    longer, known = max(image.width, image.height), image.mpp or mpp
    if known is None:
        return min(max(longer // UNKNOWN_REDUCTION, UNKNOWN_SIDE[0]), UNKNOWN_SIDE[1])
    return int(min(max(longer * known / TISSUE_MPP, LEAST_SIDE), MOST_SIDE))


def by_glass(small: Pixels) -> tuple[NDArray[np.bool_], str]:
    """Return the mask of an overview (height, width, 3) by rule "glass", and a description of the threshold."""
    from scipy import ndimage  # its import takes a third of a worker's start, and few sources need it

    lab = cie_lab(small)
    white, black = small.min(axis=2) >= WHITE, small.max(axis=2) < DARK
    padded = white | black
    glass = _glass(lab, white, black)
    different = DIFFERENT * (glass[0] / 100 if glass[0] < GLASS_LIGHT else 1)  # all differences shrink with exposure
    differs = np.concatenate([_difference(part, glass) > different for part in _parts(lab)])
    ink = ndimage.binary_dilation(_ink(lab), np.ones((3, 3), bool))
    found = (differs & ~padded & ~ink).astype(np.float32)
    mask = (ndimage.uniform_filter(found, 3, mode="nearest") > KEPT) & ~padded & ~ink
    return mask, f"differs by more than {different:.2g} from glass of L* {glass[0]:.0f}"


def by_saturation(small: Pixels) -> tuple[NDArray[np.bool_], str]:
    """Return the mask by Otsu's threshold on the saturation; black and white are background."""
    high, low = small.max(axis=2), small.min(axis=2)
    saturation = (high - low) / np.maximum(high, 1)
    lit = high >= DARK
    threshold = float(np.clip(otsu(saturation[lit]), *SATURATION))
    return lit & (saturation > threshold), f"saturation > {threshold:.3f}"


RULES: dict[TissueRule, Callable[[Pixels], tuple[NDArray[np.bool_], str]]] = {
    "glass": by_glass,
    "saturation": by_saturation,
}


def otsu(values: NDArray[np.float64], bins: int = 256) -> float:
    """Return Otsu's threshold in [0, 1]: the cut with the largest variance between the two sides (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    between = below * above * (sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)) ** 2
    return float(edges[int(np.argmax(between)) + 1])


def _glass(lab: NDArray[np.float16], white: NDArray[np.bool_], black: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return L*, a*, b* of the glass; white if there is none, if it is overexposed, or if the background is black."""
    from scipy import ndimage

    light = lab[:, :, 0].astype(np.float32)
    step = ndimage.maximum_filter(light, 3, mode="nearest") - ndimage.minimum_filter(light, 3, mode="nearest")
    neutral = np.hypot(lab[:, :, 1], lab[:, :, 2]) < GLASS_CHROMA
    lit = ~white & ~black
    glass = _brightest(light, neutral & lit & (light > GLASS_LIGHT) & (step < GLASS_STEP), lit)
    if glass is None:
        glass = _underexposed(light, neutral & lit, step, lit)
    if glass is None:
        return WHITE_LAB
    if white.mean() > GLASS_SHARE and not (_is_frame(white) and _at_border(glass)):
        return WHITE_LAB
    if black.mean() > BLACK_SHARE and not (_is_frame(black) and _at_border(glass)):
        return WHITE_LAB
    found = np.median(lab[glass].astype(np.float32), axis=0)
    return float(found[0]), float(found[1]), float(found[2])


def _brightest(light: NDArray[np.float32], flat: NDArray[np.bool_], lit: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The brightest colour of flat pixels, the glass; None if they are too few of those that are lit."""
    if not flat.any():
        return None
    brightest = float(np.percentile(light[flat], BRIGHTEST))
    least = DIM_SHARE if brightest < DIM else GLASS_SHARE
    if flat.sum() < least * lit.sum():
        return None
    glass: NDArray[np.bool_] = flat & (np.abs(light - brightest) < ALIKE)
    return glass


def _underexposed(
    light: NDArray[np.float32], neutral: NDArray[np.bool_], step: NDArray[np.float32], lit: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Dark glass: flat, as bright as the brightest of all lit pixels, a large share of them, and at the border."""
    if not lit.any():
        return None
    brightest = float(np.percentile(light[lit], BRIGHTEST))
    flat = step < GLASS_STEP * brightest / 100  # the texture of tissue is faint, too, in such a scan
    glass: NDArray[np.bool_] = neutral & flat & (np.abs(light - brightest) < ALIKE)
    if not DARKEST < brightest < GLASS_LIGHT + ALIKE or glass.sum() < DIM_SHARE * lit.sum() or not _at_border(glass):
        return None
    return glass


def _at_border(where: NDArray[np.bool_]) -> bool:
    """Whether the region reaches the image's border, as the scanned area does next to padding."""
    border = np.concatenate([where[0], where[-1], where[:, 0], where[:, -1]])
    return bool(border.mean() > BORDER_SHARE)


def _is_frame(filled: NDArray[np.bool_]) -> bool:
    """Whether a white or black region has a straight outline, as padding has, which is filled in tile by tile.

    Only regions that reach the image's border count, since holes in tissue may be white too.
    """
    from scipy import ndimage

    outside = np.zeros_like(filled)
    outside[[0, -1]], outside[:, [0, -1]] = filled[[0, -1]], filled[:, [0, -1]]
    outside = ndimage.binary_propagation(outside, mask=filled)
    outline = outside & ~ndimage.binary_erosion(outside, border_value=1)
    lines = [ndimage.binary_opening(outline, np.ones(shape, bool)) for shape in ((1, FRAME_RUN), (FRAME_RUN, 1))]
    return bool((lines[0] | lines[1]).sum() >= FRAME_SHARE * outline.sum())


def _difference(lab: NDArray[np.float16], glass: tuple[float, float, float]) -> NDArray[np.float32]:
    off = lab.astype(np.float32) - np.array(glass, np.float32)
    off[:, :, 0] = np.minimum(off[:, :, 0], 0)
    found: NDArray[np.float32] = np.sqrt((off**2).sum(axis=2))
    return found


def _ink(lab: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Detect pen colours that no usual stain has: deep green, blue and red, and black in strokes.

    Fine black structures are silver, iron or carbon in tissue.
    """
    from scipy import ndimage

    light, a, b = (lab[:, :, channel].astype(np.float32) for channel in range(3))
    chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
    green = (a < -35) & (chroma > 42)
    blue = (chroma > 62) & (hue > 270) & (hue < 306)
    red = (chroma > 75) & ((hue > 15) & (hue < 60))
    black = (light < 25) & (chroma < 10)
    strokes = ndimage.binary_propagation(ndimage.binary_opening(black, np.ones((STROKE, STROKE), bool)), mask=black)
    return green | blue | red | strokes


def cie_lab(pixels: Pixels) -> NDArray[np.float16]:
    """Convert sRGB to CIE 1976 L*a*b* under D65 (IEC 61966-2-1)."""
    return np.concatenate([_lab_of(part) for part in _parts(pixels)])


def _lab_of(pixels: Pixels) -> NDArray[np.float16]:
    linear = LINEAR[pixels]
    xyz = linear @ TO_XYZ
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root[:, :, 0], root[:, :, 1], root[:, :, 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=2).astype(np.float16)


def _parts(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    yield from (pixels[top : top + ROWS] for top in range(0, len(pixels), ROWS))


_LEVELS = np.arange(256) / 255
LINEAR = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)
TO_XYZ = (  # columns X, Y, Z, each divided by that of the D65 white point
    np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]) / [0.9505, 1.0, 1.0890]
).astype(np.float32)
