"""Draws what a conversion would read from a slide: tissue, annotations, patches by class, samples of each class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image as Pillow

from dpconvert import readers
from dpconvert.annotations import Annotations
from dpconvert.errors import OutputError, ReadError, SourceError
from dpconvert.image import Image
from dpconvert.manifest.dense import Dense
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Crop, Whole
from dpconvert.names import closest, natural, told_apart
from dpconvert.plan import patches
from dpconvert.plan.collect import LazyScene
from dpconvert.plan.known_errors import doubtful
from dpconvert.plan.options import Options
from dpconvert.plan.targets import ImageTargets
from dpconvert.readers import stated_sets
from dpconvert.source import target
from dpconvert.source.files import Source
from dpconvert.source.record import Record, SourceImage, hashed
from dpconvert.tasks.overlay import overlaid
from dpconvert.tasks.slide_drawing import CELL, Overview, overview, sheet

SHEET = 48  # samples
MOST_IMAGES = 8  # images to take samples from


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
    images = stated_sets.divided(source, list(readers.reader(source.manifest).images(source)))
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
    found = Counter(record.label for record in _in_words(source.manifest, seen.records))
    counts = {label: found[label] for label in sorted(found, key=natural)}
    return Preview([*files, *_sheets(source, more, out, _plain(chosen.name))], chosen.name, counts)


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
    classes = classes_of(source.manifest) or sorted({record.label for record in records}, key=natural)
    for label, plain in zip(classes, told_apart([_plain(label) for label in classes]), strict=True):
        of_class = [record for record in records if record.label == label]
        order = sorted(range(len(of_class)), key=lambda i: hashed("sheet", of_class[i].source_image.name, i))
        shown = sorted((of_class[i] for i in order[:SHEET]), key=lambda record: record.source_image.name)
        path = out / f"{name}_class_{plain}.png"
        title = f"{label}: {len(shown)} of {len(of_class)}"
        sheet(list(_samples(source, shown)), title).save(path)
        files.append(path)
        if source.manifest.dense is not None:
            path = out / f"{name}_class_{plain}_targets.png"
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


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
