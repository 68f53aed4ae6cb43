"""Collect the samples of all images: the workers open each image, read its annotations and find its tissue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from dpconvert import names, readers
from dpconvert.annotations import Annotation, Annotations, LabelMask, frame
from dpconvert.card import Failure
from dpconvert.errors import ReadError
from dpconvert.image import Image, Pixels, TissueMask, tissue, tissue_part, tissue_parts
from dpconvert.image.rgb import orientation_of
from dpconvert.manifest.dense import Dense
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Objects, Regional, Whole
from dpconvert.plan import patches
from dpconvert.plan.targets import ImageTargets, never_met
from dpconvert.plural import counted
from dpconvert.runtime import processes
from dpconvert.runtime.limits import reading
from dpconvert.runtime.progress import Reporter
from dpconvert.source.files import Source
from dpconvert.source.record import Record, SourceImage

NOT_SQUARE = "pixels that are not square: each axis is resampled for itself"
EXIF_FORMATS = (".jpg", ".jpeg", ".png")
ON_UPRIGHT = "of an image that EXIF turns, taken as drawn on the upright image"


@dataclass(frozen=True)
class LazyScene:
    """An image opened for labelling; its annotations are read when a rule asks for them.

    overview: the reduced image for finding tissue, if several processes have read it already. grid: the numbers of
    patches and of background patches.
    """

    source: Source
    source_image: SourceImage
    image: Image
    remarks: Counter[str]
    overview: Pixels | None = None
    grid: Counter[str] = field(default_factory=Counter)

    @cached_property
    def annotations(self) -> Annotations | LabelMask:
        manifest, image, size = self.source.manifest, self.source_image, (self.image.width, self.image.height)
        found = readers.reader(manifest).read_annotations(self.source, image, self.image)
        if isinstance(found, Annotations):
            where = (image.annotations or image.files)[0]
            found = frame.inside(found, size, where, allow_outside=manifest.allow_outside)
            found = replace(found, items=_spelt(found.items, manifest))
        self.remarks.update(found.remarks)
        if self._is_turned():
            self.remarks[ON_UPRIGHT] += 1
        return found

    def _is_turned(self) -> bool:
        """Whether the file of an image that has files of annotations stores it rotated or mirrored."""
        image = self.source_image
        if not image.annotations or len(image.files) > 1 or not image.files[0].lower().endswith(EXIF_FORMATS):
            return False
        return orientation_of(self.source.read(image.files[0])) != 1

    @cached_property
    def tissue(self) -> TissueMask:
        """The tissue of the slide, found by reading the whole slide once."""
        manifest = self.source.manifest
        rule = manifest.rule.tissue_rule if isinstance(manifest.rule, Regional) else "glass"
        return tissue(self.image, self.overview, rule=rule, mpp=manifest.mpp)

    def count(self, patches: int, background: int) -> None:
        """Count the patches of the grid, and those with too little tissue."""
        self.grid.update(patches=patches, background=background)


@dataclass(frozen=True)
class _Inspected:
    """The result for one image: its samples, the repairs of its annotations, or the reason for failure.

    notes: the parts of its file that are not read. stated: the resolution that the file states, if any. labels: those
    of its annotations, if it has samples with dense targets.
    """

    source_image: SourceImage
    records: list[Record]
    remarks: Counter[str]
    in_strips: bool = False
    failure: str = ""
    notes: tuple[str, ...] = ()
    stated: float | None = None
    grid: Counter[str] = field(default_factory=Counter)
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Collected:
    """The result for all images.

    records: the samples, in the order of the images. notes: one for each kind of repair of annotations and each
    kind of content that is not read from images. in_strips: names of images stored in strips. stated: one resolution
    for each file that states any.
    """

    records: list[Record]
    failures: list[Failure]
    notes: list[str]
    in_strips: set[str]
    stated: list[float]


def _spelt(items: list[Annotation], manifest: Manifest) -> list[Annotation]:
    """Return annotations with labels spelt as in the manifest, if they differ only in case or Unicode form."""
    rule = manifest.rule
    more = manifest.dense.known() if manifest.dense else []
    known = [*rule.known()] if isinstance(rule, Regional) else [*manifest.classes, *getattr(rule, "positive", [])]
    if isinstance(rule, Objects):
        known = [name for name in (rule.positive, rule.none, rule.other) if name is not None]
    known += more
    spelt = {label: names.match(label, known) or label for label in {item.label for item in items} - set(known)}
    return [replace(item, label=spelt.get(item.label, item.label)) for item in items] if spelt else items


def look(source: Source, images: list[SourceImage], workers: processes.Workers, report: Reporter) -> Collected:
    """Find the samples of every image, in all workers. If each image is one sample, only TIFFs are opened."""
    manifest = source.manifest
    if not manifest.reads_annotations and isinstance(manifest.rule, Whole):
        return _whole(source, images, workers)
    found: dict[str, _Inspected] = {}
    with processes.pool(source, workers) as pool:
        overviews = _overviews(source, images, pool, report)
        items = ((image, overviews.pop(image.name, None)) for image in images)
        with report.bar(f"{manifest.task}: plan", len(images), unit="images") as advance:
            for seen in processes.run(_look, source, items, pool):
                found[seen.source_image.name] = seen
                advance()
    ordered = [found[image.name] for image in images]
    failed = [
        Failure(key=s.source_image.name, source=s.source_image.files[0], reason=s.failure) for s in ordered if s.failure
    ]
    remarks = sum((seen.remarks for seen in ordered), Counter[str]())
    grid = sum((seen.grid for seen in ordered), Counter[str]())
    return Collected(
        [record for seen in ordered for record in seen.records],
        sorted(failed, key=lambda failure: failure.key),
        [
            *counts_of(remarks),
            *([] if manifest.dense is None else never_met(manifest.dense, set().union(*(s.labels for s in ordered)))),
            *_background(manifest, grid),
            *_notes(ordered),
        ],
        {seen.source_image.name for seen in ordered if seen.in_strips},
        [seen.stated for seen in ordered if seen.stated is not None],
    )


def counts_of(remarks: Counter[str]) -> list[str]:
    """Return a note for each kind of annotation that was left out or changed."""
    return [f"annotations: {count} x {what}" for what, count in sorted(remarks.items())]


def _whole(source: Source, images: list[SourceImage], workers: processes.Workers) -> Collected:
    """Return every image as one sample; TIFFs, which may hold several images, are opened for their notes."""
    tiffs = [image for image in images if image.files[0].lower().endswith((".tif", ".tiff"))]
    found = {}
    if tiffs:
        with processes.pool(source, workers) as pool:
            found = {seen.source_image.name: seen for seen in processes.run(_glance, source, tiffs, pool)}
    seen = [found[image.name] for image in tiffs]
    plain = {image.name: [Record(image, image.label or "")] for image in images}
    records = [
        record for some in (plain | {one.source_image.name: one.records for one in seen}).values() for record in some
    ]
    return Collected(records, [], _notes(seen), set(), [one.stated for one in seen if one.stated is not None])


def _notes(seen: list[_Inspected]) -> list[str]:
    """Return a line for each kind of content that is not read from images, with the first such file."""
    where: dict[str, list[str]] = {}
    for one in seen:
        for note in one.notes:
            where.setdefault(note, []).append(one.source_image.files[0])
    return [f"images: {len(files)} x {note}; the first: {files[0]}" for note, files in sorted(where.items())]


def _glance(source: Source, source_image: SourceImage) -> _Inspected:
    """Inspect an image without its pixels, which are checked when it is stored. Runs in a worker."""
    label = source_image.label or ""
    try:
        with reading(source_image.files[0]):
            image = source.open_image(source_image.files, source_image.columns)
    except ReadError:
        return _Inspected(source_image, [Record(source_image, label)], Counter())
    return _seen(source_image, image, [patches.whole(source_image, image, label)], Counter())


def _seen(source_image: SourceImage, image: Image, records: list[Record], remarks: Counter[str]) -> _Inspected:
    notes = image.notes if image.spacing.is_square else (*image.notes, NOT_SQUARE)
    return _Inspected(source_image, records, remarks, image.in_strips, notes=notes, stated=image.mpp)


def _look(source: Source, item: tuple[SourceImage, Pixels | None]) -> _Inspected:
    """Inspect one image. Runs in a worker."""
    source_image, overview = item
    remarks: Counter[str] = Counter()
    try:
        with reading(source_image.files[0]):
            image = source.open_image(source_image.files, source_image.columns)
            scene = LazyScene(source, source_image, image, remarks, overview)
            records = list(patches.records(source.manifest, scene))
            labels: set[str] = set()
            if records and source.manifest.dense is not None:
                check_targets(source.manifest, source.manifest.dense, scene)
                labels = ImageTargets(source.manifest.dense, scene.annotations).present()
        return replace(_seen(source_image, image, records, remarks), grid=scene.grid, labels=frozenset(labels))
    except ReadError as error:
        return _Inspected(source_image, [], remarks, failure=source.reason(error))


def check_targets(manifest: Manifest, dense: Dense, scene: LazyScene) -> None:
    """Check that an image has what dense targets need: known labels, and a resolution for a radius in micrometres.

    Raises:
        ReadError: a label or the resolution is not known.
    """
    where = scene.source_image.files[0]
    ImageTargets(dense, scene.annotations).check(scene.remarks, where)
    known = scene.image.mpp or scene.source_image.attributes.get("mpp") or manifest.mpp
    if dense.points is not None and dense.points.radius_um is not None and not known:
        raise ReadError(
            "the resolution is not known, which the radius of points in micrometres needs",
            where=where,
            remedy="give it with --mpp, or as `mpp` in the manifest; or state `radius_px` in [dense.points]",
        )


def _background(manifest: Manifest, grid: Counter[str]) -> Iterator[str]:
    """Return a note on the patches that were dropped because they hold too little tissue."""
    rule = manifest.rule
    if isinstance(rule, Regional) and rule.tissue is not None and grid["background"]:
        yield (
            f"tissue: {grid['background']} of {counted(grid['patches'], 'patch')} hold less than "
            f"{rule.tissue:.0%} of tissue (rule {rule.tissue_rule!r}) and are left out"
        )


def _overviews(
    source: Source, images: list[SourceImage], pool: processes.WorkerPool, report: Reporter
) -> dict[str, Pixels]:
    """Return the overviews for finding tissue, by image. If there are few images, all workers share a large one.

    An image that cannot be read is left out; inspecting it later reports the reason.
    """
    if getattr(source.manifest.rule, "tissue", None) is None or len(images) > pool.size:
        return {}
    parts = [part for some in processes.run(_parts, source, images, pool) for part in some]
    read: dict[str, list[tuple[int, Pixels | None]]] = {}
    with report.bar(f"{source.manifest.task}: overviews", len(parts), unit="parts") as advance:
        for name, first, pixels in processes.run(_part, source, parts, pool):
            read.setdefault(name, []).append((first, pixels))
            advance()
    whole = {name: [pixels for _, pixels in sorted(found, key=lambda part: part[0])] for name, found in read.items()}
    return {
        name: np.concatenate([pixels for pixels in found if pixels is not None])
        for name, found in whole.items()
        if all(pixels is not None for pixels in found)
    }


def _parts(source: Source, source_image: SourceImage) -> list[tuple[SourceImage, int, int]]:
    """Divide an overview into parts for several workers. Runs in a worker."""
    try:
        with reading(source_image.files[0]):
            image = source.open_image(source_image.files, source_image.columns)
        return [(source_image, first, last) for first, last in tissue_parts(image, source.manifest.mpp)]
    except ReadError:
        return []


def _part(source: Source, item: tuple[SourceImage, int, int]) -> tuple[str, int, Pixels | None]:
    """Read one part of an overview. Runs in a worker."""
    source_image, first, last = item
    try:
        with reading(source_image.files[0]):
            image = source.open_image(source_image.files, source_image.columns)
            return source_image.name, first, tissue_part(image, first, last, source.manifest.mpp)
    except ReadError:
        return source_image.name, first, None
