"""Verifies tasks: reads every byte again, and lists every difference from what was written."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dpconvert.card import FILE_NAME, ShardCard, TaskCard, dataset_digest, load
from dpconvert.errors import ShardError
from dpconvert.image.decode import decode
from dpconvert.plural import counted
from dpconvert.runtime import locks, processes
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from dpconvert.shards.sidefiles import side_card
from dpconvert.source.bounded import DAMAGED
from dpconvert.tasks import dense_targets, labels
from dpconvert.tasks.compare import differences
from dpconvert.tasks.sample_files import keeps_masks

KEY = re.compile(r"[a-z0-9_-]+")
JSON_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem, and the file that has it."""

    file: str
    what: str


def verify(folder: Path, *, workers: int, report: Reporter, against: str = "") -> tuple[TaskCard, list[Problem]]:
    """The card and all problems of one task; no problem means that every byte is as it was written.

    against: a digest that the task must have, or a folder that holds another conversion of it.

    Raises:
        UsageError: `against` is neither a digest nor a folder.
        ShardError: there is no readable task.json, or a conversion is in progress.
    """
    if not (folder / FILE_NAME).is_file() and locks.is_held(folder / locks.NAME):
        holder = locks.Holder.read(folder / locks.NAME)
        raise ShardError("a conversion is in progress", where=folder, found=holder, remedy="wait until it ends")
    card = load(folder)
    problems = list(_files(folder, card, against))
    index = _index(folder, card, problems)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in index:
        rows[row["shard"]].append(row)
    jobs = [(shard, rows[shard.name]) for shard in card.shards if (folder / shard.name).is_file()]
    with report.bar(f"{card.task}: verify", card.samples()) as advance:
        for samples, of_shard in processes.run(_shard, (folder, card), jobs, workers):
            problems += of_shard
            advance(samples)
    problems += _counts(card, index)
    return card, sorted(problems, key=lambda problem: (problem.file, problem.what))


def _files(folder: Path, card: TaskCard, against: str) -> Iterator[Problem]:
    if dataset_digest(card.shards) != card.digest:
        yield Problem(FILE_NAME, "the digest does not match the listed shards")
    if against:
        yield from (Problem(name, what) for name, what in differences(folder, card, against))
    listed = {shard.name for shard in card.shards}
    yield from (Problem(name, "missing") for name in sorted(listed) if not (folder / name).is_file())
    extra = sorted(path.name for path in folder.glob("*.tar") if path.name not in listed)
    yield from (Problem(name, "not a shard of this task") for name in extra)
    for side in [card.index, *card.side_files]:
        if not (folder / side.name).is_file():
            yield Problem(side.name, "missing")
        elif side_card(folder, side.name) != side:
            yield Problem(side.name, "changed since it was written")


def _index(folder: Path, card: TaskCard, problems: list[Problem]) -> list[dict[str, Any]]:
    if any(problem.file == card.index.name for problem in problems):
        return []
    try:
        return list(read_index(folder / card.index.name).to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        problems.append(Problem(card.index.name, f"cannot be read: {error}"))
        return []


def _counts(card: TaskCard, index: list[dict[str, Any]]) -> Iterator[Problem]:
    if not index:
        return
    name = labels.column(card)
    counts = Counter((row["split"], label) for row in index for label in labels.classes(card, row[name]))
    sizes = Counter(row["split"] for row in index)
    for split, stated in card.splits.items():
        if [counts[split, label] for label in range(len(card.classes))] != stated.classes:
            yield Problem(FILE_NAME, f"the class counts of {split} do not match the index")
        elif sizes[split] != stated.samples:
            yield Problem(FILE_NAME, f"the number of samples of {split} does not match the index")
    repeated = [key for key, count in Counter(row["key"] for row in index).items() if count > 1]
    yield from (Problem(card.index.name, f"{key}: several samples with this key") for key in repeated)
    if card.options.get("split") == "paper":
        return  # the paper's own sets may share groups, as task.json notes
    homes: dict[str, set[str]] = defaultdict(set)
    for row in index:
        homes[row["group"]].add(row["split"])
    for group, splits in sorted(homes.items()):
        if len(splits) > 1:
            yield Problem(card.index.name, f"group {group} is in {' and '.join(sorted(splits))}")


def _shard(context: tuple[Path, TaskCard], job: tuple[ShardCard, list[dict[str, Any]]]) -> tuple[int, list[Problem]]:
    folder, card = context
    shard, rows = job
    data = (folder / shard.name).read_bytes()
    if hashlib.sha256(data).hexdigest() != shard.sha256 or len(data) != shard.size:
        return shard.samples, [Problem(shard.name, "changed since it was written")]
    if not rows:
        return shard.samples, []
    return shard.samples, [Problem(shard.name, what) for what in _contents(data, card, shard, rows)]


def _contents(data: bytes, card: TaskCard, shard: ShardCard, rows: list[dict[str, Any]]) -> Iterator[str]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = tar.getmembers()
    except DAMAGED as error:
        yield f"not a readable tar: {error}"
        return
    if not all(member.isreg() for member in members):
        yield "contains a member that is not a plain file"
        return
    count = 2 + (card.target == "class") + keeps_masks(card)  # files of a sample
    if len(members) != count * len(rows) or len(rows) != shard.samples:
        yield f"{counted(len(members), 'file')} for {counted(len(rows), 'sample')}"
        return
    for row, start in zip(rows, range(0, len(members), count), strict=True):
        parts = [
            (m.name, m.offset_data, data[m.offset_data : m.offset_data + m.size])
            for m in members[start : start + count]
        ]
        for what in _sample(parts, card, row):
            yield f"{row['key']}: {what}"


def _sample(parts: list[tuple[str, int, bytes]], card: TaskCard, row: dict[str, Any]) -> Iterator[str]:
    """The problems of one sample. parts: name, offset and content of each of its files."""
    key = row["key"]
    (_, offset, image), *between, (_, _, text) = parts
    of_class = between[: int(card.target == "class")]
    masks, name = between[len(of_class) :], labels.column(card)
    cls = [f"{key}.cls" for _ in of_class]
    names = [f"{key}.{row['format']}", *cls, *(f"{key}.seg.png" for _ in masks), f"{key}.json"]
    if [name for name, *_ in parts] != names or not KEY.fullmatch(key):
        yield "wrong file names"
        return
    if (offset, len(image)) != (row["offset"], row["length"]):
        yield "offset or length differs from the index"
    if hashlib.sha256(image).hexdigest() != row["sha256"]:
        yield "image differs from the index"
    wrong = next((label for _, _, label in of_class if label != str(row[name]).encode()), None)
    if wrong is not None or not labels.is_sound(card, row[name]):
        yield f"wrong label {str(row[name]).encode()[:20] if wrong is None else wrong[:20]!r}"
    try:
        fields = json.loads(text) if len(text) < JSON_LIMIT else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or any(fields.get(name) != row[name] for name in (name, "group", "split")):
        yield "JSON differs from the index"
    else:
        yield from dense_targets.objects(fields, card.dense, row)
    for _, at, mask in masks:
        yield from dense_targets.mask(mask, at, card.dense, row)
    try:
        height, width = decode(image).shape[:2]
        if (width, height) != (row["stored_width"], row["stored_height"]):
            yield "image size differs from the index"
    except ValueError as error:
        yield f"image cannot be decoded: {error}"
