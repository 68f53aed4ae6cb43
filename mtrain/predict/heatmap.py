"""Overlays predictions on a thumbnail of the slide, as a tiled pyramidal TIFF that OpenSlide and QuPath open."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import tifffile
from numpy.typing import NDArray

from dpconvert.image import Image, resample, thumbnail
from mtrain.atomic import replacing

Pixels = NDArray[np.uint8]
PER_PATCH = 32  # pixels of the map along a side of a patch
LONGEST = 8192  # pixels along the longer side of the map, which bounds its memory
TILE = 256
OPACITY = 0.5


def write_heatmap(
    path: Path,
    image: Image,
    boxes: NDArray[np.int64],
    answers: NDArray[np.float32],
    shown: int | None,
    mpp: tuple[float, float] | None,
) -> None:
    """Write the map: the probability of class `shown` from dark to bright; with None, the most probable class.

    boxes: (N, 4), x, y, width and height in level-0 pixels. answers: (N, classes), probabilities. mpp: micrometres per
    level-0 pixel along x and y, None if unknown.
    """
    longest = max(image.width, image.height)
    side = min(LONGEST, max(TILE, longest * PER_PATCH // int(boxes[0, 2])), longest)
    pixels = overlaid(thumbnail(image, side), boxes, _paint(answers, shown), (image.width, image.height))
    coarser = image.width / pixels.shape[1]
    write_pyramid(path, pixels, None if mpp is None else (mpp[0] * coarser, mpp[1] * coarser))


def overlaid(image: Pixels, boxes: NDArray[np.int64], paint: Pixels, extent: tuple[int, int]) -> Pixels:
    """The thumbnail `image`, with the colours `paint` (N, 3) blended in at half opacity inside the boxes.

    extent: width and height of the slide in level-0 pixels.
    """
    height, width = image.shape[:2]
    blended = image.copy()
    scale = np.array([width / extent[0], height / extent[1]] * 2)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) * scale
    for (left, top, right, bottom), colour in zip(np.rint(corners).astype(int).tolist(), paint, strict=True):
        part = blended[top:bottom, left:right]
        part[:] = np.rint(part * (1 - OPACITY) + colour * OPACITY)
    return blended


def write_pyramid(path: Path, pixels: Pixels, mpp: tuple[float, float] | None) -> None:
    """Write an RGB image (height, width, 3) as a pyramid: one tiled page per level, each half as large as the last."""
    with replacing(path) as partial, tifffile.TiffWriter(partial, bigtiff=pixels.nbytes > 1 << 31) as tiff:
        factor = 1
        while True:
            per_cm = [1e4 / (axis * factor) for axis in mpp or (1e4, 1e4)]
            tiff.write(
                pixels,
                photometric="rgb",
                tile=(TILE, TILE),
                compression="adobe_deflate",
                metadata=None,
                subfiletype=int(factor > 1),
                resolution=(per_cm[0], per_cm[1]),
                resolutionunit="CENTIMETER" if mpp else "NONE",
                software="mtrain",
            )
            if max(pixels.shape[:2]) <= TILE:
                return
            height, width = pixels.shape[:2]
            pixels = resample(pixels, (width, height), (max(1, width // 2), max(1, height // 2)))
            factor *= 2


def colours(classes: int) -> Pixels:
    """A colour for each class: uint8 (classes, 3). Colours repeat from the 21st class on."""
    table = mpl.colormaps["tab10" if classes <= 10 else "tab20"]
    palette: Pixels = np.rint(np.array([table(label % table.N)[:3] for label in range(classes)]) * 255).astype(np.uint8)
    return palette


def _paint(answers: NDArray[np.float32], shown: int | None) -> Pixels:
    if shown is None:
        palette = colours(answers.shape[1])
        likeliest: Pixels = palette[answers.argmax(axis=1)]
        return likeliest
    painted: Pixels = np.rint(mpl.colormaps["inferno"](answers[:, shown])[:, :3] * 255).astype(np.uint8)
    return painted
