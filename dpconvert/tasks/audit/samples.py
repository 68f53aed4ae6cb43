"""Reads all samples of task folders as columns; a million samples take about 200 MB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpconvert.card import TaskCard, load
from dpconvert.errors import ShardError
from dpconvert.shards.index import file_card, read_index
from dpconvert.tasks import labels

COLUMNS = ("key", "split", "shard", "offset", "length", "group", "sha256")


@dataclass(frozen=True)
class AuditedSamples:
    """Every sample of the tasks in `folders`, described by `cards`. Each column has one entry per sample.

    task: index into `cards`. shard, split, key, group, sha256: as in the index. offset, length: the bytes of the image.
    label: in words.
    """

    folders: list[Path]
    cards: list[TaskCard]
    task: NDArray[np.int32]
    key: NDArray[np.object_]
    split: NDArray[np.object_]
    shard: NDArray[np.object_]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    label: NDArray[np.object_]
    group: NDArray[np.object_]
    sha256: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.task)

    def shards(self) -> list[tuple[int, str, NDArray[np.intp]]]:
        """(task, name, numbers of its samples in the order of the tar) for every tar."""
        shards = []
        for task, card in enumerate(self.cards):
            of_task = np.flatnonzero(self.task == task)
            names = self.shard[of_task]
            shards += [(task, shard.name, of_task[names == shard.name]) for shard in card.shards]
        return shards

    def image(self, sample: int) -> bytes:
        """The bytes of one image.

        Raises:
            ShardError: the shard cannot be read, or does not match the index.
        """
        path = self.folders[self.task[sample]] / self.shard[sample]
        try:
            with path.open("rb") as file:
                file.seek(int(self.offset[sample]))
                data: bytes = file.read(int(self.length[sample]))
        except OSError as error:
            raise ShardError(
                f"cannot be read: {error.strerror}", where=path, remedy="convert the source again"
            ) from None
        if len(data) != self.length[sample]:
            raise ShardError("shorter than its index states", where=path, remedy="convert the source again")
        return data


def read_samples(folders: Sequence[Path]) -> AuditedSamples:
    """The samples of finished tasks, in the order of the folders and of their tars.

    Raises:
        ShardError: a task is unfinished, or its index has changed.
    """
    cards = [load(folder) for folder in folders]
    tables = [_index(folder, card) for folder, card in zip(folders, cards, strict=True)]
    column: dict[str, Any] = {}
    for name in COLUMNS:
        parts = [np.asarray(table[name].to_numpy(zero_copy_only=False)) for table in tables]
        column[name] = np.concatenate(parts) if parts else np.array([])
    column["label"] = np.array([word for one in zip(cards, tables, strict=True) for word in _labels(*one)], object)
    task = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])
    return AuditedSamples(list(folders), cards, task, **column)


def _labels(card: TaskCard, table: Any) -> Iterator[str]:
    """The labels of all samples of a task."""
    words: dict[str, str] = {}
    for label in table[labels.column(card)].to_pylist():
        if str(label) not in words:
            words[str(label)] = labels.in_words(card, label)
        yield words[str(label)]


def _index(folder: Path, card: TaskCard) -> Any:
    path = folder / card.index.name
    if not path.is_file() or file_card(path).sha256 != card.index.sha256:
        raise ShardError("changed since it was written", where=path, remedy="`dpconvert verify` lists what is damaged")
    try:
        return read_index(path).select([*COLUMNS, labels.column(card)])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ShardError(f"unreadable index: {error}", where=path, remedy="convert the source again") from None
