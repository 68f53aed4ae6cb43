"""Synthetic overviews of slides in many stains, each with the mask of its tissue, known since it was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIDE = 320
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Stain:
    """Colours of what lies on the glass: stroma (pale) covers the tissue, cells and nuclei lie in it."""

    stroma: Colour
    cells: Colour
    nuclei: Colour
    glass: Colour = (243, 243, 244)


STAINS = {
    "h&e": Stain((232, 190, 212), (214, 150, 190), (110, 70, 140)),
    "dab": Stain((226, 222, 224), (216, 208, 206), (120, 75, 40)),
    "dab, pale counterstain": Stain((232, 231, 234), (222, 221, 228), (150, 100, 60)),
    "haematoxylin": Stain((222, 222, 234), (200, 200, 222), (100, 95, 150)),
    "diff-quick": Stain((205, 205, 225), (170, 175, 215), (75, 60, 140)),
    "mgg": Stain((225, 215, 225), (190, 185, 215), (100, 60, 150)),
    "trichrome": Stain((150, 185, 215), (190, 90, 100), (90, 50, 80)),
    "pas": Stain((236, 218, 230), (205, 110, 170), (110, 90, 150)),
    "silver": Stain((225, 215, 205), (190, 170, 150), (34, 32, 32)),
    "pale h&e": Stain((240, 231, 237), (235, 216, 228), (190, 170, 205), glass=(247, 247, 247)),
    "dark": Stain((150, 110, 130), (120, 75, 105), (60, 35, 80), glass=(188, 186, 184)),
    "yellowish glass": Stain((225, 180, 195), (205, 140, 170), (105, 65, 130), glass=(241, 238, 224)),
    "bluish glass": Stain((226, 190, 218), (208, 148, 190), (105, 65, 140), glass=(232, 236, 244)),
}


def slide(stain: Stain, seed: int = 0, share: float = 0.4) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """RGB (SIDE, SIDE, 3), with noise and a gentle shading as scanners leave them, and where tissue is."""
    random = np.random.default_rng(seed)
    blobs = _smooth(random, 22)
    mask = blobs > np.quantile(blobs, 1 - share)
    cells, nuclei = mask & (_smooth(random, 5) > 0.3), mask & (_smooth(random, 1.2) > 1.2)
    pixels = np.empty((SIDE, SIDE, 3))
    pixels[:] = stain.glass
    for where, colour in ((mask, stain.stroma), (cells, stain.cells), (nuclei, stain.nuclei)):
        pixels[where] = colour
    pixels[mask] += 4 * _smooth(random, 1)[mask][:, None]
    shading = 1 - 0.012 * np.linspace(-1, 1, SIDE)[None, :, None] ** 2
    pixels = pixels * shading + random.normal(0, 0.8, pixels.shape)
    return pixels.round().clip(0, 255).astype(np.uint8), mask


def with_pens(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Strokes of blue, green, red and black pens beside the tissue; the mask has none of them."""
    drawn = pixels.copy()
    free = ndimage.distance_transform_edt(~mask)
    for number, colour in enumerate([(30, 50, 190), (15, 125, 60), (205, 25, 35), (25, 25, 28)]):
        row = 30 + 75 * number
        stroke = np.zeros_like(mask)
        stroke[row : row + 9] = True
        drawn[stroke & (free > 6)] = colour
    return drawn, mask


def padded(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], value: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The same in a frame, a third of it, of white or black, as scanners fill up what they left out."""
    frame = SIDE // 4
    wider = np.pad(pixels, ((0, frame), (frame, 0), (0, 0)), constant_values=value)
    return wider, np.pad(mask, ((0, frame), (frame, 0)))


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def _smooth(random: np.random.Generator, sigma: float) -> NDArray[np.float64]:
    noise = ndimage.gaussian_filter(random.normal(size=(SIDE, SIDE)), sigma)
    found: NDArray[np.float64] = noise / noise.std()
    return found
