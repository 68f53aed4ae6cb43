"""A task and what it is to be equal to in; every difference out, and whether other library versions explain it.

The same source files, manifest and options give the same bytes only as long as the libraries that decode and encode
pictures are the same: `tools` in task.json names their versions.
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
from dpconvert.shards.tar import read_index

LOOKED_AT = 50  # pictures
DIGEST = re.compile(r"[0-9a-f]{64}")
DECIDING = ("pillow", "libjpeg", "imagecodecs", "zlib", "openslide", "python", "dpconvert")


def differences(folder: Path, card: TaskCard, against: str) -> Iterator[tuple[str, str]]:
    """(file, what) of all that is not as in `against`: a digest, or the folder of the same task made elsewhere.

    A folder of tasks stands for the one of this name in it.

    Raises:
        UsageError: neither.
        ShardError: the other folder holds no finished task.
    """
    if DIGEST.fullmatch(against):
        if card.digest != against:
            yield FILE_NAME, f"digest {card.digest} is not the one asked for, {against}; {_here(card)}"
        return
    if not Path(against).is_dir():
        raise UsageError("neither a digest nor a folder", found=f"--against {against}")
    found = counterpart(Path(against), card.task)
    if found is None:
        yield FILE_NAME, f"no task {card.task} in {against}"
        return
    against, other = str(found), load(found)
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
            there = "another content" if name in ours and name in theirs else "not in both"
            yield name, f"{there} than in {against}" if name in ours and name in theirs else there
    yield FILE_NAME, _pictures(folder, card, Path(against), other)


def counterpart(against: Path, task: str) -> Path | None:
    """The folder of a task: `against` itself where it holds one, else the one in it that holds this task, if any."""
    if (against / FILE_NAME).is_file():
        return against
    return next((folder for folder, name in _tasks_in(against) if name == task), None)


def only_there(against: str, tasks: Collection[str]) -> list[str]:
    """The tasks in a folder of tasks that are not among `tasks`, by name; none where `against` is no such folder."""
    folder = Path(against)
    if not against or not folder.is_dir() or (folder / FILE_NAME).is_file():
        return []
    return sorted({name for _, name in _tasks_in(folder)} - set(tasks))


def _tasks_in(folder: Path) -> list[tuple[Path, str]]:
    return [(path.parent, load(path.parent).task) for path in sorted(folder.glob(f"*/{FILE_NAME}"))]


def _here(card: TaskCard) -> str:
    """What the versions that made the task say about a digest that was made somewhere else."""
    changed = versions(card.tools, tools())
    if not changed:
        return "it was made by the versions that are here: the source files, the manifest or the options are others"
    return f"it was made by {changed}: other versions can give other bytes of the same pictures"


def _why(card: TaskCard, other: TaskCard) -> str:
    ours, theirs = json.loads(card.request or "{}"), json.loads(other.request or "{}")
    asked = [name for name in ours if ours[name] != theirs.get(name)]
    if asked:
        return f"it was made of another {' and '.join(asked)}"
    changed = versions(card.tools, other.tools)
    if changed:
        return f"the request is the same, and the difference comes from other versions: {changed}"
    return "request and versions are the same: a source file changed without changing its size, or a shard is damaged"


def versions(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """'pillow 11.0 (there 11.1), ...' of what differs; '' for nothing."""
    names = [*DECIDING, *sorted((ours.keys() | theirs.keys()) - {*DECIDING})]
    return ", ".join(
        f"{name} {ours.get(name, 'none')} (there {theirs.get(name, 'none')})"
        for name in names
        if ours.get(name) != theirs.get(name)
    )


def _pictures(folder: Path, card: TaskCard, there: Path, other: TaskCard) -> str:
    """Whether pictures of one key differ in their bytes alone, or in their pixels too."""
    ours, theirs = _rows(folder, card), _rows(there, other)
    common = [key for key in ours if key in theirs]
    changed = [key for key in common if ours[key]["sha256"] != theirs[key]["sha256"]]
    only = f"{counted(len(ours) - len(common), 'sample')} only here, {len(theirs) - len(common)} only there"
    if not changed:
        return f"{only}; pictures in both are of the same bytes"
    looked = changed[:LOOKED_AT]
    pixels = sum(not np.array_equal(_decoded(folder, ours[key]), _decoded(there, theirs[key])) for key in looked)
    which = f"of {len(looked)} looked at, {pixels} have other pixels (decoding), {len(looked) - pixels} the same pixels"
    return f"{only}; {counted(len(changed), 'picture')} of other bytes: {which} in other bytes (encoding)"


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
