"""Complete a task folder: write the index, the side files, and last the card, with expected and actual counts."""

from __future__ import annotations

import json
import platform
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import PIL
from PIL import features

from dpconvert import __version__
from dpconvert.card import (
    FILE_NAME,
    INDEX_NAME,
    SPLITS,
    BoxesCard,
    DenseCard,
    Difference,
    Failure,
    InstancesCard,
    PointsCard,
    SegCard,
    Split,
    SplitCard,
    TaskCard,
    dataset_digest,
    dump,
    empty_sets,
    metric_of,
    schema_of,
)
from dpconvert.image import openslide_version
from dpconvert.manifest.dense import Dense
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Regional, Whole
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import Plan
from dpconvert.plan.targets import pixels_of_radius
from dpconvert.plural import counted
from dpconvert.runtime.atomic import replaced
from dpconvert.shards import sidefiles
from dpconvert.shards.index import OBJECT_COLUMNS, SEG_COLUMNS, TARGET_COLUMNS, Entry, write_index
from dpconvert.shards.tar import Written
from dpconvert.source.files import Source


def finish(
    source: Source,
    options: Options,
    chosen: Plan,
    folder: Path,
    request: dict[str, str],
    written: list[Written],
    failures: list[Failure],
) -> TaskCard:
    """Write the index, the side files and last the card of a task. Returns the card.

    Raises:
        OutputError: a file cannot be written.
    """
    manifest = source.manifest.grouped_by(chosen.group_kind)
    shards = [part.shard for part in written]
    entries = [entry for part in written for entry in part.entries]
    index = write_index(folder / INDEX_NAME, entries, index_columns(manifest))
    cards = {split: _split_card(entries, split, len(chosen.classes)) for split in SPLITS}
    splits = {split: card for split, card in cards.items() if card.samples}
    partial = _partial(manifest, source, options, len(failures))
    emptied = _emptied(chosen, splits) if failures else []
    card = TaskCard(
        **_of_manifest(manifest, chosen.classes),
        split_policy=options.split,
        splits=splits,
        expectations=differences(manifest, options, splits, partial),
        notes=[*manifest.notes, *chosen.notes, *emptied, *_of_files(manifest, entries, options)],
        options=options.fields() | _of_pixels(manifest),
        request=json.dumps(request, sort_keys=True),
        plan=chosen.digest(),
        digest=dataset_digest(shards),
        index=index,
        shards=shards,
        failures=failures,
        tools=tools(),
        dense=_dense_card(manifest.dense, written),
    )
    card = card.model_copy(update={"side_files": sidefiles.write(folder, card, entries)})
    with replaced(folder / FILE_NAME) as file:
        file.write(dump(card))
    return card


def _of_manifest(manifest: Manifest, classes: list[str]) -> dict[str, Any]:
    """Return the fields of the card that describe the task, whatever was converted of it."""
    metric = metric_of(manifest.kind, classes)
    return {
        "schema_version": schema_of(metric),
        "task": manifest.task,
        "source": manifest.name,
        "title": manifest.title,
        "kind": manifest.kind,
        "classes": classes,
        "metric": metric,
        "organ": manifest.organ,
        "stain": manifest.stain,
        "group_kind": manifest.group.kind,
        "related": manifest.related,
        "licence": manifest.licence,
        "citation": manifest.citation,
        "unit": (manifest.unit or "") if manifest.target == "value" else None,
    }


def _of_files(manifest: Manifest, entries: list[Entry], options: Options) -> list[str]:
    """Return notes on how samples are stored, and on what their files state."""
    return [*_own_formats(entries, options), *_contradictions(manifest, entries)]


def _emptied(chosen: Plan, splits: dict[Split, SplitCard]) -> list[str]:
    """Return a line for each set, and each class of a set, that is empty because samples could not be read."""
    counts = {split: content.classes for split, content in splits.items()}
    samples = {split: content.samples for split, content in splits.items()}
    return [line for line in empty_sets(chosen.classes, counts, samples) if line not in chosen.notes]


def _dense_card(dense: Dense | None, written: list[Written]) -> DenseCard | None:
    """Return the card of the dense targets."""
    if dense is None:
        return None
    resolutions = list(dict.fromkeys(mpp for part in written for mpp in part.resolutions))
    points, boxes, instances = dense.points, dense.boxes, dense.instances
    return DenseCard(
        seg=SegCard(classes=dense.seg.classes) if dense.seg else None,
        points=PointsCard(
            classes=points.classes,
            radius_um=points.radius_um,
            radius_px=pixels_of_radius(points, resolutions),
            exhaustive=points.exhaustive,
        )
        if points
        else None,
        boxes=BoxesCard(classes=boxes.classes, exhaustive=boxes.exhaustive) if boxes else None,
        instances=InstancesCard(classes=instances.classes, exhaustive=instances.exhaustive) if instances else None,
    )


def index_columns(manifest: Manifest) -> Sequence[str]:
    """Return the columns of the index for dense targets, and for labels that are not one class."""
    dense, of_target = manifest.dense, [name for name in TARGET_COLUMNS if name == manifest.target]
    if dense is None:
        return of_target
    return [*of_target, *(SEG_COLUMNS if dense.seg else ()), *(OBJECT_COLUMNS if dense.objects else ())]


def _own_formats(entries: list[Entry], options: Options) -> list[str]:
    """Return a note if `--image-format` does not affect samples that keep the bytes of whole files or tiles."""
    chosen = {"manifest": "", "png": "png", "jpeg": "jpg"}[options.image_format]
    own = sum(entry.format != chosen for entry in entries) if chosen else 0
    if not own:
        return []
    return [
        f"--image-format {options.image_format} is not used for {own} of {counted(len(entries), 'sample')}, "
        "which keep the bytes of their files or tiles"
    ]


def _contradictions(manifest: Manifest, entries: list[Entry]) -> list[str]:
    """Return a note if whole images are stored byte for byte under several labels."""
    if not isinstance(manifest.rule, Whole):
        return []
    first: dict[str, Entry] = {}
    pairs = {
        entry.sha256: (known, entry)
        for entry in entries
        if _label(known := first.setdefault(entry.sha256, entry)) != _label(entry)
    }
    if not pairs:
        return []
    one = " and ".join(sorted(entry.source for entry in next(iter(pairs.values()))))
    return [f"{counted(len(pairs), 'image')} with several labels, equal in every byte, the first: {one}"]


def _label(entry: Entry) -> tuple[int, str]:
    return entry.label, entry.target


def _of_pixels(manifest: Manifest) -> dict[str, Any]:
    """Return the settings that determine pixels and patches, for reading other slides in the same way."""
    settings: dict[str, Any] = {} if manifest.pixels.range is None else {"range": list(manifest.pixels.range)}
    rule = manifest.rule
    if isinstance(rule, Regional) and rule.tissue is not None:
        settings |= {"tissue": rule.tissue, "tissue_rule": rule.tissue_rule}
    return settings


def differences(
    manifest: Manifest, options: Options, splits: dict[Split, SplitCard], partial: str = ""
) -> list[Difference]:
    """The counts that differ from those of the whole release; `partial` is the reason if only a part was converted."""
    expected, reasons = manifest.expected, manifest.expected.reasons
    published: dict[str, int] = {} if expected.total is None else {"total": expected.total}
    published |= {f"{options.split}.{split}": n for split, n in getattr(expected, options.split).items()}
    published |= dict(zip(manifest.classes, expected.classes or [], strict=False))
    actual = {"total": sum(card.samples for card in splits.values())}
    actual |= {f"{options.split}.{split}": splits[split].samples if split in splits else 0 for split in SPLITS}
    actual |= {name: sum(card.classes[i] for card in splits.values()) for i, name in enumerate(manifest.classes)}
    return [
        Difference(what=what, expected=number, made=actual[what], reason=partial or reasons.get(what, ""))
        for what, number in published.items()
        if actual[what] != number
    ]


def _partial(manifest: Manifest, source: Source, options: Options, failed: int) -> str:
    """Return the reason if this is not a conversion of the whole release, else ''."""
    if options.limit is not None:
        return f"limited to {counted(options.limit, 'sample')} per class and set"
    for name, kind in manifest.files.items():
        if kind.expected and (found := len(source.match(name))) < kind.expected:
            return f"{found} of {kind.expected} {kind.what} are present"
    if failed:
        return f"{counted(failed, 'sample')} left out"
    return "drawn by `dpconvert fake`" if source.is_fake else ""


def tools() -> dict[str, str]:
    """Return the versions that determine the bytes: equal versions write equal shards."""
    return {
        "dpconvert": __version__,
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        "libjpeg": str(features.version("jpg")),
        "imagecodecs": imagecodecs.__version__,
        "zlib": str(features.version("zlib") or zlib.ZLIB_VERSION),
        "openslide": openslide_version(),
    }


def _split_card(entries: list[Entry], split: Split, classes: int) -> SplitCard:
    of_split = [entry for entry in entries if entry.split == split]
    labels = Counter(label for entry in of_split for label in _classes(entry))
    groups = len({entry.group for entry in of_split})
    return SplitCard(samples=len(of_split), classes=[labels[i] for i in range(classes)], groups=groups)


def _classes(entry: Entry) -> list[int]:
    """Return the numbers of the classes of a sample."""
    if entry.label >= 0:
        return [entry.label]
    found = json.loads(entry.target)
    return list(found) if isinstance(found, list) else []
