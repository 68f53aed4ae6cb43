"""What a conversion would stumble on, before it begins: names, tables and annotations are read, but no pixels.

Where the samples can be told so (images with a label, objects, points), their numbers by class and split are those of
the conversion. Where pixels decide them (tissue, masks, shares of an area), that is said, and classes are only sought.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dpconvert.card import Split
from dpconvert.errors import UserError
from dpconvert.manifest.model import Manifest, SplitPolicy
from dpconvert.manifest.rules import Regional, Tiles, Whole
from dpconvert.plan import divide, patches
from dpconvert.plan.collect import LazyScene, check_targets
from dpconvert.plan.options import Options
from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from dpconvert.source import unused
from dpconvert.source.files import MatchedFile, Source
from dpconvert.source.record import Record, SourceImage

SHOWN = 10  # files
TOLD = 10  # problems of one kind
DRAWN = unused.READ  # files of annotations that are masks
T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """One file, and what was taken out of its name, a table or its folder: '' for nothing. split: where it goes."""

    file: str
    name: str
    group: str
    label: str
    split: str


@dataclass(frozen=True)
class Findings:
    """What conversion will find. It fails where there are `problems`; `warnings` are for people to judge.

    counts: split -> samples of each class, as far as they can be told without pixels; empty if not.
    """

    images: int = 0
    examples: list[Example] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    counts: dict[Split, list[int]] = field(default_factory=dict)
    groups: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(source: Source, options: Options = Options(), report: Reporter = Reporter(quiet=True)) -> Findings:  # noqa: B008
    """Look at a source as a conversion would."""
    manifest = source.manifest
    try:
        images = divide.listed(manifest, source, options)
    except UserError as error:
        return Findings(examples=_of_patterns(source), problems=[str(error)], notes=source.notes)
    empty = [f"{file}: an empty file" for image in images for file in image.files if source.sizes.get(file) == 0]
    problems, seen = _look(source, images, report)
    problems = [*_cut(empty), *_cut(problems)]
    found = divide.classified(manifest, options, [record for record in seen.records if record.label])
    splits: dict[str, Split] = {}
    classes, counts, warnings = list(manifest.classes), dict[Split, list[int]](), seen.warnings(manifest, options)
    try:
        if seen.exact and found:
            divided = divide.divide(manifest, source, options, found)
            classes, counts, splits = divided.classes, divided.counts, divided.splits
            warnings += divided.empty_sets()
        elif seen.exact and not problems:
            problems.append("no image gives a sample: nothing of what the rule looks for is annotated")
    except UserError as error:
        problems.append(str(error))
    return Findings(
        len(images), [_example(image, splits) for image in _spread(images)], classes, counts,
        len({image.group for image in images}), problems, warnings, source.notes,
    )  # fmt: skip


@dataclass
class _Seen:
    """What all images give: their samples, or where pixels decide (not `exact`) the groups that may hold a class."""

    records: list[Record] = field(default_factory=list)
    exact: bool = True
    masks: int = 0
    holders: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    groups: set[str] = field(default_factory=set)

    def warnings(self, manifest: Manifest, options: Options) -> list[str]:
        """What is known of sets that will be empty although their samples are not known."""
        if self.exact:
            return []
        what = f"{counted(self.masks, 'mask')} not looked into" if self.masks else "pixels decide which samples exist"
        told = [f"{what}: samples by class and split are counted by the conversion"]
        wanted = _sets(manifest.policy(options.split))
        if len(self.groups) < wanted:
            told.append(f"{counted(len(self.groups), 'group')} for {wanted} sets: one of them will be empty")
        elif not self.masks:
            told += [
                f"class {label!r} occurs in {counted(len(self.holders[label]), 'group')} for {wanted} sets"
                for label in manifest.classes[1:] if len(self.holders[label]) < wanted
            ]  # fmt: skip
        return told


def _sets(policy: SplitPolicy) -> int:
    """How many sets a policy divides groups among that it does not name."""
    if policy.official or policy.named():
        return 1
    drawn = sum(part > 0 for part in policy.share) if policy.share else 1
    return drawn + (policy.validation is not None)


def _look(source: Source, images: list[SourceImage], report: Reporter) -> tuple[list[str], _Seen]:
    """The problems of images, and what they hold."""
    seen, problems = _Seen(groups={image.group for image in images}), list[str]()
    if isinstance(source.manifest.rule, Whole | Tiles):
        seen.records = [Record(image, image.label or "") for image in images]
        if source.manifest.dense is None:
            return problems, seen
    with report.bar(f"{source.manifest.task}: annotations", len(images), unit="images") as advance:
        for image in images:
            try:
                _look_at(source, image, seen)
            except UserError as error:
                problems.append(source.reason(error))
            advance()
    source.close()
    return problems, seen


def _look_at(source: Source, image: SourceImage, seen: _Seen) -> None:
    """Add what one image holds."""
    manifest = source.manifest
    has_label = isinstance(manifest.rule, Whole | Tiles)
    masks = [name for name in image.annotations if DRAWN.search(unused.suffix(name))]
    if masks:
        seen.masks += 0 if has_label else len(masks)
        seen.exact = seen.exact and has_label
        return
    scene = LazyScene(source, image, source.open_image(image.files, image.columns), Counter())
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


def _of_patterns(source: Source) -> list[Example]:
    """Files by their patterns alone, where the reader refuses the source: images, else of the first kind here."""
    for kind in sorted(source.manifest.files, key=lambda kind: kind not in {"images", "slides", "crops"}):
        if found := source.match(kind):
            return [_by_pattern(one) for one in _spread(found)]
    return []


def _by_pattern(found: MatchedFile) -> Example:
    return Example(found.name, found.get("name"), found.get("group"), found.get("class"), found.get("split"))


def _example(image: SourceImage, splits: dict[str, Split]) -> Example:
    split = splits.get(image.name) or image.split or ""
    return Example(image.files[0], image.name, image.group, image.label or "", split)


def _spread(items: Sequence[T]) -> Sequence[T]:
    """At most SHOWN of them, evenly from the first to the last."""
    if len(items) <= SHOWN:
        return items
    return [items[i * (len(items) - 1) // (SHOWN - 1)] for i in range(SHOWN)]


def _cut(problems: list[str]) -> list[str]:
    """The first problems, and how many more there are."""
    more = len(problems) - TOLD
    return problems if more <= 0 else [*problems[:TOLD], f"and {more} more such problems"]
