"""Draws what a conversion would read from a slide: tissue, annotations, patches by class, samples of each class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageColor, ImageDraw, ImageFont
from scipy import ndimage

from dpconvert import readers
from dpconvert.annotations import Annotations, LabelMask
from dpconvert.errors import OutputError, ReadError, SourceError
from dpconvert.image import Image, TissueMask, thumbnail
from dpconvert.manifest.dense import Dense
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Crop, Whole
from dpconvert.names import closest
from dpconvert.plan import patches
from dpconvert.plan.collect import LazyScene
from dpconvert.plan.divide import doubtful
from dpconvert.plan.options import Options
from dpconvert.plan.targets import ImageTargets
from dpconvert.source import target
from dpconvert.source.files import Source
from dpconvert.source.record import Record, SourceImage, hashed
from dpconvert.tasks.overlay import overlaid

SIDE = 2000
TEXT, LINE, SWATCH, MARGIN = 20, 30, 20, 20
CLASSES = ("#0072b2", "#d55e00", "#009e73", "#f0e442", "#56b4e9", "#cc79a7", "#e69f00", "#999999")  # Okabe and Ito's
OUTLINES = ("#000000", "#c00080", "#5b3a00", "#3d0099", "#006060", "#b00000")
TISSUE = "#00b000"
SMOOTH = 15  # pixels of the tissue mask, over which its outline is smoothed
VEIL = 76  # of 255: opacity of a patch's colour
SHEET, COLUMNS, CELL, GAP = 48, 8, 160, 6
MOST_IMAGES = 8  # images to take samples from


@dataclass(frozen=True)
class Overview:
    """One slide with its annotations and the records of its patches. mpp: micrometres per level-0 pixel, if known."""

    source_image: SourceImage
    image: Image
    annotations: Annotations | LabelMask
    records: list[Record]
    mpp: float | None


@dataclass(frozen=True)
class Preview:
    """The files written, and the number of patches of each class on the slide (empty if whole images are samples)."""

    files: list[Path]
    source_image: str
    counts: dict[str, int]


def preview(source: Source, name: str | None, out: Path) -> Preview:
    """Draw one slide, and a sheet of samples of each class, to `out`.

    name: name of the slide. None: draw the first one with annotations, and samples of several slides.

    Raises:
        UsageError: there is no slide of this name.
        SourceError: the source holds nothing to draw.
        ReadError: the slide cannot be read.
        OutputError: `out` cannot be written.
    """
    images = list(readers.reader(source.manifest).images(source))
    if not images:
        raise SourceError("nothing to draw in this source", where=source.root)
    chosen = _chosen(images, name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _draw(source, images if name is None else [chosen], chosen, out)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=out, remedy="choose another --out") from None


def _draw(source: Source, images: list[SourceImage], chosen: SourceImage, out: Path) -> Preview:
    if is_sample(source, chosen):
        records = [Record(source_image, source_image.label or "") for source_image in images]
        return Preview(_sheets(source, records, out, source.manifest.name), "", {})
    with _open(source, chosen) as image:
        scene = LazyScene(source, chosen, image, Counter())
        seen, tissue = look(source, scene), scene.tissue
        files = [out / f"{_plain(chosen.name)}.png", out / f"{_plain(chosen.name)}_tissue.png"]
        overview(in_words(source.manifest, seen), tissue, classes_of(source.manifest)).save(files[0])
        Pillow.fromarray(tissue.mask).save(files[1])
    more = _more(source, images, seen)
    counts = Counter(record.label for record in _in_words(source.manifest, seen.records))
    return Preview(
        [*files, *_sheets(source, more, out, _plain(chosen.name))], chosen.name, dict(sorted(counts.items()))
    )


def classes_of(manifest: Manifest) -> list[str]:
    """The classes in whose colours patches are drawn; [] for those of the records."""
    return manifest.classes if manifest.target == "class" else []


def _in_words(manifest: Manifest, records: list[Record]) -> list[Record]:
    """The records with labels in words, so that each is one label."""
    if manifest.target == "class":
        return records
    return [replace(record, label=target.in_words(manifest.target, record.label)) for record in records]


def in_words(manifest: Manifest, seen: Overview) -> Overview:
    """What was found, with labels in words."""
    return replace(seen, records=_in_words(manifest, seen.records))


def is_sample(source: Source, image: SourceImage) -> bool:
    """Whether the whole image is one sample."""
    rule = source.manifest.rule
    return isinstance(rule, Whole) or (isinstance(rule, Crop) and image.label is not None)


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
    labels = classes or sorted({record.label for record in seen.records})
    colours = {label: CLASSES[i % len(CLASSES)] for i, label in enumerate(labels)}
    canvas = Pillow.fromarray(_veiled(pixels, seen.records, colours, scale))
    if tissue is not None:
        smooth = ndimage.uniform_filter(tissue.mask.astype(np.float32), SMOOTH) > 0.5  # specks would hide the slide
        _edge(canvas, smooth, TISSUE)
    outlined = _annotate(canvas, seen.annotations, scale)
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


def _chosen(images: list[SourceImage], name: str | None) -> SourceImage:
    if name is not None:
        by_name = {image.name: image for image in images}
        return by_name[name] if name in by_name else by_name[closest(name, by_name, "slide")]
    return next((image for image in images if image.annotations), images[0])


def _open(source: Source, image: SourceImage) -> Image:
    return source.opened(image.files, image.columns)


def look(source: Source, scene: LazyScene) -> Overview:
    """What a conversion would read from an opened slide."""
    records = list(patches.records(source.manifest, scene))
    has_annotations = hasattr(readers.reader(source.manifest), "read_annotations")
    annotations = scene.annotations if has_annotations else Annotations([])
    return Overview(scene.source_image, scene.image, annotations, records, scene.image.mpp or source.manifest.mpp)


def _more(source: Source, images: list[SourceImage], seen: Overview) -> list[Record]:
    """The records of the slide that was drawn, and of others until each class fills its sheet."""
    records = list(seen.records)
    others = sorted((p for p in images if p.name != seen.source_image.name), key=lambda p: hashed("preview", p.name))
    for source_image in others[: MOST_IMAGES - 1]:
        counts = Counter(record.label for record in records)
        if all(counts[label] >= SHEET for label in classes_of(source.manifest) or counts):
            break
        with suppress(ReadError), _open(source, source_image) as image:  # the page of all slides names it
            records += list(patches.records(source.manifest, LazyScene(source, source_image, image, Counter())))
    return records


def _sheets(source: Source, records: list[Record], out: Path, name: str) -> list[Path]:
    files, records = [], _in_words(source.manifest, records)
    for label in classes_of(source.manifest) or sorted({record.label for record in records}):
        of_class = [record for record in records if record.label == label]
        order = sorted(range(len(of_class)), key=lambda i: hashed("sheet", of_class[i].source_image.name, i))
        shown = sorted((of_class[i] for i in order[:SHEET]), key=lambda record: record.source_image.name)
        path = out / f"{name}_class_{_plain(label)}.png"
        title = f"{label}: {len(shown)} of {len(of_class)}"
        sheet(list(_samples(source, shown)), title).save(path)
        files.append(path)
        if source.manifest.dense is not None:
            path = out / f"{name}_class_{_plain(label)}_targets.png"
            kept = list(_with_targets(source, source.manifest.dense, shown))
            sheet(kept, f"{title}; {_legend(source.manifest.dense)}").save(path)
            files.append(path)
    return files


def _legend(dense: Dense) -> str:
    """The classes of the targets in the order of their colours."""
    return "; ".join(", ".join(of.classes) for of in dense.kinds.values())


def _with_targets(source: Source, dense: Dense, records: list[Record]) -> Iterator[Pillow.Image]:
    """Each sample as `_samples` gives it, with its targets drawn on it."""
    targets: tuple[SourceImage, ImageTargets, Image] | None = None
    is_doubtful = doubtful(source.manifest, Options())
    for record, small in zip(records, _samples(source, records), strict=True):
        if targets is None or targets[0] is not record.source_image:
            image = source.open_image(record.source_image.files, record.source_image.columns)
            scene = LazyScene(source, record.source_image, image, Counter())
            targets = (
                record.source_image,
                ImageTargets(dense, scene.annotations, exhaustive=not is_doubtful(record.source_image.name)),
                image,
            )
        _, kept, image = targets
        frame = record.box or (0, 0, image.width, image.height)
        mask = kept.mask(frame, small.size) if dense.seg is not None else None
        yield overlaid(small, small.size, mask, kept.objects(frame, small.size))


def _samples(source: Source, records: list[Record]) -> Iterator[Pillow.Image]:
    """Each sample, scaled to fit a cell. Records of the same image must follow each other."""
    image: Image | None = None
    opened: SourceImage | None = None
    try:
        for record in records:
            if image is None or record.source_image is not opened:
                if image is not None:
                    image.close()
                image, opened = _open(source, record.source_image), record.source_image
            box = record.box or (0, 0, image.width, image.height)
            shrunk = min(1.0, CELL / max(box[2:]))
            size = max(1, round(box[2] * shrunk)), max(1, round(box[3] * shrunk))
            yield Pillow.fromarray(image.read(*box, out=size))
    finally:
        if image is not None:
            image.close()


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
    stretched = np.asarray(Pillow.fromarray(mask).resize(canvas.size, Pillow.Resampling.NEAREST))
    border = stretched & ~ndimage.binary_erosion(stretched)
    canvas.paste(colour, mask=Pillow.fromarray(border))


def _annotate(
    canvas: Pillow.Image, annotations: Annotations | LabelMask, scale: tuple[float, float]
) -> list[tuple[str, str, int]]:
    """Draw the annotations. Returns (label, colour, number) for each label."""
    if isinstance(annotations, LabelMask):
        labels = dict.fromkeys(annotations.labels.values())
        counts = dict.fromkeys(labels, 1)
    else:
        counts = Counter(item.label for item in annotations.items)
    colours = {label: OUTLINES[i % len(OUTLINES)] for i, label in enumerate(sorted(counts))}
    if isinstance(annotations, LabelMask):
        for label, colour in colours.items():
            values = [value for value, name in annotations.labels.items() if name == label]
            _edge(canvas, np.isin(annotations.values, values), colour)
    else:
        draw = ImageDraw.Draw(canvas)
        for item in annotations.items:
            _outline(draw, shapely.transform(item.geometry, lambda xy: xy * scale), colours[item.label])
    return [(label, colours[label], counts[label]) for label in sorted(counts)]


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
    width = max(canvas.width, 600)
    columns = max(1, width // 420)
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
        left, line = MARGIN + column * (width // columns), top + (2 + row) * LINE
        draw.rectangle((left, line + 3, left + SWATCH, line + 3 + SWATCH), colour, "black")
        draw.text((left + SWATCH + 8, line), text, "black", _font())
    return framed


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
