"""Pictures in, their samples out: each is opened, its annotations read, its tissue found, by all workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dpconvert import readers
from dpconvert.annotations import Annotations, LabelMask
from dpconvert.card import Failure
from dpconvert.errors import ReadError
from dpconvert.image import Image, Pixels, TissueMask, tissue, tissue_part, tissue_parts
from dpconvert.manifest.model import Manifest, Regional, Whole
from dpconvert.plan import patches
from dpconvert.plural import counted
from dpconvert.runtime import processes
from dpconvert.runtime.progress import Reporter
from dpconvert.source.files import Source
from dpconvert.source.record import Picture, Record


@dataclass(frozen=True)
class Scene:
    """A picture opened for labelling; its annotations are read when a rule asks for them.

    overview: what its tissue is looked for on, where several processes have read it. grid: how many patches it has, and
    how many of them are background.
    """

    source: Source
    picture: Picture
    image: Image
    mended: Counter[str]
    overview: Pixels | None = None
    grid: Counter[str] = field(default_factory=Counter)

    @cached_property
    def annotations(self) -> Annotations | LabelMask:
        found = readers.reader(self.source.manifest).read_annotations(self.source, self.picture, self.image)
        self.mended.update(found.mended if isinstance(found, Annotations) else {})
        return found

    @cached_property
    def tissue(self) -> TissueMask:
        """Where tissue is; the whole slide is read for it, once."""
        manifest = self.source.manifest
        rule = manifest.rule.tissue_rule if isinstance(manifest.rule, Regional) else "glass"
        return tissue(self.image, self.overview, rule=rule, mpp=manifest.mpp)

    def count(self, patches: int, background: int) -> None:
        """Count patches of the grid, and those of them that hold too little tissue."""
        self.grid.update(patches=patches, background=background)


@dataclass(frozen=True)
class _Seen:
    """What looking at one picture gave: its samples, what was mended in its annotations, or why it failed."""

    picture: Picture
    records: list[Record]
    mended: Counter[str]
    grid: Counter[str]
    in_strips: bool = False
    failure: str = ""


@dataclass(frozen=True)
class Looked:
    """What looking at all pictures gave.

    records: the samples, in the order of the pictures. mended: a note of each kind of thing that was mended in
    annotations. in_strips: names of pictures stored in strips.
    """

    records: list[Record]
    failures: list[Failure]
    mended: list[str]
    in_strips: set[str]


def look(source: Source, pictures: list[Picture], workers: processes.Workers, report: Reporter) -> Looked:
    """Look at every picture for its samples, in all workers; not at all where each is a sample as a whole."""
    manifest = source.manifest
    if isinstance(manifest.rule, Whole):
        return Looked([Record(picture, picture.label or "") for picture in pictures], [], [], set())
    found: dict[str, _Seen] = {}
    with processes.pool(source, workers) as pool:
        overviews = _overviews(source, pictures, pool, report)
        items = ((picture, overviews.pop(picture.name, None)) for picture in pictures)
        with report.bar(f"{manifest.task}: plan", len(pictures), unit="pictures") as advance:
            for seen in processes.run(_look, source, items, pool):
                found[seen.picture.name] = seen
                advance()
    ordered = [found[picture.name] for picture in pictures]
    failed = [Failure(key=s.picture.name, source=s.picture.files[0], reason=s.failure) for s in ordered if s.failure]
    mended = sum((seen.mended for seen in ordered), Counter[str]())
    grid = sum((seen.grid for seen in ordered), Counter[str]())
    return Looked(
        [record for seen in ordered for record in seen.records],
        sorted(failed, key=lambda failure: failure.key),
        [*(f"annotations: {count} x {what}" for what, count in sorted(mended.items())), *_background(manifest, grid)],
        {seen.picture.name for seen in ordered if seen.in_strips},
    )


def _look(source: Source, item: tuple[Picture, Pixels | None]) -> _Seen:
    """Runs in a worker."""
    picture, overview = item
    mended: Counter[str] = Counter()
    try:
        image = source.picture(picture.files, picture.columns)
        scene = Scene(source, picture, image, mended, overview)
        records = list(patches.records(source.manifest, scene))
        return _Seen(picture, records, mended, scene.grid, image.in_strips)
    except ReadError as error:
        return _Seen(picture, [], mended, Counter(), failure=str(error))


def _background(manifest: Manifest, grid: Counter[str]) -> Iterator[str]:
    """A note of the patches that were dropped since they hold too little tissue."""
    rule = manifest.rule
    if isinstance(rule, Regional) and rule.tissue is not None and grid["background"]:
        yield (
            f"tissue: {grid['background']} of {counted(grid['patches'], 'patch')} hold less than "
            f"{rule.tissue:.0%} of tissue (rule {rule.tissue_rule!r}) and are left out"
        )


def _overviews(source: Source, pictures: list[Picture], pool: processes.Pool, report: Reporter) -> dict[str, Pixels]:
    """What tissue is looked for on, by picture: where there are few pictures, and a long one to read takes all workers.

    One that cannot be read is left out: looking at it says why.
    """
    if getattr(source.manifest.rule, "tissue", None) is None or len(pictures) > pool.size:
        return {}
    parts = [part for some in processes.run(_parts, source, pictures, pool) for part in some]
    read: dict[str, list[tuple[int, Pixels | None]]] = {}
    with report.bar(f"{source.manifest.task}: overviews", len(parts), unit="parts") as advance:
        for name, first, pixels in processes.run(_part, source, parts, pool):
            read.setdefault(name, []).append((first, pixels))
            advance()
    whole = {name: [pixels for _, pixels in sorted(found, key=lambda part: part[0])] for name, found in read.items()}
    return {
        name: np.concatenate([pixels for pixels in found if pixels is not None])
        for name, found in whole.items() if all(pixels is not None for pixels in found)
    }  # fmt: skip


def _parts(source: Source, picture: Picture) -> list[tuple[Picture, int, int]]:
    """Parts of an overview for several workers: runs in one."""
    try:
        image = source.picture(picture.files, picture.columns)
        return [(picture, first, last) for first, last in tissue_parts(image, source.manifest.mpp)]
    except ReadError:
        return []


def _part(source: Source, item: tuple[Picture, int, int]) -> tuple[str, int, Pixels | None]:
    """One part: runs in a worker."""
    picture, first, last = item
    try:
        image = source.picture(picture.files, picture.columns)
        return picture.name, first, tissue_part(image, first, last, source.manifest.mpp)
    except ReadError:
        return picture.name, first, None
