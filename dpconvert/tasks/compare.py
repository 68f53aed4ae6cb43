"""Compares a task with another conversion of it: lists the differences, and whether library versions explain them.

Equal source files, manifests and options give equal bytes only with equal versions of the libraries that decode and
encode images: `tools` in task.json lists them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpconvert.card import FILE_NAME, TaskCard, load
from dpconvert.errors import ShardError, UsageError
from dpconvert.image.decode import decode
from dpconvert.plural import counted
from dpconvert.shards.finalize import tools
from dpconvert.shards.index import read_index

COMPARED = 50  # images
DIGEST = re.compile(r"[0-9a-f]{64}")
DECIDING = ("pillow", "libjpeg", "imagecodecs", "zlib", "openslide", "python", "dpconvert")


def differences(folder: Path, card: TaskCard, against: str) -> Iterator[tuple[str, str]]:
    """(file, difference) for all that differs from `against`: a digest, or a folder that holds the same task.

    In a folder of tasks, the task of the same name is compared.

    Raises:
        UsageError: `against` is neither a digest nor a folder.
        ShardError: the other task cannot be read.
    """
    if DIGEST.fullmatch(against):
        if card.digest != against:
            yield FILE_NAME, f"digest {card.digest} is not the expected one, {against}; {_explanation(card)}"
        return
    if not Path(against).is_dir():
        raise UsageError("--against: neither a digest nor a folder", found=against)
    folder_there = counterpart(Path(against), card.task)
    if folder_there is None:
        yield FILE_NAME, f"no task {card.task} in {against}"
        return
    against, other = str(folder_there), load(folder_there)
    if other.task != card.task:
        yield FILE_NAME, f"{against} is another task, {other.task}"
        return
    if card.digest == other.digest:
        return
    yield FILE_NAME, f"digest {card.digest} is not that of {against}, {other.digest}; {_why(card, other)}"
    theirs = {shard.name: shard.sha256 for shard in other.shards}
    ours = {shard.name: shard.sha256 for shard in card.shards}
    for name in sorted(theirs.keys() | ours.keys()):
        if ours.get(name) != theirs.get(name):
            in_both = name in ours and name in theirs
            yield name, f"content differs from {against}" if in_both else "missing in one of the two"
    yield FILE_NAME, _images(folder, card, Path(against), other)
    if card.dense != other.dense:
        yield FILE_NAME, f"the dense targets differ from those of {against}: {_named(card)} here, {_named(other)} there"
    elif card.dense is not None and (changed := _targets(folder, card, Path(against), other)):
        yield FILE_NAME, changed


def counterpart(against: Path, task: str) -> Path | None:
    """The folder to compare with: `against` if it holds a task, else the folder in it that holds this task."""
    if (against / FILE_NAME).is_file():
        return against
    return next((folder for folder, name in _tasks_in(against) if name == task), None)


def only_there(against: str, tasks: Collection[str]) -> list[str]:
    """Names of the tasks in `against` that are not among `tasks`; none if `against` is not a folder of tasks."""
    folder = Path(against)
    if not against or not folder.is_dir() or (folder / FILE_NAME).is_file():
        return []
    return sorted({name for _, name in _tasks_in(folder)} - set(tasks))


def _tasks_in(folder: Path) -> list[tuple[Path, str]]:
    return [(path.parent, load(path.parent).task) for path in sorted(folder.glob(f"*/{FILE_NAME}"))]


def _explanation(card: TaskCard) -> str:
    """Whether the versions that wrote the task explain that another conversion has another digest."""
    changed = versions(card.tools, tools())
    if not changed:
        return "the versions are those installed here, so the source files, the manifest or the options differ"
    return f"it was written with {changed}: other versions can encode the same images differently"


def _why(card: TaskCard, other: TaskCard) -> str:
    ours, theirs = json.loads(card.request or "{}"), json.loads(other.request or "{}")
    different = [name for name in ours if ours[name] != theirs.get(name)]
    if different:
        return f"different {' and '.join(different)}"
    changed = versions(card.tools, other.tools)
    if changed:
        return f"the requests are equal; the versions differ: {changed}"
    return "requests and versions are equal: a source file changed without changing its size, or a shard is damaged"


def versions(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """'pillow 11.0 (there 11.1), ...' for versions that differ; '' if none does."""
    names = [*DECIDING, *sorted((ours.keys() | theirs.keys()) - {*DECIDING})]
    return ", ".join(
        f"{name} {ours.get(name, 'none')} (there {theirs.get(name, 'none')})"
        for name in names
        if ours.get(name) != theirs.get(name)
    )


def _images(folder: Path, card: TaskCard, reference: Path, other: TaskCard) -> str:
    """Whether images of the same key differ only in their bytes, or also in their pixels."""
    ours, theirs = _rows(folder, card), _rows(reference, other)
    common = [key for key in ours if key in theirs]
    changed = [key for key in common if ours[key]["sha256"] != theirs[key]["sha256"]]
    only = f"{counted(len(ours) - len(common), 'sample')} only here, {len(theirs) - len(common)} only there"
    if not changed:
        return f"{only}; images in both have equal bytes"
    compared = changed[:COMPARED]
    decoding = sum(
        not np.array_equal(_decoded(folder, ours[key]), _decoded(reference, theirs[key])) for key in compared
    )
    which = f"of {len(compared)} compared, {decoding} differ in pixels (decoding), {len(compared) - decoding} only in"
    return f"{only}; {counted(len(changed), 'image')} with different bytes: {which} bytes (encoding)"


def _named(card: TaskCard) -> str:
    """What dense targets a task keeps, in words."""
    if card.dense is None:
        return "none"
    return " and ".join(f"{kind} ({', '.join(of.classes)})" for kind, of in card.dense.kinds.items())


def _targets(folder: Path, card: TaskCard, reference: Path, other: TaskCard) -> str:
    """How many samples of the same key have other masks, and how many another number of objects; '' for none."""
    ours, theirs = _rows(folder, card), _rows(reference, other)
    common = [key for key in ours if key in theirs]
    masks = sum(ours[key].get("seg_sha256") != theirs[key].get("seg_sha256") for key in common)
    objects = sum(ours[key].get("objects") != theirs[key].get("objects") for key in common)
    parts = [f"{counted(masks, 'mask')} with different bytes"] if masks else []
    return ", ".join([*parts, *([f"{counted(objects, 'sample')} with another number of objects"] if objects else [])])


def _rows(folder: Path, card: TaskCard) -> dict[str, Any]:
    try:
        return {row["key"]: row for row in read_index(folder / card.index.name).to_pylist()}
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise ShardError(f"not a readable index: {error}", where=folder / card.index.name) from None


def _decoded(folder: Path, row: Mapping[str, Any]) -> Any:
    try:
        with (folder / row["shard"]).open("rb") as file:
            file.seek(row["offset"])
            data = file.read(row["length"])
        return decode(data)
    except (OSError, ValueError):
        return None
