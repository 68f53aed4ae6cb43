"""Makes the plan of a conversion before any pixel is stored: one row per sample, in the order of the shards.

Each shard depends only on its rows and the source files. Shards can therefore be made in any order and by any number of
processes, and an interrupted run resumes with the missing ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from dpconvert.card import SPLITS, Failure, Split
from dpconvert.errors import SourceError
from dpconvert.image import BLOCK, CELL
from dpconvert.manifest.model import Manifest
from dpconvert.plan import given
from dpconvert.plan.collect import look
from dpconvert.plan.divide import Divided, classified, divide, listed
from dpconvert.plan.given import Given
from dpconvert.plan.known_errors import doubtful, not_found
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import AnnotationFiles, Plan, PlanRow
from dpconvert.plural import counted
from dpconvert.runtime import processes
from dpconvert.runtime.progress import Reporter
from dpconvert.source import cache, target
from dpconvert.source.files import Source
from dpconvert.source.record import Record, SourceImage, hashed, kind_of_groups

VERSION = 5  # raised whenever the same manifest, options and files would give another plan
TOLD = 10  # failures
LONGEST = 78  # characters of a key
HASHED = 75  # characters before its hash: with it and ".seg.png", a key fills the 100 bytes of a name in a tar header
PLAIN_NAME = re.compile(r"[^a-z0-9_-]+")
SPLIT_ORDER = {split: number for number, split in enumerate(SPLITS)}


def fingerprint(manifest: Manifest, source: Source, options: Options) -> dict[str, str]:
    """Return named digests of all that determines the plan, and so every byte; equal requests make equal shards."""
    chosen = options.text()
    return {"version": str(VERSION), "manifest": manifest.digest, "source": source.digest(), "options": chosen}


def make(source: Source, options: Options, workers: processes.Workers, report: Reporter) -> Plan:
    """Make the plan: inspect every image of the source, and list its samples.

    Raises:
        SourceError: there are no images, two have the same name, a label is not a class, or images cannot be read.
    """
    manifest = source.manifest
    images = listed(manifest, source, options)
    seen = look(source, images, workers, report)
    found, failures = seen.records, seen.failures
    if failures and not options.skip_failed:
        raise _unreadable(source, images, failures, report)
    absent = not_found(manifest, options, images, found)
    found = classified(manifest, options, found)
    if not found:
        raise _without_samples(manifest, source, images, seen.notes)
    divided = divide(manifest, source, options, found)
    rows = _rows(manifest, options, divided, found, seen.in_strips)
    not_used = given.not_used(Given(manifest, options, source, images, seen.stated))
    notes = [
        *cache.copies_counted(source.notes),
        *absent,
        *divided.empty_sets(),
        *divided.notes,
        *not_used,
        *seen.notes,
        *_empty(images, found, failures),
    ]
    return Plan(divided.classes, rows, notes, failures, "" if manifest.group.kind else kind_of_groups(images))


def _unreadable(source: Source, images: list[SourceImage], failures: list[Failure], report: Reporter) -> SourceError:
    """Return the error for images that cannot be read, and note the first of them."""
    for failure in failures[:TOLD]:
        report.note(f"failed: {failure.key}: {failure.reason}")
    return SourceError(
        f"{len(failures)} of {counted(len(images), 'image')} cannot be read, the first: {failures[0].reason}",
        where=source.root,
        remedy="repair them, or leave them out with --skip-failed",
    )


def _without_samples(
    manifest: Manifest, source: Source, images: list[SourceImage], notes: Sequence[str]
) -> SourceError:
    """Return the error for a source whose images give no sample."""
    left_out = [note for note in notes if note.startswith("annotations: ")]
    return SourceError(
        f"none of {counted(len(images), 'image')} gives a sample",
        where=source.root,
        found="; ".join(left_out) or None,
        expected=f"annotations of {', '.join(manifest.classes)}" if left_out and manifest.classes else None,
        remedy="let `labels` in [layout], or `classes`, name what the annotations say"
        if left_out
        else "the rule's patches may be larger than the images, or nothing of what it looks for is annotated",
    )


def _rows(
    manifest: Manifest, options: Options, divided: Divided, found: list[Record], in_strips: Collection[str]
) -> list[PlanRow]:
    """Return the rows in the order of the shards. in_strips: names of images whose files are stored in strips."""
    groups, splits = divided.groups, divided.splits
    limited = _limited(manifest, found, splits, options.limit)
    place = {name: (SPLIT_ORDER[split], hashed(name)) for name, split in splits.items()}
    ordered = sorted(limited, key=lambda r: (*place[r.source_image.name], _block(r, r.source_image.name in in_strips)))
    keys = _keys(ordered)
    places = _shard_names([splits[r.source_image.name] for r in ordered], options.samples_per_shard)
    is_doubtful = doubtful(manifest, options)
    stored = target.reader(manifest.target, divided.classes)
    return [
        PlanRow(
            key=key,
            split=splits[record.source_image.name],
            shard=shard,
            label=stored(record.label),
            group=groups[record.source_image.name],
            source_image=record.source_image.name,
            files=record.source_image.files,
            columns=record.source_image.columns,
            box=record.box,
            stored=record.stored,
            attributes=record.source_image.attributes,
            annotations=None if manifest.dense is None else _drawn(record.source_image, is_doubtful),
        )
        for record, key, shard in zip(ordered, keys, places, strict=True)
    ]


def _drawn(image: SourceImage, is_doubtful: Callable[[str], bool]) -> AnnotationFiles:
    return AnnotationFiles(image.annotations, image.extra, exhaustive=not is_doubtful(image.name))


def _empty(images: list[SourceImage], found: list[Record], failures: list[Failure]) -> list[str]:
    """Return a note on the readable images that gave no sample."""
    rest = {p.name for p in images} - {r.source_image.name for r in found} - {f.key for f in failures}
    if not rest:
        return []
    names = sorted(rest)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return [f"{len(names)} of {counted(len(images), 'image')} gave no sample: {', '.join(names[:5])}{more}"]


def _limited(manifest: Manifest, found: list[Record], splits: dict[str, Split], limit: int | None) -> list[Record]:
    """Return at most `limit` records of each class in each split, drawn by hash; of each set of classes if images have
    several; of each split if they have numbers.
    """
    if limit is None:
        return found
    order = sorted(range(len(found)), key=lambda i: hashed(found[i].source_image.name, "limit", i))
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for index in order:
        label = "" if manifest.target == "value" else found[index].label
        place = splits[found[index].source_image.name], label
        taken[place] += 1
        if taken[place] <= limit:
            kept.append(index)
    return [found[index] for index in sorted(kept)]


def _block(record: Record, in_strips: bool) -> tuple[int, ...]:
    """Return the part of an image that a sample lies in. Samples of one part are adjacent, so it is decoded once.

    A part is a square of several patches, or a row of patches if the file is stored in strips.
    """
    if record.box is None:
        return ()
    x, y = record.box.x, record.box.y
    return (y,) if in_strips else (y // BLOCK, x // BLOCK, y // CELL, x // CELL)


def _keys(records: list[Record]) -> list[str]:
    """Return unique keys of [a-z0-9_-]: the image's name and the position in it, with a hash if two would be equal.

    They do not depend on dense targets, so that a sample has one key with and without them.
    """
    full = [f"{r.source_image.name}_{s}" if (s := _suffix(r)) else r.source_image.name for r in records]
    keys = [PLAIN_NAME.sub("-", name.lower()).strip("-_")[-LONGEST:] or "sample" for name in full]
    often, seen = Counter(keys), Counter[str]()
    told_apart = []
    for key, name in zip(keys, full, strict=True):
        told_apart.append(key if often[key] == 1 else f"{key[-HASHED:]}-{hashed(name, seen[name]):016x}")
        seen[name] += 1  # two objects of one outline are two samples
    return told_apart


def _suffix(record: Record) -> str:
    if record.suffix or record.box is None:
        return record.suffix
    return "_".join(map(str, record.box))


def _shard_names(splits: list[Split], size: int) -> list[str]:
    seen: Counter[Split] = Counter()
    names = []
    for split in splits:
        names.append(f"{split}-{seen[split] // size:06d}.tar")
        seen[split] += 1
    return names
