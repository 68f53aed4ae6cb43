"""Open one task from its folder of shards or its URL. Only this module reads the on-disk format of dpconvert.

Tasks are opened without their test sets. Only `with_test` opens these, for the steps that a `Permit` lists.
"""

from __future__ import annotations

import dataclasses
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
from dpconvert.runtime.progress import Reporter
from mtrain.data import shard_cache
from mtrain.data.kept import kept
from mtrain.data.storage import url_of
from mtrain.errors import ShardError, UsageError

NAME_IT = "give the folder of the tasks with --shards, or convert a source with `dpconvert NAME --out DIR`"
INDEX_COLUMNS = ("key", "split", "shard", "offset", "length", "group", "sha256")
Target = cards.Target
NO_CLASS = -1  # label of samples that do not have one class
COLUMN: dict[cards.Target, str] = {"class": "label", "labels": "labels", "value": "value"}
MASK_COLUMNS = ("seg_offset", "seg_length", "seg_sha256")
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
    label: the class of each sample, NO_CLASS if the task's samples do not have one class; their targets are then in
    `target`, (n, outputs): 0 or 1 for each class, or the number in the unit of the source.
    seg_offset, seg_length, seg_sha256: those of masks; None in tasks without masks. objects: number of points and boxes
    of each sample; None in tasks without either.
    """

    key: npt.NDArray[np.object_]
    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    group: npt.NDArray[np.object_]
    sha256: npt.NDArray[np.uint8]
    seg_offset: npt.NDArray[np.int64] | None = None
    seg_length: npt.NDArray[np.int64] | None = None
    seg_sha256: npt.NDArray[np.uint8] | None = None
    objects: npt.NDArray[np.int64] | None = None
    target: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, indices: npt.ArrayLike) -> Rows:
        """The samples at `indices` (or under a boolean mask), in that order."""
        chosen = np.asarray(indices)
        chosen = chosen if chosen.size else chosen.astype(np.int64)  # numpy makes an empty list an array of floats
        return Rows(**{name: column[chosen] for name, column in self._columns()})

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """The samples of these parts of one task, one part after the other."""
        names = [name for name, _ in parts[0]._columns()]
        return Rows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def _columns(self) -> Iterable[tuple[str, Any]]:
        columns = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return ((name, column) for name, column in columns if column is not None)


@dataclasses.dataclass(frozen=True)
class Dense:
    """Masks and points of a task. seg, points: their classes, () if the task has no masks or points. instances: those
    classes of masks whose objects are told apart.

    radius_um, radius_px: how far a point may lie from its object, in micrometres and in pixels of the stored image;
    without `radius_px`, the resolution of the sample is used.
    """

    seg: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    radius_um: float | None = None
    radius_px: float | None = None
    instances: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Number of maps that a head of the task predicts."""
        return len(self.seg) + len(self.points)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric of each kind that the task has, the main one first."""
        return (("dice",) if self.seg else ()) + (("f1",) if self.points else ())


@dataclasses.dataclass(frozen=True)
class Task:
    """One task: its card, its shards and the samples of train and val; after `with_test`, also of test.

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
    def target(self) -> cards.Target:
        """What samples are labelled with: one class, any number of classes, or a number."""
        return self.card.target

    @property
    def outputs(self) -> int:
        """The number of values that a head of the task predicts: one for each class, or one for a number."""
        return 1 if self.target == "value" else self.num_classes

    @property
    def sizes(self) -> dict[str, int]:
        """Number of samples of each split, including the test set, as the card states them."""
        stated = {str(split): card.samples for split, card in self.card.splits.items()}
        return {split: stated.get(split, 0) for split in cards.SPLITS}

    @property
    def metric(self) -> str:
        return self.card.metric

    @property
    def dense(self) -> Dense | None:
        """The task's masks and points as its card describes them; None if it has neither."""
        return _dense(self.card)

    @property
    def unused(self) -> list[str]:
        """The names of the task's dense targets that are not used."""
        given = self.card.dense
        boxes = ["boxes"] if given and given.boxes else []
        some = given and given.points and not given.points.exhaustive
        apart = given and given.instances and not given.instances.exhaustive
        return [
            *boxes,
            *(["points, which are not exhaustive"] if some else []),
            *(["instances, which are not exhaustive"] if apart else []),
        ]

    def files(self) -> list[Path | shard_cache.Copy]:
        """The shards to read: local paths, or copies to be downloaded."""
        return list(self.shards if self.url is None else _copies(self.url, self.card))


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


def attributes(task: Task) -> dict[str, dict[str, str]]:
    """Key -> further attributes of a sample from its source (magnification, official folds, ...)."""
    path = task.folder / task.card.index.name
    table = _read_index(path, task.card.index.sha256, ("key", "attributes"), cards.SPLITS)
    try:
        values = [json.loads(text) for text in table["attributes"].to_pylist()]
    except (ValueError, TypeError) as error:
        raise ShardError(f"attributes are not JSON: {error}", where=path, remedy="convert the source again") from None
    return dict(zip(table["key"].to_pylist(), values, strict=True))


def has_frames(task: Task) -> bool:
    """Whether samples are parts of images: whether any begins elsewhere than at the corner of its image."""
    path = task.folder / task.card.index.name
    table = _read_index(path, task.card.index.sha256, ("x", "y"), cards.SPLITS)
    return any(bool(_column(table[name], np.int64).any()) for name in ("x", "y"))


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


def _dense(card: cards.TaskCard) -> Dense | None:
    """Return the dense targets; non-exhaustive points are ignored, as the area between them may not be empty, and so
    are non-exhaustive instances.
    """
    given = card.dense
    points = given.points if given and given.points and given.points.exhaustive else None
    if given is None or (given.seg is None and points is None):
        return None
    return Dense(
        seg=tuple(given.seg.classes) if given.seg else (),
        points=tuple(points.classes) if points else (),
        radius_um=points.radius_um if points else None,
        radius_px=points.radius_px if points else None,
        instances=tuple(given.instances.classes) if given.instances and given.instances.exhaustive else (),
    )


def _dense_columns(card: cards.TaskCard) -> tuple[str, ...]:
    """Return the columns of the index that only tasks with masks, points or boxes have."""
    given = card.dense
    if given is None:
        return ()
    return (MASK_COLUMNS if given.seg else ()) + (("objects",) if given.points or given.boxes else ())


def _splits(folder: Path, card: cards.TaskCard, splits: Sequence[cards.Split], *, here: bool = True) -> dict[str, Rows]:
    """Read the samples of these splits only. `here`: the shards are local, so their sizes are checked."""
    for shard in card.shards:
        if here and shard.split in splits:
            _check_size(folder / shard.name, shard.size)
    path = folder / card.index.name
    found = path.stat()
    key = card.digest, found.st_ino, found.st_size, found.st_mtime_ns
    return kept(f"{path} {' '.join(splits)}", key, lambda: _read_splits(folder, card, splits))


def _read_splits(folder: Path, card: cards.TaskCard, splits: Sequence[cards.Split]) -> dict[str, Rows]:
    columns = (*INDEX_COLUMNS, COLUMN[card.target], *_dense_columns(card))
    table = _read_index(folder / card.index.name, card.index.sha256, columns, splits)
    names = [shard.name for shard in card.shards]
    rows: dict[str, Rows] = {split: _rows(table, card, split, names, folder) for split in splits}
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


def _rows(table: pa.Table, card: cards.TaskCard, split: str, shards: list[str], folder: Path) -> Rows:
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
        **_labels(chosen, card),
        group=_column(chosen["group"], np.object_),
        sha256=_digests(chosen["sha256"], folder),
        **_dense_rows(chosen, folder),
    )


def _labels(chosen: pa.Table, card: cards.TaskCard) -> dict[str, npt.NDArray[Any]]:
    """The columns `label`, and `target` if samples do not have one class."""
    if card.target == "class":
        return {"label": _column(chosen["label"], np.int64)}
    none = np.full(len(chosen), NO_CLASS, np.int64)
    if card.target == "value":
        return {"label": none, "target": _column(chosen["value"], np.float64)[:, None]}
    target = np.zeros((len(chosen), len(card.classes)))
    for row, labels in enumerate(chosen["labels"].to_pylist()):
        if any(not 0 <= label < len(card.classes) for label in labels):
            target[row] = np.nan  # refused with the number of the row's set
        else:
            target[row, labels] = 1
    return {"label": none, "target": target}


def _dense_rows(chosen: pa.Table, folder: Path) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {
        name: _column(chosen[name], np.int64)
        for name in ("seg_offset", "seg_length", "objects") if name in chosen.column_names
    }  # fmt: skip
    if "seg_sha256" in chosen.column_names:
        found["seg_sha256"] = _digests(chosen["seg_sha256"], folder)
    return found


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
    if rows.target is not None and not np.isfinite(rows.target).all():
        raise ShardError(
            f"{split}: {COLUMN[card.target]} out of range", where=folder, remedy="convert the source again"
        )
    if len(rows) and rows.target is None and not 0 <= rows.label.min() <= rows.label.max() < len(card.classes):
        raise ShardError(
            f"{split}: labels out of range", where=folder, expected=f"0..{len(card.classes) - 1}",
            found=f"{rows.label.min()}..{rows.label.max()}", remedy="convert the source again",
        )  # fmt: skip
