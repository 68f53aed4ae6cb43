"""Summarizes what a conversion would read from every slide of a source: patches, outlines, what is skipped, splits."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dpconvert.annotations import Annotations, LabelMask
from dpconvert.card import Split
from dpconvert.errors import ReadError, UserError, cut
from dpconvert.manifest.rules import Regional
from dpconvert.names import natural
from dpconvert.plan import divide
from dpconvert.plan.collect import LazyScene
from dpconvert.plan.options import Options
from dpconvert.runtime import processes
from dpconvert.runtime.limits import reading
from dpconvert.runtime.progress import Reporter
from dpconvert.source.files import Source
from dpconvert.source.record import Record, SourceImage
from dpconvert.tasks.preview import classes_of, in_words, is_sample, look
from dpconvert.tasks.slide_drawing import marked

SIDE = 640  # px of a drawing
DRAWN = 200  # slides that are drawn; the others are only counted
QUALITY = 80  # of JPEG


@dataclass(frozen=True)
class SlideSummary:
    """One slide. size: width and height in level-0 pixels. mpp: micrometres per level-0 pixel, if known.

    outlines: number of annotations by label. skipped: number of annotations or patches that are left out or repaired,
    by reason. drawing: a JPEG of `drawn` (width, height) px, empty if the slide was not drawn. failure: why the slide
    cannot be read.
    """

    image: SourceImage
    size: tuple[int, int] = (0, 0)
    mpp: float | None = None
    records: list[Record] = field(default_factory=list)
    outlines: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    drawing: bytes = b""
    drawn: tuple[int, int] = (0, 0)
    legend: list[tuple[str, str]] = field(default_factory=list)
    failure: str = ""


@dataclass(frozen=True)
class SourceSummary:
    """All slides of a source, or none where every image is one sample.

    counts: split -> samples of each class. splits: image -> split. images: number of images. problem: why the samples
    cannot be divided among the splits.
    """

    slides: list[SlideSummary]
    classes: list[str]
    counts: dict[Split, list[int]]
    splits: dict[str, Split]
    images: int
    empty: list[str]
    problem: str = ""


def summarize(source: Source, options: Options, workers: processes.Workers, report: Reporter) -> SourceSummary:
    """Read every slide of a source as a conversion would.

    Raises:
        SourceError: there are no images, two have the same name, or one lacks what the rule needs to label it.
    """
    manifest = source.manifest
    images = divide.listed(manifest, source, options)
    if all(is_sample(source, image) for image in images):
        slides, records = list[SlideSummary](), [Record(image, image.label or "") for image in images]
    else:
        slides = _slides(source, images, workers, report)
        records = [record for slide in slides for record in slide.records]
    found = divide.classified(manifest, options, records)
    try:
        divided = divide.divide(manifest, source, options, found)
    except UserError as error:
        return SourceSummary(slides, [*manifest.classes], {}, {}, len(images), [], str(error))
    return SourceSummary(slides, divided.classes, divided.counts, divided.splits, len(images), divided.empty_sets())


def _slides(
    source: Source, images: Sequence[SourceImage], workers: processes.Workers, report: Reporter
) -> list[SlideSummary]:
    """The summaries, in the order of the images."""
    found: dict[str, SlideSummary] = {}
    items = [(image, number < DRAWN) for number, image in enumerate(images)]
    with report.bar(f"{source.manifest.task}: slides", len(images), unit="slides") as advance:
        for slide in processes.run(_slide, source, items, workers):
            found[slide.image.name] = slide
            advance()
    return [found[image.name] for image in images]


def _slide(source: Source, item: tuple[SourceImage, bool]) -> SlideSummary:
    """The summary of one slide. Runs in a worker."""
    source_image, is_drawn = item
    try:
        with reading(source_image.files[0]):
            return _read(source, source_image, is_drawn)
    except ReadError as error:
        return SlideSummary(source_image, failure=source.reason(error))


def _read(source: Source, source_image: SourceImage, is_drawn: bool) -> SlideSummary:
    remarks: Counter[str] = Counter()
    image = source.open_image(source_image.files, source_image.columns)
    scene = LazyScene(source, source_image, image, remarks)
    seen = look(source, scene)
    rule = source.manifest.rule
    summary = SlideSummary(
        source_image,
        (image.width, image.height),
        seen.mpp,
        seen.records,
        _outlines(seen.annotations),
        dict(remarks + _ignored(source, seen.annotations) + _background(scene)),
    )
    if not is_drawn:
        return summary
    tissue = scene.tissue if isinstance(rule, Regional) and rule.tissue is not None else None
    canvas, legend = marked(in_words(source.manifest, seen), tissue, classes_of(source.manifest), SIDE)
    file = io.BytesIO()
    canvas.save(file, "JPEG", quality=QUALITY)
    return replace(summary, drawing=file.getvalue(), drawn=canvas.size, legend=legend)


def _outlines(annotations: Annotations | LabelMask) -> dict[str, int]:
    if isinstance(annotations, LabelMask):
        return dict.fromkeys(sorted(annotations.labels.values()), 1)
    counts = Counter(item.label for item in annotations.items)
    return {label: counts[label] for label in sorted(counts, key=natural)}


def _ignored(source: Source, annotations: Annotations | LabelMask) -> Counter[str]:
    """The annotations with a label that the rule ignores."""
    ignored = getattr(source.manifest.rule, "ignore", [])
    return Counter(
        {
            f"labelled {cut(label, 40)!r}, which the rule ignores": count
            for label, count in _outlines(annotations).items()
            if label in ignored
        }
    )


def _background(scene: LazyScene) -> Counter[str]:
    return Counter({"patch with too little tissue": scene.grid["background"]})
