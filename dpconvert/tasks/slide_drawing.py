"""Draws a slide with the annotations, patches and tissue that were found on it, and sheets of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageColor, ImageDraw, ImageFont

from dpconvert.annotations import Annotations, LabelMask
from dpconvert.image import Image, TissueMask, thumbnail
from dpconvert.names import natural
from dpconvert.source.record import Record, SourceImage, hashed

SIDE = 2000
TEXT, LINE, SWATCH, MARGIN = 20, 30, 20, 20
COLUMNS, CELL, GAP = 8, 160, 6
CLASSES = (  # Okabe and Ito's, then others for tasks of many classes
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#f0e442",
    "#56b4e9",
    "#cc79a7",
    "#e69f00",
    "#999999",
    "#8c2d04",
    "#6a3d9a",
    "#b2df8a",
    "#fb9a99",
    "#1b5e20",
    "#00e5ff",
    "#bcbd22",
    "#4d4d4d",
)
OUTLINES = (
    "#000000",
    "#c00080",
    "#5b3a00",
    "#3d0099",
    "#006060",
    "#b00000",
    "#0050ff",
    "#ff6a00",
    "#008000",
    "#8000ff",
    "#808000",
    "#606060",
)
TISSUE = "#00b000"
SMOOTH = 15  # pixels of the tissue mask, over which its outline is smoothed
VEIL = 76  # of 255: opacity of a patch's colour


@dataclass(frozen=True)
class Overview:
    """One slide with its annotations and the records of its patches. mpp: micrometres per level-0 pixel, if known."""

    source_image: SourceImage
    image: Image
    annotations: Annotations | LabelMask
    records: list[Record]
    mpp: float | None


def overview(seen: Overview, tissue: TissueMask, classes: list[str]) -> Pillow.Image:
    """The slide with tissue, annotations and patches drawn on it, and a legend below."""
    canvas, legend = marked(seen, tissue, classes, SIDE)
    return _framed(canvas, _title(seen), legend, _bar(seen, canvas.width / seen.image.width, canvas.width))


def marked(
    seen: Overview, tissue: TissueMask | None, classes: list[str], side: int
) -> tuple[Pillow.Image, list[tuple[str, str]]]:
    """The slide, at most `side` px wide and high, with what was found drawn on it; and its legend: (colour, text)."""
    pixels = thumbnail(seen.image, side)
    height, width = pixels.shape[:2]
    scale = width / seen.image.width, height / seen.image.height
    labels = classes or sorted({record.label for record in seen.records}, key=natural)
    colours = {label: CLASSES[i % len(CLASSES)] for i, label in enumerate(labels)}
    canvas = Pillow.fromarray(_veiled(pixels, seen.records, colours, scale))
    if tissue is not None:
        from scipy import ndimage

        smooth = ndimage.uniform_filter(tissue.mask.astype(np.float32), SMOOTH) > 0.5  # specks would hide the slide
        _edge(canvas, smooth, TISSUE)
    outlined = _annotate(canvas, seen.annotations, scale, classes)
    patches_of = Counter(record.label for record in seen.records)
    legend = [
        *((colours[label], f"{label}: {patches_of[label]}") for label in labels),
        *((colour, f"outline {label or '(no label)'}: {count}") for label, colour, count in outlined),
    ]
    if tissue is not None:
        legend.append((TISSUE, f"tissue: {tissue.mask.mean():.1%}, {tissue.threshold}"))
    return canvas, legend


def sheet(images: list[Pillow.Image], title: str) -> Pillow.Image:
    """A grid of samples under a title."""
    rows = -(-len(images) // COLUMNS)
    width = max(COLUMNS * (CELL + GAP) + GAP, int(_font().getlength(title)) + 2 * GAP)
    canvas = Pillow.new("RGB", (width, LINE + rows * (CELL + GAP) + GAP), "white")
    ImageDraw.Draw(canvas).text((GAP, GAP), title, "black", _font())
    for number, image in enumerate(images):
        row, column = divmod(number, COLUMNS)
        canvas.paste(image, (GAP + column * (CELL + GAP), LINE + GAP + row * (CELL + GAP)))
    return canvas


def _veiled(
    pixels: NDArray[np.uint8], records: list[Record], colours: dict[str, str], scale: tuple[float, float]
) -> NDArray[np.uint8]:
    """The pixels with each patch tinted in the colour of its class, and outlined if it is large enough."""
    drawn = pixels.copy()
    for record in records:
        if record.box is None:
            continue
        x, y, w, h = record.box
        left, top = round(x * scale[0]), round(y * scale[1])
        right, bottom = max(round((x + w) * scale[0]), left + 1), max(round((y + h) * scale[1]), top + 1)
        colour = np.array(ImageColor.getrgb(colours[record.label]), dtype=np.uint16)
        under = pixels[top:bottom, left:right].astype(np.uint16)
        drawn[top:bottom, left:right] = (under * (255 - VEIL) + colour * VEIL) // 255
        if min(right - left, bottom - top) >= 8:
            for edge in (np.s_[top, left:right], np.s_[bottom - 1, left:right], np.s_[top:bottom, left]):
                drawn[edge] = colour
            drawn[top:bottom, right - 1] = colour
    return drawn


def _edge(canvas: Pillow.Image, mask: NDArray[np.bool_], colour: str) -> None:
    """Draw the border of a mask that covers the canvas."""
    from scipy import ndimage

    stretched = np.asarray(Pillow.fromarray(mask).resize(canvas.size, Pillow.Resampling.NEAREST))
    border = stretched & ~ndimage.binary_erosion(stretched)
    canvas.paste(colour, mask=Pillow.fromarray(border))


def _annotate(
    canvas: Pillow.Image, annotations: Annotations | LabelMask, scale: tuple[float, float], classes: list[str]
) -> list[tuple[str, str, int]]:
    """Draw the annotations. Returns (label, colour, number) for each label."""
    if isinstance(annotations, LabelMask):
        labels = dict.fromkeys(annotations.labels.values())
        counts = dict.fromkeys(labels, 1)
    else:
        counts = Counter(item.label for item in annotations.items)
    colours = colours_of(counts, classes)
    if isinstance(annotations, LabelMask):
        for label, colour in colours.items():
            values = [value for value, name in annotations.labels.items() if name == label]
            _edge(canvas, np.isin(annotations.values, values), colour)
    else:
        draw = ImageDraw.Draw(canvas)
        for item in annotations.items:
            _outline(draw, shapely.transform(item.geometry, lambda xy: xy * scale), colours[item.label])
    return [(label, colours[label], counts[label]) for label in sorted(counts, key=natural)]


def colours_of(labels: Collection[str], classes: Sequence[str] = ()) -> dict[str, str]:
    """The colours of the outlines of one slide, as far as possible the same as on other slides with other labels.

    Labels that are classes have the colours of these; others have one that follows from their name, or the next free.
    """
    found = {label: OUTLINES[classes.index(label) % len(OUTLINES)] for label in labels if label in classes}
    for label in sorted(set(labels) - {*found}, key=natural):
        start = hashed(label)
        ring = [OUTLINES[(start + step) % len(OUTLINES)] for step in range(len(OUTLINES))]
        found[label] = next((colour for colour in ring if colour not in found.values()), ring[0])
    return found


def _outline(draw: ImageDraw.ImageDraw, shape: shapely.Geometry, colour: str) -> None:
    for part in shapely.get_parts(shape):
        if part.geom_type == "Point":
            draw.circle((part.x, part.y), 5, outline=colour, width=2)
        elif part.geom_type == "Polygon":
            for ring in (part.exterior, *part.interiors):
                draw.line([*ring.coords], fill=colour, width=3, joint="curve")


def _title(seen: Overview) -> str:
    image = seen.image
    resolution = f"{seen.mpp:.4g} um/px" if seen.mpp else "unknown resolution"
    return f"{seen.source_image.name}: {image.width} x {image.height} px, {resolution}"


def _bar(seen: Overview, scale: float, width: int) -> tuple[int, str]:
    """The scale bar, about a fifth of the width: its length in pixels, and its label in um or level-0 px."""
    unit = seen.mpp or 1.0
    longest = width / 5 / scale * unit
    power = 10.0 ** np.floor(np.log10(max(longest, 1e-9)))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest * 1.000001)
    if not seen.mpp:
        return round(length * scale), f"{length:g} px of level 0"
    return round(length / unit * scale), f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} um"


def _framed(canvas: Pillow.Image, title: str, legend: list[tuple[str, str]], bar: tuple[int, str]) -> Pillow.Image:
    """The drawing, with title, scale bar and legend below."""
    entry = max((int(_font().getlength(text)) for _, text in legend), default=0) + SWATCH + 8 + MARGIN  # the longest
    width = max(canvas.width, 600, entry + MARGIN, int(_font().getlength(title)) + 2 * MARGIN)
    columns = max(1, (width - MARGIN) // max(entry, 420 - MARGIN))
    rows = -(-len(legend) // columns)
    framed = Pillow.new("RGB", (width, canvas.height + 2 * MARGIN + (2 + rows) * LINE), "white")
    framed.paste(canvas)
    draw = ImageDraw.Draw(framed)
    top = canvas.height + MARGIN
    draw.text((MARGIN, top), title, "black", _font())
    draw.rectangle((MARGIN, top + LINE + 8, MARGIN + bar[0], top + LINE + 14), "black")
    draw.text((2 * MARGIN + bar[0], top + LINE), bar[1], "black", _font())
    for number, (colour, text) in enumerate(legend):
        row, column = divmod(number, columns)
        left, line = MARGIN + column * ((width - MARGIN) // columns), top + (2 + row) * LINE
        draw.rectangle((left, line + 3, left + SWATCH, line + 3 + SWATCH), colour, "black")
        draw.text((left + SWATCH + 8, line), text, "black", _font())
    return framed


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT)
