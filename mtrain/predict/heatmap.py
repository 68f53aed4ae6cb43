"""Overlays predictions on a thumbnail of the slide: a tiled pyramidal TIFF that OpenSlide and QuPath open, and a PNG.

Of one class, the map shows the probability: the lower it is, the more of the slide shows through, and below `LOWEST` it
is transparent. The PNG adds a colour bar, or the colours of the classes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import tifffile
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch as Swatch
from numpy.typing import NDArray

from dpconvert.image import Image, resample, thumbnail
from mtrain.disk.atomic import replacing

Pixels = NDArray[np.uint8]
PER_PATCH = 32  # pixels of the map along a side of a patch
LONGEST = 8192  # pixels along the longer side of the map, which bounds its memory
TILE = 256
OPACITY = 0.5
LOWEST, FULL = 0.1, 0.5  # probabilities up to which the map is transparent, and from which it has its full opacity
PICTURE = 1600  # pixels along the longer side of the slide in the PNG


def write_heatmap(
    path: Path,
    image: Image,
    boxes: NDArray[np.int64],
    answers: NDArray[np.float32],
    shown: int | None,
    mpp: tuple[float, float] | None,
) -> Pixels:
    """Write the map: the probability of class `shown` from dark to bright; with None, the most probable class.

    boxes: (N, 4), x, y, width and height in level-0 pixels. answers: (N, classes), probabilities. mpp: micrometres per
    level-0 pixel along x and y, None if unknown. Returns the pixels of the map (height, width, 3).
    """
    longest = max(image.width, image.height)
    side = min(LONGEST, max(TILE, longest * PER_PATCH // int(boxes[0, 2])), longest)
    paint, opacity = _paint(answers, shown)
    pixels = overlaid(thumbnail(image, side), boxes, paint, (image.width, image.height), opacity)
    coarser = image.width / pixels.shape[1]
    write_pyramid(path, pixels, None if mpp is None else (mpp[0] * coarser, mpp[1] * coarser))
    return pixels


def overlaid(
    image: Pixels,
    boxes: NDArray[np.int64],
    paint: Pixels,
    extent: tuple[int, int],
    opacity: NDArray[np.float64] | None = None,
) -> Pixels:
    """The thumbnail `image`, with the colours `paint` (N, 3) blended in inside the boxes; of boxes that overlap, the
    first counts.

    extent: width and height of the slide in level-0 pixels. opacity: (N,) in 0..1, by default one half.
    """
    height, width = image.shape[:2]
    blended = image.copy()
    scale = np.array([width / extent[0], height / extent[1]] * 2)
    corners = np.rint(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) * scale).astype(int).tolist()
    shares = np.full(len(boxes), OPACITY) if opacity is None else opacity
    for (left, top, right, bottom), colour, share in reversed(list(zip(corners, paint, shares, strict=True))):
        part = image[top:bottom, left:right]
        blended[top:bottom, left:right] = np.rint(part * (1 - share) + colour * share)
    return blended


def write_picture(path: Path, pixels: Pixels, title: str, classes: Sequence[str], shown: int | None) -> None:
    """Write the map (height, width, 3) as a PNG, with a colour bar of class `shown`, or the colours of all classes."""
    height, width = pixels.shape[:2]
    scale = min(1.0, PICTURE / max(height, width))
    small = resample(pixels, (width, height), (max(1, round(width * scale)), max(1, round(height * scale))))
    longer = max(small.shape[:2])
    figure = Figure(figsize=(8 * small.shape[1] / longer + 1.8, max(8 * small.shape[0] / longer, 2.5) + 0.6))
    axes = figure.add_subplot()
    axes.imshow(small)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, parse_math=False)
    if shown is None:
        swatches = [
            Swatch(color=colour / 255, label=name) for name, colour in zip(classes, colours(len(classes)), strict=True)
        ]
        legend = axes.legend(handles=swatches, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        bar = figure.colorbar(ScalarMappable(Normalize(0, 1), _on_white()), ax=axes, fraction=0.046, pad=0.02)
        bar.set_label(f"probability of {classes[shown]}", parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    with replacing(path) as partial:
        partial.write_bytes(buffer.getvalue())


def _on_white() -> ListedColormap:
    """The colours of the probabilities as they appear over white."""
    probabilities = np.linspace(0, 1, 256)
    share = _opacity(probabilities)[:, None]
    return ListedColormap(mpl.colormaps["inferno"](probabilities)[:, :3] * share + (1 - share))


def _opacity(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    rising: NDArray[np.float64] = np.clip((probabilities - LOWEST) / (FULL - LOWEST), 0, 1) * OPACITY
    return rising


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


def _paint(answers: NDArray[np.float32], shown: int | None) -> tuple[Pixels, NDArray[np.float64]]:
    """The colour and the opacity of each patch: uint8 (N, 3), and (N,) in 0..1."""
    if shown is None:
        palette = colours(answers.shape[1])
        likeliest: Pixels = palette[answers.argmax(axis=1)]
        return likeliest, np.full(len(answers), OPACITY)
    painted: Pixels = np.rint(mpl.colormaps["inferno"](answers[:, shown])[:, :3] * 255).astype(np.uint8)
    return painted, _opacity(answers[:, shown].astype(np.float64))
