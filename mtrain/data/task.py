"""Open one task from its folder of shards or its URL. Only this module and mtrain.data.index read the on-disk format.

Tasks are opened without their test sets. Only `with_test` opens these, for the steps that a `Permit` lists.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dpconvert import card as cards
from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.data import shard_cache
from mtrain.data.addresses import url_of
from mtrain.data.index import check_size, column_of, read_index, splits_of
from mtrain.data.rows import DenseTargets, Rows
from mtrain.errors import ShardError, UsageError

NAME_IT = "give the folder of the tasks with --shards, or convert a source with `dpconvert NAME --out DIR`"
OPEN: tuple[cards.Split, ...] = ("train", "val")  # splits that every step may read


class Permit(enum.Enum):
    """The steps that may read test sets. They come last, after every choice is made."""

    EVALUATE = "mtrain evaluate, mtrain transfer --final"
    BREAKHIS = "mtrain breakhis"
    RELEASE = "mtrain release"
    LIBRARY = "mtrain.ShardDataset(..., open_test=True)"


@dataclasses.dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {number}" for split, number in self.sizes.items())
        return f"Task({self.name!r}: {counted(self.num_classes, 'class')}; {sizes})"

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
    def dense(self) -> DenseTargets | None:
        """The task's masks and points as its card describes them; None if it has neither."""
        return _dense(self.card)

    @property
    def unused(self) -> list[str]:
        """The names of the task's dense targets that are neither trained on nor scored."""
        given = self.card.dense
        apart = given and given.instances and not given.instances.exhaustive
        return [*_unused(self.card), *(["instances, which are not exhaustive"] if apart else [])]

    @property
    def untrained(self) -> list[str]:
        """The names of the task's dense targets that are not trained on."""
        given = self.card.dense
        return [*_unused(self.card), *(["instances, which only scores read"] if given and given.instances else [])]

    @property
    def why_not_dense(self) -> tuple[str, str] | None:
        """Why the task has no dense targets to train on or to score, and what to do; None if it has some."""
        if self.dense is not None:
            return None
        if not self.unused:
            return "this task has neither masks nor points", "convert its source with --dense, if that keeps some"
        keep = "keep the centres of objects: [dense.points] of the manifest takes the labels of boxes, and a radius"
        complete = "if every object is annotated, state `exhaustive = true` in [dense.points] of the manifest"
        boxes = self.card.dense is not None and self.card.dense.points is None
        return (
            f"the only dense targets of this task are not used: {' and '.join(self.unused)}",
            keep if boxes else complete,
        )

    def files(self) -> list[Path | shard_cache.Copy]:
        """The shards to read: local paths, or copies to be downloaded."""
        return list(self.shards if self.url is None else _copies(self.url, self.card))


def _unused(card: cards.TaskCard) -> list[str]:
    """The names of the dense targets other than instances that are neither trained on nor scored."""
    given = card.dense
    some = given and given.points and not given.points.exhaustive
    boxes = ["boxes"] if given and given.boxes else []
    return [*boxes, *(["points, which are not exhaustive"] if some else [])]


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
    check_size(folder / card.index.name, card.index.size)
    shards = tuple(folder / shard.name for shard in card.shards)
    return Task(card.task, folder, card, shards, splits_of(folder, card, OPEN))


def _open_remote(url: str) -> Task:
    """Open a remote task. mtrain.data.batches.images downloads its shards when images are needed."""
    folder = shard_cache.task_folder(url)
    card = cards.load(folder)
    shard_cache.index_file(url, card.index.name, folder, card.index.size, card.index.sha256)
    shards = tuple(copy.path for copy in _copies(url, card))
    return Task(card.task, folder, card, shards, splits_of(folder, card, OPEN, here=False), url)


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
    opened = splits_of(task.folder, task.card, ("test",), here=task.url is None)
    return dataclasses.replace(task, rows={**task.rows, **opened})


def attributes(task: Task) -> dict[str, dict[str, str]]:
    """Key -> further attributes of a sample from its source (magnification, official folds, ...)."""
    path = task.folder / task.card.index.name
    table = read_index(path, task.card.index.sha256, ("key", "attributes"), cards.SPLITS)
    try:
        values = [json.loads(text) for text in table["attributes"].to_pylist()]
    except (ValueError, TypeError) as error:
        raise ShardError(f"attributes are not JSON: {error}", where=path, remedy="convert the source again") from None
    return dict(zip(table["key"].to_pylist(), values, strict=True))


def has_frames(task: Task) -> bool:
    """Whether samples are parts of images: whether any begins elsewhere than at the corner of its image."""
    path = task.folder / task.card.index.name
    table = read_index(path, task.card.index.sha256, ("x", "y"), cards.SPLITS)
    return any(bool(column_of(table[name], np.int64).any()) for name in ("x", "y"))


def _dense(card: cards.TaskCard) -> DenseTargets | None:
    """Return the dense targets; non-exhaustive points are ignored, as the area between them may not be empty, and so
    are non-exhaustive instances.
    """
    given = card.dense
    points = given.points if given and given.points and given.points.exhaustive else None
    if given is None or (given.seg is None and points is None):
        return None
    return DenseTargets(
        seg=tuple(given.seg.classes) if given.seg else (),
        points=tuple(points.classes) if points else (),
        radius_um=points.radius_um if points else None,
        radius_px=points.radius_px if points else None,
        instances=tuple(given.instances.classes) if given.instances and given.instances.exhaustive else (),
    )
