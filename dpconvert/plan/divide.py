"""Select the images and samples of a source that count, and determine their classes and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dpconvert import names, readers
from dpconvert.card import SPLITS, Split, empty_sets
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.catalog import typed
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Crop, Tiles, Whole
from dpconvert.plan.known_errors import absent, doubtful, unused_errata, wrong_images, wrong_samples
from dpconvert.plan.options import Options
from dpconvert.plan.split import assign, contents, spelt
from dpconvert.plural import counted
from dpconvert.readers import stated_sets
from dpconvert.source import target, unused
from dpconvert.source.files import Source
from dpconvert.source.name_encoding import explained
from dpconvert.source.record import Record, SourceImage

WITH_SKIP = ("table", "arrays", "parquet", "webdataset", "slides")  # shapes


@dataclass(frozen=True)
class Divided:
    """The classes of samples, and two mappings: image -> group id, image -> split.

    counts: split -> samples of each class; of all, as a list of one, if they have numbers. notes: on constant labels,
    and on groups that may be one. samples: split -> its number of samples.
    """

    classes: list[str]
    groups: dict[str, str]
    splits: dict[str, Split]
    counts: dict[Split, list[int]]
    samples: dict[Split, int]
    notes: tuple[str, ...] = ()

    def empty_sets(self) -> list[str]:
        """A line for each set, and each class of a set, that holds no sample."""
        return empty_sets(self.classes, self.counts, self.samples)


def divide(manifest: Manifest, source: Source, options: Options, found: list[Record]) -> Divided:
    """Count the samples by class and split.

    Raises:
        SourceError: a label is not a class, all numbers are equal, or official sets cannot be kept.
    """
    _check_numbers(manifest, source, found)
    classes = [] if manifest.target == "value" else _classes(manifest, source, found)
    groups, splits = _splits(manifest, options, found)
    sizes = Counter(splits[record.source_image.name] for record in found)
    samples = {split: sizes[split] for split in SPLITS}
    images = list({record.source_image.name: record.source_image for record in found}.values())
    alike = (*_alike(images, splits), *_unknown(images))
    if manifest.target == "value":
        return Divided(classes, groups, splits, {split: [sizes[split]] for split in SPLITS}, samples, alike)
    tally = Counter((splits[r.source_image.name], label) for r in found for label in _named(manifest, r))
    counts = {split: [tally[split, label] for label in classes] for split in SPLITS}
    constant = _constant(manifest, classes, counts, len(found))
    return Divided(classes, groups, splits, counts, samples, (*constant, *alike))


def _alike(images: list[SourceImage], splits: dict[str, Split]) -> Iterator[str]:
    """Yield a note on groups in several sets whose names look the same."""
    found: dict[str, dict[str, set[Split]]] = {}
    for image in images:
        if image.group not in (image.name, *image.files):
            found.setdefault(names.seen(image.group), {}).setdefault(image.group, set()).add(splits[image.name])
    divided = [sorted(same) for same in found.values() if len(same) > 1 and len(set().union(*same.values())) > 1]
    if divided:
        first = " and ".join(map(repr, divided[0]))
        yield (
            f"{counted(len(divided), 'group')} may be divided between sets, with names that differ only in case, "
            f"blanks or zeros before numbers, the first {first}: if they are one, write them alike"
        )


def _unknown(images: list[SourceImage]) -> Iterator[str]:
    """Yield a note on groups of several images whose names read as if none were known, such as R's NA."""
    sizes = Counter(image.group for image in images if image.group not in (image.name, *image.files))
    for group, size in sorted(sizes.items()):
        if size > 1 and names.reads_missing(group):
            yield (
                f"the group {group!r} reads as if none were known: its {size} images count as one group; if so, leave "
                "it empty, and each is a group of its own"
            )


def _named(manifest: Manifest, record: Record) -> list[str]:
    """Return the classes of a record."""
    return target.classes_in(manifest.target, record.label)


def _check_numbers(manifest: Manifest, source: Source, found: list[Record]) -> None:
    if manifest.target == "value" and len(found) > 1 and len({record.label for record in found}) == 1:
        raise SourceError(
            f"all {len(found)} samples have the number {float(found[0].label):g}: there is nothing to learn",
            where=source.root,
            remedy="name another column or group in the manifest",
        )


def _constant(manifest: Manifest, classes: list[str], counts: dict[Split, list[int]], samples: int) -> Iterator[str]:
    """Yield a note for each class that all samples have, of tasks whose samples have any number of classes."""
    if manifest.target == "labels":
        for number, name in enumerate(classes):
            if sum(of_split[number] for of_split in counts.values()) == samples:
                yield f"every sample has class {name!r}: no score is defined for it"


def listed(manifest: Manifest, source: Source, options: Options) -> list[SourceImage]:
    """Return the images of a source without those known to be wrong, and add notes on unused files to the source.

    Raises:
        SourceError: there are no images, two have the same name, or one lacks what the rule needs to label it.
        ManifestError: the rule needs annotations, but this layout reads none; or it reads no labels of this kind.
    """
    _check_kind(manifest)
    wrong, samples = wrong_images(manifest, options, "pictures"), wrong_samples(manifest, options)
    try:
        images = stated_sets.divided(source, list(readers.reader(manifest).images(source)))
    except SourceError as error:
        raise explained(error, source.encoding) from None
    source.notes += unused.notes(source, {file for p in images for file in (*p.files, *p.annotations)})
    twice = [name for name, count in Counter(p.name for p in images).items() if count > 1]
    if twice:
        files = [p.files[0] for p in images if p.name == twice[0]]
        raise SourceError(
            "two images of one name",
            where=source.root,
            found=" and ".join(files[:2]),
            remedy="let (?P<name>...) of the pattern also hold what tells them apart, such as their folder",
        )
    source.notes += absent(samples, {p.name for p in images}, "and no image here")
    source.notes += unused_errata(manifest, options, images)
    left_out = {name for name, box in samples if box is None}
    kept = [p for p in images if p.name not in left_out and not any(pattern.search(p.name) for pattern in wrong)]
    if not kept:
        raise SourceError(
            "nothing to convert here", where=source.root, remedy=f"see `dpconvert show {typed(manifest)}`"
        )
    _check_labels(manifest, kept)
    return [replace(p, group=names.whole(p.group)) for p in kept]


def _check_kind(manifest: Manifest) -> None:
    """Check that the reader reads what samples are to be labelled with."""
    if manifest.target not in getattr(readers.reader(manifest), "TARGETS", ("class",)):
        raise ManifestError(
            f"kind {manifest.kind!r}: {readers.described(manifest)} reads one class for an image only",
            where=manifest.path,
            remedy=f"use one of the shapes {', '.join(readers.shapes_of(manifest.target))}",
        )


def _check_labels(manifest: Manifest, images: list[SourceImage]) -> None:
    """Check that the rule can label every image, by its own label or by annotations that the reader reads."""
    rule = manifest.rule
    bare = next((image for image in images if not image.label), None)
    if isinstance(rule, Whole | Tiles):
        if bare is not None:
            raise SourceError(
                "no label is known for this image",
                where=bare.files[0],
                expected=f"one, for the rule {rule.type!r}",
                remedy="name the class in the pattern, as (?P<class>...), or a column `label` in [layout]; where "
                "annotations hold the classes, choose another [rule]",
            )
    elif (bare is not None or not isinstance(rule, Crop)) and not _can_read_annotations(manifest):
        raise ManifestError(
            f"rule {rule.type!r} needs annotations, which {readers.described(manifest)} does not read",
            where=manifest.path,
            remedy="use the shape points, masks or slides, or the rule 'whole' or 'tiles'",
        )
    if manifest.dense is not None and not _can_read_annotations(manifest):
        raise ManifestError(
            f"[dense] needs annotations, which {readers.described(manifest)} does not read",
            where=manifest.path,
            remedy="use the shape points, masks or slides, or leave [dense] out",
        )


def _can_read_annotations(manifest: Manifest) -> bool:
    return hasattr(readers.reader(manifest), "read_annotations")


def classified(manifest: Manifest, options: Options, found: list[Record]) -> list[Record]:
    """Return the records that count, with classes spelt as in the manifest."""
    wrong = wrong_samples(manifest, options)
    kept = [r for r in found if (r.source_image.name, r.box) not in wrong] if wrong else found
    return _without_doubtful(manifest, options, _with_classes(manifest, kept))


def _without_doubtful(manifest: Manifest, options: Options, found: list[Record]) -> list[Record]:
    """Return the records without those of class 0 from incompletely annotated images."""
    if not wrong_images(manifest, options, "negatives"):
        return found
    negative, is_doubtful = manifest.classes[0], doubtful(manifest, options)
    return [r for r in found if r.label != negative or not is_doubtful(r.source_image.name)]


def _with_classes(manifest: Manifest, found: list[Record]) -> list[Record]:
    """Return records with classes spelt as in the manifest, if a label differs only in case or Unicode form."""
    labels = {record.label for record in found} - set(manifest.classes)
    spelt = {label: target.spelt(manifest.target, label, manifest.classes) for label in labels}
    changed = any(label != same for label, same in spelt.items())
    return [replace(r, label=spelt.get(r.label, r.label)) for r in found] if changed else found


def _classes(manifest: Manifest, source: Source, found: list[Record]) -> list[str]:
    """Return the classes of the manifest, else those of the reader in its order, else the sorted labels found."""
    labels = {label for record in found for label in _named(manifest, record)}
    ordered = getattr(readers.reader(manifest), "classes", None)
    classes = manifest.classes or (ordered(source) if ordered else _found(manifest, labels, found))
    unknown = sorted(labels - set(classes))
    if unknown:
        where = next(r.source_image.files[0] for r in found if unknown[0] in _named(manifest, r))
        raise SourceError(
            f"{unknown[0]!r} is not a class of this task",
            where=where,
            expected=", ".join(classes),
            remedy=_placeholder(manifest.shape, unknown[0]) if names.reads_missing(unknown[0]) else None,
        )
    return classes


def _placeholder(shape: str, label: str) -> str:
    """The advice on a label that reads as if there were none."""
    if shape in WITH_SKIP:
        leave_out = f'say skip = ["{label}"] in [layout]'
    elif shape == "folders":
        leave_out = "leave such images out of the pattern of [files.images]"
    else:
        leave_out = "leave such images out"
    return f"if it says that there is no label, {leave_out}; if it is a class, add it to `classes`"


def _found(manifest: Manifest, labels: set[str], found: list[Record]) -> list[str]:
    """The sorted labels as classes, which nothing confirms.

    Raises:
        SourceError: one is empty or reads like a missing value or a date of a spreadsheet, or two look the same.
    """
    if "" in labels:
        raise SourceError(
            "a sample without a label",
            where=next(r.source_image.files[0] for r in found if "" in _named(manifest, r)),
            remedy="name the task's `classes` in the manifest; for annotations without a label, say in [layout] what "
            """they are, as in labels = {"" = "tumour"}""",
        )
    by_key: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_key.setdefault(names.alike(label), []).append(label)
    spelt = next((same for same in by_key.values() if len(same) > 1), [])
    missing = sorted(filter(names.reads_missing, labels))
    if spelt or missing:
        first = (spelt or missing)[0]
        raise SourceError(
            f"classes that look the same but for case, blanks or decimals: {', '.join(map(repr, spelt))}"
            if spelt
            else f"the label {first!r} reads like a missing value",
            where=next(r.source_image.files[0] for r in found if first in _named(manifest, r)),
            remedy="name the task's `classes` in the manifest" + ("" if spelt else ", or leave such rows out (`skip`)"),
        )
    if manifest.shape in WITH_SKIP and (dates := sorted(filter(names.reads_date, labels))):
        raise SourceError(
            f"the label {dates[0]!r} reads like a date, which spreadsheets make of texts such as '1-2' or 'MARCH1'",
            where=next(r.source_image.files[0] for r in found if dates[0] in _named(manifest, r)),
            remedy="format the column as text and enter the labels again; if they are right, name `classes`",
        )
    return sorted(labels)


def _splits(manifest: Manifest, options: Options, found: list[Record]) -> tuple[dict[str, str], dict[str, Split]]:
    """Return two mappings: image -> group id, image -> split."""
    policy = manifest.policy(options.split)
    unit = {r.source_image.name: _unit(r.source_image, policy.unit) for r in found}
    strata = target.strata(manifest.target, [record.label for record in found])
    groups = contents(
        (unit[r.source_image.name], label, r.source_image.split)
        for r, some in zip(found, strata, strict=True)
        for label in some
    )
    policy = spelt(policy, groups)
    assigned = assign(groups, policy, manifest.namespace if policy.draw == "hashed" else manifest.task)
    namespaced = {r.source_image.name: f"{manifest.namespace}:{r.source_image.group}" for r in found}
    return namespaced, {name: assigned[group] for name, group in unit.items()}


def _unit(image: SourceImage, unit: str) -> str:
    if unit == "picture":
        return image.name
    return image.group if unit == "group" else image.attributes[unit]
