"""Find the problems of a conversion before it begins: reads names, tables, annotations and masks, but no pixels.

Where samples do not depend on pixels (images with a label, objects, points), the reported numbers by class and split
equal those of the conversion. Where they do (tissue, masks, shares of an area), a warning says so, and the check only
looks for the classes. The headers of images show whether a patch fits into them, and which are damaged or cut off; of
many whole images, only some are opened.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dpconvert.card import Split, Target
from dpconvert.errors import UserError
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import PatchGrid, Regional, Tiles, Whole
from dpconvert.manifest.splits import SplitPolicy
from dpconvert.manifest.unfinished import unfinished
from dpconvert.plan import divide, given, known_errors, patches, placement
from dpconvert.plan.collect import LazyScene, check_targets, counts_of
from dpconvert.plan.options import Options
from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from dpconvert.source import cache, target, unused
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import Record, SourceImage, kind_of_groups
from dpconvert.source.written import said

SHOWN = 10  # files
OPENED = 500  # whole images: their headers are read, and the pixels of those that state no size there
TOLD = 10  # problems of one kind
MOST_BYTES = 1 << 20  # of a mask that is read
DRAWN = unused.READ  # files of annotations that are masks
T = TypeVar("T")


@dataclass(frozen=True)
class FileExample:
    """One file with the fields read from its name, folder or table ('' where nothing was found), and its split."""

    file: str
    name: str
    group: str
    label: str
    split: str


@dataclass(frozen=True)
class Findings:
    """The result of a check. A conversion fails if there are `problems`; `warnings` are for the user to judge.

    counts: split -> samples of each class, empty where pixels decide them; of all, in a list of one, if they have
    numbers. samples: split -> its number of samples. group_kind: what the groups of the images are.
    """

    images: int = 0
    examples: list[FileExample] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    counts: dict[Split, list[int]] = field(default_factory=dict)
    groups: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[Split, int] = field(default_factory=dict)
    group_kind: str = "image"


def check(source: Source, options: Options = Options(), report: Reporter = Reporter(quiet=True)) -> Findings:  # noqa: B008
    """Check a source as a conversion would read it, without its pixels."""
    manifest = source.manifest
    unready = [str(fault)] if (fault := unfinished(manifest)) is not None else []
    try:
        images = divide.listed(manifest, source, options)
    except UserError as error:
        return Findings(
            examples=_of_patterns(source), problems=[*unready, str(error)], notes=[*said(source.written), *source.notes]
        )
    empty = [f"{file}: an empty file" for image in images for file in image.files if source.sizes.get(file) == 0]
    problems, seen = _look(source, images, report)
    if images and len(seen.small) == len(images):
        problems.append(f"no image gives a sample, because all are smaller than a patch; the first: {seen.small[0]}")
    problems = [*_cut(empty), *_cut(problems)]
    absent = known_errors.not_found(manifest, options, images, seen.records) if seen.exact else []
    found = divide.classified(manifest, options, seen.records)
    splits, sizes = dict[str, Split](), dict[Split, int]()
    classes, counts, warnings = list(manifest.classes), dict[Split, list[int]](), seen.warnings(manifest, options)
    try:
        if seen.exact and found:
            divided = divide.divide(manifest, source, options, found)
            classes, counts, splits = divided.classes, divided.counts, divided.splits
            sizes = divided.samples
            warnings += [*divided.empty_sets(), *divided.notes]
            warnings += _of_one_class(classes) if manifest.target == "class" else []
        elif seen.exact and not problems:
            left_out = "; ".join(counts_of(seen.remarks)) or "nothing of what the rule looks for is annotated"
            problems.append(f"no image gives a sample: {left_out}")
    except UserError as error:
        problems.append(str(error))
    not_used = given.not_used(given.Given(manifest, options, source, images, seen.stated)) if not problems else []
    notes = [*said(source.written), *cache.copies_counted(source.notes), *absent, *not_used]
    return Findings(
        len(images),
        [_example(image, splits, manifest.target) for image in _spread(images)],
        classes,
        counts,
        len({image.group for image in images}),
        [*unready, *problems],
        warnings,
        notes,
        sizes,
        manifest.group.kind or kind_of_groups(images),
    )


@dataclass
class _Tally:
    """The samples of all images; where pixels decide them (not `exact`), the groups that may hold each class.

    unread: how many of the masks are too large to be checked. small: a line for each image that is smaller than a
    patch. remarks: annotations that are left out or changed. stated: resolutions
    that files state.
    """

    records: list[Record] = field(default_factory=list)
    exact: bool = True
    masks: int = 0
    unread: int = 0
    small: list[str] = field(default_factory=list)
    holders: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    groups: set[str] = field(default_factory=set)
    remarks: Counter[str] = field(default_factory=Counter)
    stated: list[float] = field(default_factory=list)

    def warnings(self, manifest: Manifest, options: Options) -> list[str]:
        """Warnings about annotations that are not read, and about sets that must be empty whatever the samples are."""
        small = [
            f"{counted(len(self.small), 'image')} smaller than a patch, the first: {one}" for one in self.small[:1]
        ]
        if self.unread:
            small.append(f"{self.unread} of {counted(self.masks, 'mask')} not checked: files of more than 1 MiB")
        small += counts_of(self.remarks)
        if self.exact:
            return small
        what = "pixels of masks" if self.masks else "pixels"
        lines = [*small, f"{what} decide which samples exist: samples by class and split are counted by the conversion"]
        wanted = _sets(manifest.policy(options.split))
        if len(self.groups) < wanted:
            lines.append(f"{counted(len(self.groups), 'group')} for {wanted} sets: one of them will be empty")
        elif not self.masks:
            lines += [
                f"class {label!r} occurs in {counted(len(self.holders[label]), 'group')} for {wanted} sets"
                for label in manifest.classes[1:]
                if len(self.holders[label]) < wanted
            ]
        return lines


def _of_one_class(classes: list[str]) -> list[str]:
    """Return a warning about a task with a single class."""
    if len(classes) != 1:
        return []
    return [
        f"one class only, {classes[0]!r}: a network has nothing to tell apart here; add a class, or choose a [rule] "
        "that makes patches with and without it, such as presence or area"
    ]


def _sets(policy: SplitPolicy) -> int:
    """The number of sets among which a policy divides the groups that it does not name."""
    if policy.official or policy.named():
        return 1
    drawn = sum(part > 0 for part in policy.share) if policy.share else 1
    return drawn + (policy.validation is not None)


def _look(source: Source, images: list[SourceImage], report: Reporter) -> tuple[list[str], _Tally]:
    """Return the problems of the images, and their content."""
    seen, problems = _Tally(groups={image.group for image in images}), list[str]()
    if isinstance(source.manifest.rule, Whole | Tiles):
        seen.records = [Record(image, image.label) for image in images if image.label is not None]
        if source.manifest.dense is None and isinstance(source.manifest.rule, Whole):
            return _damaged(source, images), seen
    with report.bar(f"{source.manifest.task}: annotations", len(images), unit="images") as advance:
        for image in images:
            try:
                _look_at(source, image, seen)
            except UserError as error:
                problems.append(source.reason(error))
            advance()
    source.close()
    return problems, seen


def _damaged(source: Source, images: list[SourceImage]) -> list[str]:
    """Return the problems of whole images that cannot be opened, among OPENED at most, from the first to the last."""
    problems = []
    for image in images[:: -(-len(images) // OPENED)] if images else ():
        if any(map(source.is_array, image.files)) or not all(source.sizes.get(file, 1) for file in image.files):
            continue  # empty files are reported by all of them
        try:
            source.open_image(image.files, image.columns)
        except UserError as error:
            problems.append(source.reason(error))
    source.close()
    return problems


def _look_at(source: Source, image: SourceImage, seen: _Tally) -> None:
    """Add the content of one image."""
    manifest = source.manifest
    opened = source.open_image(image.files, image.columns)
    seen.stated += [] if opened.mpp is None else [opened.mpp]
    scene = LazyScene(source, image, opened, seen.remarks)
    if isinstance(manifest.rule, PatchGrid) and not (fit := placement.fitting(manifest.rule, manifest, scene)).count:
        size = f"{scene.image.width} x {scene.image.height} px, for patches of {fit.width} x {fit.height}"
        seen.small.append(f"{image.files[0]}: {size}")
    has_label = isinstance(manifest.rule, Whole | Tiles)
    masks = [name for name in image.annotations if DRAWN.search(unused.suffix(name))]
    if masks and manifest.reads_annotations:
        seen.masks += len(masks)
        seen.exact = seen.exact and has_label
        if max(source.sizes.get(name, 0) for name in masks) > MOST_BYTES:
            seen.unread += len(masks)
        elif manifest.dense is not None:
            check_targets(manifest, manifest.dense, scene)
        else:
            _ = scene.annotations
        return
    if manifest.dense is not None:
        check_targets(manifest, manifest.dense, scene)
    if has_label:
        return
    if not isinstance(manifest.rule, Regional):
        seen.records += patches.records(manifest, scene)
        return
    seen.exact = False
    for label in patches.labels(manifest.rule, manifest, scene):
        seen.holders[manifest.classes[int(label in manifest.rule.positive)]].add(image.group)


def _of_patterns(source: Source) -> list[FileExample]:
    """Files by their patterns only, if the reader refuses the source: images, else files of the first kind found."""
    for kind in sorted(source.manifest.files, key=lambda kind: kind not in {"images", "slides", "crops"}):
        if found := source.match(kind):
            return [_by_pattern(one) for one in _spread(found)]
    return []


def _by_pattern(found: MatchedFile) -> FileExample:
    return FileExample(found.name, found.get("name"), found.get("group"), found.get("class"), found.get("split"))


def _example(image: SourceImage, splits: dict[str, Split], of: Target) -> FileExample:
    split = splits.get(image.name) or image.split or ""
    label = image.label or ""
    if label and of == "labels":
        label = target.in_words(of, label)
    return FileExample(image.files[0], image.name, image.group, label, split)


def _spread(items: Sequence[T]) -> Sequence[T]:
    """Return at most SHOWN items, spread evenly from the first to the last."""
    if len(items) <= SHOWN:
        return items
    return [items[i * (len(items) - 1) // (SHOWN - 1)] for i in range(SHOWN)]


def _cut(problems: list[str]) -> list[str]:
    """Return the first problems, and a line with the number of the others."""
    more = len(problems) - TOLD
    return problems if more <= 0 else [*problems[:TOLD], f"and {more} more such problems"]
