"""The tasks to train on: folders of shards in, `Pool` out. The only reader of dpconvert's contract on disk.

A pool is every sub-folder of the shards folder that holds a `task.json`; the folder may be a URL (see `shard_cache`).
Tasks whose conversion has not ended are left aside, and named in `Pool.unfinished`.
`leave_out` takes tasks away, and with them the tasks that share their slides or annotations (`related` in task.json).

Test sets are not among what a task offers: `with_test` alone opens them, for the steps that a `Permit` names.
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
NAME_IT = "name the folder of the tasks with --shards, or make one with `dpconvert NAME --out DIR`"
OPEN: tuple[cards.Split, ...] = ("train", "val")  # what every step may read


class Permit(enum.Enum):
    """The steps that read test sets: the last ones, after every choice has been made."""

    EVALUATE = "mtrain evaluate, mtrain transfer --final"
    BREAKHIS = "mtrain breakhis"
    RELEASE = "mtrain release"
    LIBRARY = "mtrain.ShardDataset(..., open_test=True)"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Samples of one split in equally long columns. `shard` counts in `Task.shards`; `offset`, `length` are bytes.

    sha256: of the encoded image, (n, 32) bytes.
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
        chosen = chosen if chosen.size else chosen.astype(np.int64)  # numpy takes an empty list for one of floats
        return Rows(**{f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class Task:
    """One classification task: its card, its shards and the samples of train and val, or of `with_test` also test.

    Of a remote task `folder` holds copies of task.json and the index, and `shards` are where copies will lie. `trains`:
    the splits whose samples are in rows["train"]; what is there is not offered a second time under its own name.
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
        """Samples of each split, the test set's included: as the card counts them."""
        made = {str(split): card.samples for split, card in self.card.splits.items()}
        return {split: made.get(split, 0) for split in cards.SPLITS}

    @property
    def metric(self) -> str:
        return self.card.metric

    def files(self) -> list[Path | shard_cache.Copy]:
        """The shards as they are read: in their place, or copies to be fetched."""
        return list(self.shards if self.url is None else _copies(self.url, self.card))


@dataclasses.dataclass(frozen=True)
class Pool:
    """Tasks in name order; `digest` names their data, and which sets train where more than the training sets do.

    unfinished: folders beside these tasks in which a conversion has begun and not ended.
    """

    tasks: tuple[Task, ...]
    digest: str
    unfinished: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What to say of what is there and not used."""
        if not self.unfinished:
            return []
        these, names = counted(len(self.unfinished), "unfinished task"), ", ".join(self.unfinished)
        return [f"{these} left aside: {names}; finish the conversion, and `dpconvert verify` names what is missing"]

    @classmethod
    def open(cls, shards: Path | str = "shards", leave_out: Sequence[str] = ()) -> Pool:
        """Every task under `shards`, a folder or an address, but those left out and the tasks related to them.

        Test sets are not among what its tasks offer.

        Raises:
            UsageError: No such folder, no task in it, or no task of that name.
            ShardError: A task that is unfinished or does not match its card.
        """
        return _without(open_pool(shards), leave_out)


def open_pool(shards: Path | str) -> Pool:
    """Every task under `shards`, a folder or the URL of one.

    Raises:
        UsageError: no such folder, or no finished task in it.
        ShardError: a task that does not match its card.
        RunError: a URL that cannot be read.
    """
    if (url := url_of(shards)) is not None:
        return pool_of(open_task(task) for task in shard_cache.task_folders(url))
    finished, unfinished = _folders(Path(shards))
    return dataclasses.replace(pool_of(open_task(folder) for folder in finished), unfinished=unfinished)


def _folders(shards: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The folders of finished tasks, and the names of those of unfinished ones."""
    if not shards.is_dir():
        raise UsageError("no such folder of shards", where=shards, remedy=NAME_IT)
    finished, unfinished = cards.begun(shards)
    names = tuple(folder.name for folder in unfinished)
    if not finished:
        remedy = NAME_IT if not names else f"finish the conversion of {names[0]}"
        raise UsageError("no task here", where=shards, found=f"unfinished: {', '.join(names)}" if names else None,
            remedy=remedy)  # fmt: skip
    return finished, names


def outlined(shards: Path | str) -> Pool:
    """The tasks in a folder by their cards alone, without samples: enough to know names by, and read at once.

    Raises:
        UsageError, ShardError: as `open_pool`.
    """
    finished, _ = _folders(Path(shards))
    found = [(folder, cards.load(folder)) for folder in finished]
    return pool_of(Task(card.task, folder, card, (), {}) for folder, card in found)


def open_task(folder: Path | str) -> Task:
    """The task in `folder`, or at the URL of one; sizes of its files are compared with its card, contents are not read.

    Raises:
        UsageError: no such folder.
        ShardError: unfinished, or files that do not match the card.
        RunError: a URL that cannot be read.
    """
    if (url := url_of(folder)) is not None:
        return _open_remote(url)
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError("no such folder of a task", where=folder, remedy=NAME_IT)
    card = cards.load(folder)
    _check_size(folder / card.index.name, card.index.size)
    shards = tuple(folder / shard.name for shard in card.shards)
    return Task(card.task, folder, card, shards, _splits(folder, card, OPEN))


def _open_remote(url: str) -> Task:
    """Its shards are not fetched yet; they are when pictures are asked for, by mtrain.data.images."""
    folder = shard_cache.task_folder(url)
    card = cards.load(folder)
    shard_cache.index_file(url, card.index.name, folder, card.index.size, card.index.sha256)
    shards = tuple(copy.path for copy in _copies(url, card))
    return Task(card.task, folder, card, shards, _splits(folder, card, OPEN, here=False), url)


def _copies(url: str, card: cards.TaskCard) -> list[shard_cache.Copy]:
    return [shard_cache.shard_copy(url, shard.name, shard.size, shard.sha256) for shard in card.shards]


def fetch_shards(tasks: Iterable[Task], splits: Sequence[str], report: Reporter) -> None:
    """Have the shards of these splits on this machine, with progress if there is something to do.

    Raises:
        UsageError: more than the cache may hold.
        ShardError, RunError: a shard that is another one, or cannot be had.
    """
    named = [pair for task in tasks for pair in zip(task.card.shards, task.files(), strict=True)]
    copies = [copy for card, copy in named if card.split in splits and isinstance(copy, shard_cache.Copy)]
    with report.bar("fetching shards", sum(not copy.here for copy in copies), unit="shards") as advance:
        shard_cache.fetch(copies, lambda _size: advance())


def with_test(task: Task, permit: Permit) -> Task:
    """The same task with its test set: the only way to one.

    Raises:
        ShardError: files that do not match the card.
    """
    assert isinstance(permit, Permit)
    opened = _splits(task.folder, task.card, ("test",), here=task.url is None)
    return dataclasses.replace(task, rows={**task.rows, **opened})


def training_on(pool: Pool, splits: Sequence[str], *, but: Iterable[str] = ()) -> Pool:
    """The pool with the samples of these splits as the training set of each task; `but` the tasks of these names and
    those related to them keep to their training sets.

    Nothing can be validated on a split that is trained on: it is empty.

    Raises:
        UsageError: no task of such a name in the pool.
    """
    alone = sorted(task.name for task in _with_relatives(pool, but)[0])
    if tuple(splits) == ("train",):
        return pool
    tasks = tuple(task if task.name in alone else _training_on(task, splits) for task in pool.tasks)
    named = " ".join(["+".join(splits), *alone, pool.digest])
    return dataclasses.replace(pool, tasks=tasks, digest=hashlib.sha256(named.encode()).hexdigest())


def _training_on(task: Task, splits: Sequence[str]) -> Task:
    parts, names = [task.rows[split] for split in splits], [field.name for field in dataclasses.fields(Rows)]
    every = Rows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    left: dict[str, Rows] = {
        split: task.rows[split].take([]) if split in splits else task.rows[split] for split in OPEN
    }
    return dataclasses.replace(task, rows={**left, "train": every}, trains=tuple(splits))


def attributes(task: Task) -> dict[str, dict[str, str]]:
    """Key -> what else the source tells of a sample (magnification, official folds, ...)."""
    path = task.folder / task.card.index.name
    table = _read_index(path, task.card.index.sha256, ("key", "attributes"), cards.SPLITS)
    try:
        told = [json.loads(text) for text in table["attributes"].to_pylist()]
    except (ValueError, TypeError) as error:
        raise ShardError(f"attributes that are not JSON: {error}", where=path, remedy="convert again") from None
    return dict(zip(table["key"].to_pylist(), told, strict=True))


def pool_of(tasks: Iterable[Task]) -> Pool:
    """These tasks as a pool."""
    ordered = tuple(sorted(tasks, key=lambda task: task.name))
    lines = "".join(f"{task.name} {task.card.digest}\n" for task in ordered)
    return Pool(ordered, hashlib.sha256(lines.encode()).hexdigest())


def leave_out(pool: Pool, names: Sequence[str]) -> tuple[Pool, tuple[Task, ...], tuple[str, ...]]:
    """The pool without the named tasks and those related to them; the tasks that left; a note for each that came along.

    Relations count in both directions and from task to task. Names match without regard to case, `-` and `_`.

    Raises:
        UsageError: an unknown name, or nothing left to train on.
    """
    leaving, pairs = _with_relatives(pool, names)
    gone = {task.name for task in leaving}
    notes = [f"{other} leaves too: related to {task}" for task, other in pairs]
    kept = [task for task in pool.tasks if task.name not in gone]
    if not kept:
        raise UsageError("every task is left out: nothing to train on", found=f"--leave-out {', '.join(sorted(gone))}")
    left = dataclasses.replace(pool_of(kept), unfinished=pool.unfinished) if gone else pool
    return left, tuple(sorted(leaving, key=lambda task: task.name)), tuple(notes)


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
    """The task called `name`, without regard to case, `-` and `_`."""
    by_name = {plain(task.name): task for task in pool.tasks}
    if (task := by_name.get(plain(name))) is not None:
        return task
    for unfinished in pool.unfinished:
        if plain(unfinished) == plain(name):
            raise UsageError(f"{unfinished} has not been converted to its end", remedy="run its conversion again")
    near = difflib.get_close_matches(plain(name), by_name, n=3)
    likely = [by_name[match].name for match in near] or [task.name for task in pool.tasks]
    raise UsageError(f"no task {name!r} in the pool", remedy=f"did you mean {' or '.join(likely)}?")


def _related(one: Task, other: Task) -> bool:
    return plain(other.name) in map(plain, one.card.related) or plain(one.name) in map(plain, other.card.related)


def _check_size(path: Path, size: int) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        raise ShardError(
            "missing" if found is None else "not the file that was written",
            where=path,
            expected=f"{size} bytes",
            found=None if found is None else f"{found} bytes",
            remedy="convert the source again",
        )


def _splits(folder: Path, card: cards.TaskCard, splits: Sequence[cards.Split], *, here: bool = True) -> dict[str, Rows]:
    """The samples of these splits, and of no other; the sizes of their shards, if these are here, are the card's."""
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
    """These columns of the rows of these splits."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ShardError("not the index that was written", where=path, remedy="convert the source again")
    try:
        return pq.read_table(path, columns=list(columns), filters=[("split", "in", list(splits))])
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ShardError(f"not an index: {reason}", where=path, remedy="convert the source again") from None


def _rows(table: pa.Table, split: str, shards: list[str], folder: Path) -> Rows:
    chosen = table.filter(pa.compute.equal(table["split"], split))
    shard = pa.compute.index_in(chosen["shard"], value_set=pa.array(shards, pa.string()))
    if shard.null_count:
        raise ShardError("the index names a shard that task.json does not", where=folder, remedy="convert again")
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
        raise ShardError("the index holds what is no sha256", where=folder, remedy="convert again") from None


def _column(values: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.asarray(values.to_numpy(), dtype=dtype)


def _check_split(card: cards.TaskCard, split: str, rows: Rows, folder: Path) -> None:
    stated = next((made.samples for name, made in card.splits.items() if name == split), 0)
    if stated != len(rows):
        raise ShardError(
            f"{split}: the index does not match task.json", where=folder, expected=stated, found=len(rows),
            remedy="convert the source again",
        )  # fmt: skip
    if len(rows) and not 0 <= rows.label.min() <= rows.label.max() < len(card.classes):
        raise ShardError(
            f"{split}: a label that is no class", where=folder, expected=f"0..{len(card.classes) - 1}",
            found=f"{rows.label.min()}..{rows.label.max()}",
        )  # fmt: skip
