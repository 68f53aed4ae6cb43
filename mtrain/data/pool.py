"""Opens the tasks to train on: folders of shards in, a `Pool` out. The only reader of dpconvert's contract on disk.

A pool holds every subfolder of the shards folder that contains a `task.json`; the folder may be a URL (`shard_cache`).
Tasks whose conversion is unfinished are not used, and listed in `Pool.unfinished`. `leave_out` removes tasks together
with those that share their slides or annotations (`related` in task.json).

Tasks are opened without their test sets. Only `with_test` opens these, for the steps that a `Permit` lists.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dpconvert import card as cards
from dpconvert.names import plain
from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.data import shard_cache
from mtrain.data.storage import url_of
from mtrain.errors import ShardError, UsageError

INDEX_COLUMNS = ("key", "split", "shard", "offset", "length", "label", "group", "sha256")
NAME_IT = "give the folder of the tasks with --shards, or convert a source with `dpconvert NAME --out DIR`"
OPEN: tuple[cards.Split, ...] = ("train", "val")  # splits that every step may read


class Permit(enum.Enum):
    """The steps that may read test sets. They come last, after every choice is made."""

    EVALUATE = "mtrain evaluate, mtrain transfer --final"
    BREAKHIS = "mtrain breakhis"
    RELEASE = "mtrain release"
    LIBRARY = "mtrain.ShardDataset(..., open_test=True)"


@dataclasses.dataclass(frozen=True)
class Rows:
    """The samples of one split as columns of equal length.

    shard: an index into `Task.shards`. offset, length: in bytes. sha256: (n, 32) bytes, the digests of encoded images.
    """

    key: npt.NDArray[np.object_]
    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    group: npt.NDArray[np.object_]
    sha256: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.label)

    def take(self, indices: npt.ArrayLike) -> Rows:
        """The samples at `indices` (or under a boolean mask), in that order."""
        chosen = np.asarray(indices)
        chosen = chosen if chosen.size else chosen.astype(np.int64)  # numpy makes an empty list an array of floats
        return Rows(**{f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class Task:
    """One classification task: its card, its shards and the samples of train and val; after `with_test`, also of test.

    For a remote task, `folder` holds copies of task.json and the index, and `shards` are the paths of future copies.
    trains: the splits whose samples are in rows["train"]. Their own entries in `rows` are empty.
    """

    name: str
    folder: Path
    card: cards.TaskCard
    shards: tuple[Path, ...]
    rows: Mapping[str, Rows]
    url: str | None = None
    trains: tuple[str, ...] = ("train",)

    @property
    def classes(self) -> list[str]:
        return self.card.classes

    @property
    def num_classes(self) -> int:
        return len(self.card.classes)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of samples of each split, including the test set, as the card states them."""
        stated = {str(split): card.samples for split, card in self.card.splits.items()}
        return {split: stated.get(split, 0) for split in cards.SPLITS}

    @property
    def metric(self) -> str:
        return self.card.metric

    def files(self) -> list[Path | shard_cache.Copy]:
        """The shards to read: local paths, or copies to be downloaded."""
        return list(self.shards if self.url is None else _copies(self.url, self.card))


@dataclasses.dataclass(frozen=True)
class Pool:
    """Tasks in name order. `digest` identifies their data, and the sets trained on if these are not the training sets.

    unfinished: names of the folders beside these tasks that hold an unfinished conversion.
    """

    tasks: tuple[Task, ...]
    digest: str
    unfinished: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Notes on tasks that exist but are not used."""
        if not self.unfinished:
            return []
        number, names = counted(len(self.unfinished), "unfinished task"), ", ".join(self.unfinished)
        return [f"{number} not used: {names}; run the conversion again (`dpconvert verify` lists what is missing)"]

    @classmethod
    def open(cls, shards: Path | str = "shards", leave_out: Sequence[str] = ()) -> Pool:
        """Open every task under `shards`, a folder or a URL, except those left out and the tasks related to them.

        The tasks are opened without their test sets.

        Raises:
            UsageError: There is no such folder, no task in it, or no task with a given name.
            ShardError: A task is unfinished or does not match its card.
        """
        return _without(open_pool(shards), leave_out)


def open_pool(shards: Path | str) -> Pool:
    """Open every task under `shards`, a folder or a URL.

    Raises:
        UsageError: there is no such folder, or no finished task in it.
        ShardError: a task does not match its card.
        RunError: the URL cannot be read.
    """
    if (url := url_of(shards)) is not None:
        return pool_of(open_task(task) for task in shard_cache.task_folders(url))
    finished, unfinished = _folders(Path(shards))
    return dataclasses.replace(pool_of(open_task(folder) for folder in finished), unfinished=unfinished)


def _folders(shards: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The folders of finished tasks, and the names of unfinished ones."""
    if not shards.is_dir():
        raise UsageError("no such folder of shards", where=shards, remedy=NAME_IT)
    finished, unfinished = cards.begun(shards)
    names = tuple(folder.name for folder in unfinished)
    if not finished:
        remedy = NAME_IT if not names else f"finish the conversion of {names[0]}"
        found = f"unfinished: {', '.join(names)}" if names else None
        raise UsageError("no task in this folder", where=shards, found=found, remedy=remedy)
    return finished, names


def outlined(shards: Path | str) -> Pool:
    """The tasks in a folder without their samples: only the cards are read, which is fast and enough to check names.

    Raises:
        UsageError, ShardError: as `open_pool`.
    """
    finished, _ = _folders(Path(shards))
    opened = [(folder, cards.load(folder)) for folder in finished]
    return pool_of(Task(card.task, folder, card, (), {}) for folder, card in opened)


def open_task(folder: Path | str) -> Task:
    """Open the task in `folder`, or at a URL. The sizes of its files are compared with its card; shards are not read.

    Raises:
        UsageError: there is no such folder.
        ShardError: the task is unfinished, or its files do not match its card.
        RunError: the URL cannot be read.
    """
    if (url := url_of(folder)) is not None:
        return _open_remote(url)
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError("no such task folder", where=folder, remedy=NAME_IT)
    card = cards.load(folder)
    _check_size(folder / card.index.name, card.index.size)
    shards = tuple(folder / shard.name for shard in card.shards)
    return Task(card.task, folder, card, shards, _splits(folder, card, OPEN))


def _open_remote(url: str) -> Task:
    """Open a remote task. mtrain.data.images downloads its shards when images are needed."""
    folder = shard_cache.task_folder(url)
    card = cards.load(folder)
    shard_cache.index_file(url, card.index.name, folder, card.index.size, card.index.sha256)
    shards = tuple(copy.path for copy in _copies(url, card))
    return Task(card.task, folder, card, shards, _splits(folder, card, OPEN, here=False), url)


def _copies(url: str, card: cards.TaskCard) -> list[shard_cache.Copy]:
    return [shard_cache.shard_copy(url, shard.name, shard.size, shard.sha256) for shard in card.shards]


def fetch_shards(tasks: Iterable[Task], splits: Sequence[str], report: Reporter) -> None:
    """Download the remote shards of these splits that are not in the cache yet, with a progress bar.

    Raises:
        UsageError: they do not fit into the cache.
        ShardError, RunError: a shard is not the one that its card describes, or cannot be downloaded.
    """
    named = [pair for task in tasks for pair in zip(task.card.shards, task.files(), strict=True)]
    copies = [copy for card, copy in named if card.split in splits and isinstance(copy, shard_cache.Copy)]
    with report.bar("downloading shards", sum(not copy.here for copy in copies), unit="shards") as advance:
        shard_cache.fetch(copies, lambda _size: advance())


def with_test(task: Task, permit: Permit) -> Task:
    """The same task, opened with its test set. This is the only way to read a test set.

    Raises:
        ShardError: files do not match the card.
    """
    assert isinstance(permit, Permit)
    opened = _splits(task.folder, task.card, ("test",), here=task.url is None)
    return dataclasses.replace(task, rows={**task.rows, **opened})


def training_on(pool: Pool, splits: Sequence[str], *, but: Iterable[str] = ()) -> Pool:
    """The pool with the samples of these splits as the training set of each task; the tasks named in `but`, and those
    related to them, keep their training sets.

    A split that is trained on becomes empty, so that nothing can be validated on it.

    Raises:
        UsageError: a name in `but` is not that of a task in the pool.
    """
    unchanged = sorted(task.name for task in _with_relatives(pool, but)[0])
    if tuple(splits) == ("train",):
        return pool
    tasks = tuple(task if task.name in unchanged else _training_on(task, splits) for task in pool.tasks)
    identity = " ".join(["+".join(splits), *unchanged, pool.digest])
    return dataclasses.replace(pool, tasks=tasks, digest=hashlib.sha256(identity.encode()).hexdigest())


def _training_on(task: Task, splits: Sequence[str]) -> Task:
    parts, names = [task.rows[split] for split in splits], [field.name for field in dataclasses.fields(Rows)]
    joined = Rows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    remaining: dict[str, Rows] = {
        split: task.rows[split].take([]) if split in splits else task.rows[split] for split in OPEN
    }
    return dataclasses.replace(task, rows={**remaining, "train": joined}, trains=tuple(splits))


def attributes(task: Task) -> dict[str, dict[str, str]]:
    """Key -> further attributes of a sample from its source (magnification, official folds, ...)."""
    path = task.folder / task.card.index.name
    table = _read_index(path, task.card.index.sha256, ("key", "attributes"), cards.SPLITS)
    try:
        values = [json.loads(text) for text in table["attributes"].to_pylist()]
    except (ValueError, TypeError) as error:
        raise ShardError(f"attributes are not JSON: {error}", where=path, remedy="convert the source again") from None
    return dict(zip(table["key"].to_pylist(), values, strict=True))


def pool_of(tasks: Iterable[Task]) -> Pool:
    """A pool of these tasks."""
    ordered = tuple(sorted(tasks, key=lambda task: task.name))
    lines = "".join(f"{task.name} {task.card.digest}\n" for task in ordered)
    return Pool(ordered, hashlib.sha256(lines.encode()).hexdigest())


def leave_out(pool: Pool, names: Sequence[str]) -> tuple[Pool, tuple[Task, ...], tuple[str, ...]]:
    """Remove the named tasks and those related to them.

    Returns the remaining pool, the removed tasks, and a note for each task removed because of a relation. Relations are
    symmetric and transitive. Names match ignoring case, `-` and `_`.

    Raises:
        UsageError: a name is unknown, or no task remains.
    """
    leaving, pairs = _with_relatives(pool, names)
    gone = {task.name for task in leaving}
    notes = [f"{other} is left out too: related to {task}" for task, other in pairs]
    kept = [task for task in pool.tasks if task.name not in gone]
    if not kept:
        raise UsageError(
            "every task is left out, so none remains to train on", found=f"--leave-out {', '.join(sorted(gone))}"
        )
    remaining = dataclasses.replace(pool_of(kept), unfinished=pool.unfinished) if gone else pool
    return remaining, tuple(sorted(leaving, key=lambda task: task.name)), tuple(notes)


def _with_relatives(pool: Pool, names: Iterable[str]) -> tuple[list[Task], list[tuple[str, str]]]:
    """The named tasks and those related to them; and which of them brought which along."""
    found = list({task.name: task for task in (find_task(pool, name) for name in names)}.values())
    known = {task.name for task in found}
    pairs = []
    for task in found:  # grows while it is walked: relations of relations come too
        for other in pool.tasks:
            if other.name not in known and _related(task, other):
                found.append(other)
                known.add(other.name)
                pairs.append((task.name, other.name))
    return found, pairs


def _without(pool: Pool, names: Sequence[str]) -> Pool:
    return leave_out(pool, names)[0]


def find_task(pool: Pool, name: str) -> Task:
    """The task called `name`, ignoring case, `-` and `_`."""
    by_name = {plain(task.name): task for task in pool.tasks}
    if (task := by_name.get(plain(name))) is not None:
        return task
    for unfinished in pool.unfinished:
        if plain(unfinished) == plain(name):
            raise UsageError(f"the conversion of {unfinished} is unfinished", remedy="run it again")
    near = difflib.get_close_matches(plain(name), by_name, n=3)
    likely = [by_name[match].name for match in near] or [task.name for task in pool.tasks]
    raise UsageError(f"no task {name!r} in the pool", remedy=f"did you mean {' or '.join(likely)}?")


def _related(one: Task, other: Task) -> bool:
    return plain(other.name) in map(plain, one.card.related) or plain(one.name) in map(plain, other.card.related)


def _check_size(path: Path, size: int) -> None:
    actual = path.stat().st_size if path.is_file() else None
    if actual != size:
        raise ShardError(
            "missing" if actual is None else "changed since it was written",
            where=path,
            expected=f"{size} bytes",
            found=None if actual is None else f"{actual} bytes",
            remedy="convert the source again",
        )


def _splits(folder: Path, card: cards.TaskCard, splits: Sequence[cards.Split], *, here: bool = True) -> dict[str, Rows]:
    """Read the samples of these splits only. `here`: the shards are local, so their sizes are checked."""
    for shard in card.shards:
        if here and shard.split in splits:
            _check_size(folder / shard.name, shard.size)
    table = _read_index(folder / card.index.name, card.index.sha256, INDEX_COLUMNS, splits)
    names = [shard.name for shard in card.shards]
    rows: dict[str, Rows] = {split: _rows(table, split, names, folder) for split in splits}
    for split, split_rows in rows.items():
        _check_split(card, split, split_rows, folder)
    return rows


def _read_index(path: Path, sha256: str, columns: Sequence[str], splits: Sequence[str]) -> pa.Table:
    """These columns of the index, for the rows of these splits."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ShardError(
                "the index has changed since it was written", where=path, remedy="convert the source again"
            )
    try:
        return pq.read_table(path, columns=list(columns), filters=[("split", "in", list(splits))])
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ShardError(f"unreadable index: {reason}", where=path, remedy="convert the source again") from None


def _rows(table: pa.Table, split: str, shards: list[str], folder: Path) -> Rows:
    chosen = table.filter(pa.compute.equal(table["split"], split))
    shard = pa.compute.index_in(chosen["shard"], value_set=pa.array(shards, pa.string()))
    if shard.null_count:
        raise ShardError(
            "the index names a shard that is not in task.json", where=folder, remedy="convert the source again"
        )
    return Rows(
        key=_column(chosen["key"], np.object_),
        shard=_column(shard, np.int32),
        offset=_column(chosen["offset"], np.int64),
        length=_column(chosen["length"], np.int64),
        label=_column(chosen["label"], np.int64),
        group=_column(chosen["group"], np.object_),
        sha256=_digests(chosen["sha256"], folder),
    )


def _digests(column: Any, folder: Path) -> npt.NDArray[np.uint8]:
    """Hexadecimal sha256 -> (n, 32) bytes."""
    try:
        joined = bytes.fromhex("".join(column.to_pylist()))
        return np.frombuffer(joined, np.uint8).reshape(len(column), 32)
    except (ValueError, TypeError):
        raise ShardError("invalid sha256 in the index", where=folder, remedy="convert the source again") from None


def _column(values: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.asarray(values.to_numpy(), dtype=dtype)


def _check_split(card: cards.TaskCard, split: str, rows: Rows, folder: Path) -> None:
    stated = next((of_split.samples for name, of_split in card.splits.items() if name == split), 0)
    if stated != len(rows):
        raise ShardError(
            f"{split}: the index does not match task.json", where=folder, expected=stated, found=len(rows),
            remedy="convert the source again",
        )  # fmt: skip
    if len(rows) and not 0 <= rows.label.min() <= rows.label.max() < len(card.classes):
        raise ShardError(
            f"{split}: labels out of range", where=folder, expected=f"0..{len(card.classes) - 1}",
            found=f"{rows.label.min()}..{rows.label.max()}", remedy="convert the source again",
        )  # fmt: skip
