"""Rows of shards in, batches of uint8 pictures out, decoded in worker processes.

A worker makes whole batches: it reads each picture by offset from the mapped shard, decodes and crops it straight into
one tensor, which reaches the main process through shared memory. Pictures of a batch stand in the order of their tasks.
"""

from __future__ import annotations

import mmap
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mtrain import sampling
from mtrain.augment import CENTRE, square
from mtrain.decode import decode
from mtrain.errors import ShardError, UserError
from mtrain.pool import Rows, Task


class Batch(NamedTuple):
    """`counts[t]` pictures of task t, one task after the other; all tensors are on the CPU."""

    images: Tensor  # uint8 (N, 3, size, size), channels last
    labels: Tensor  # int64 (N,)
    flips: Tensor  # bool (N, 2): left-right, up-down
    counts: Tensor  # int64 (tasks,)


class Images:
    """Random access to the pictures of some tasks, numbered through in the order of the tasks and of their rows."""

    def __init__(self, parts: Sequence[tuple[Task, Rows]]) -> None:
        self.names = [task.name for task, _ in parts]
        self.shards: list[Path] = [path for task, _ in parts for path in task.shards]
        self.starts = np.cumsum([0] + [len(rows) for _, rows in parts])
        first_shard = np.cumsum([0] + [len(task.shards) for task, _ in parts])
        self.shard = _joined([rows.shard + first for (_, rows), first in zip(parts, first_shard, strict=False)])
        self.offset = _joined([rows.offset for _, rows in parts])
        self.length = _joined([rows.length for _, rows in parts])
        self.label = _joined([rows.label for _, rows in parts])
        # bytes, not objects: forked workers then share these pages for good
        self.key: npt.NDArray[np.bytes_] = np.concatenate([rows.key.astype("S") for _, rows in parts])
        self._maps: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def sizes(self) -> list[int]:
        """Pictures of each task."""
        return [int(n) for n in np.diff(self.starts)]

    def task_of(self, index: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The task, counted from 0, that each picture belongs to."""
        return np.searchsorted(self.starts, np.asarray(index), side="right").astype(np.int64) - 1

    def read(self, index: int) -> bytes:
        """The encoded bytes of one picture."""
        start, length = int(self.offset[index]), int(self.length[index])
        return self._map(int(self.shard[index]))[start : start + length]

    def decode(self, index: int) -> Tensor:
        """The pixels of one picture, uint8 (3, height, width).

        Raises:
            ShardError: it cannot be read.
        """
        try:
            return decode(self.read(index))
        except (ValueError, OSError) as error:
            raise ShardError(
                f"{self.names[int(self.task_of(index))]}: cannot read picture {self.key[index].decode()}: {error}",
                where=self.shards[self.shard[index]],
                remedy="check the shards with `dpconvert verify`",
            ) from None

    def _map(self, shard: int) -> mmap.mmap:
        if shard not in self._maps:
            with self.shards[shard].open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


class TrainingBatches(Dataset[Batch | UserError]):
    """Item i is the batch of iteration i; `slots` is the share of the batch that is asked of this process."""

    def __init__(self, images: Images, size: int, seed: int, slots: range, stream: sampling.Stream) -> None:
        self.images, self.size, self.seed, self.slots, self.stream = images, size, seed, slots, stream

    def __getitem__(self, iteration: int) -> Batch | UserError:
        drawn = sampling.draw(self.images.sizes, self.seed, iteration, self.slots, self.stream)
        index = self.images.starts[drawn.task] + drawn.row
        order = np.argsort(index, kind="stable")
        return _batch(self.images, index[order], drawn.place[order], drawn.flips[order], self.size)


class EpochBatches(Dataset[Batch | UserError]):
    """Item i is batch i % parts of epoch i // parts: in an epoch every picture once, in batches of nearly one size.

    So no batch is much smaller than the others: batch normalization would not know what to do with a single picture.
    """

    def __init__(self, images: Images, size: int, seed: int, batch: int) -> None:
        self.images, self.size, self.seed = images, size, seed
        self.parts = -(-len(images) // batch)
        self._drawn = (-1, sampling.epoch(0, seed, 0))  # the epoch at hand: ordering one anew for each batch costs

    def __getitem__(self, number: int) -> Batch | UserError:
        epoch, part = divmod(number, self.parts)
        if self._drawn[0] != epoch:
            self._drawn = (epoch, sampling.epoch(len(self.images), self.seed, epoch))
        start, end = (at * len(self.images) // self.parts for at in (part, part + 1))
        drawn = self._drawn[1]
        return _batch(self.images, drawn.row[start:end], drawn.place[start:end], drawn.flips[start:end], self.size)


class OrderedBatches(Dataset[Batch | UserError]):
    """Item i is the i-th run of `batch` pictures: all of them once, in order, cropped at the centre."""

    def __init__(self, images: Images, size: int, batch: int) -> None:
        self.images, self.size, self.batch = images, size, batch

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch)

    def __getitem__(self, number: int) -> Batch | UserError:
        index = np.arange(number * self.batch, min((number + 1) * self.batch, len(self.images)))
        place, flips = np.full(len(index), CENTRE), np.zeros((len(index), 2), dtype=bool)
        return _batch(self.images, index, place, flips, self.size)


def batches(dataset: Dataset[Batch | UserError], numbers: range, *, workers: int, pin: bool = False) -> Iterator[Batch]:
    """The items `numbers` of a dataset, in that order, made by `workers` processes (0: in this one).

    Raises:
        ShardError: a picture that cannot be read.
    """
    loader: DataLoader[Batch | UserError] = DataLoader(
        dataset,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_main_process,
        pin_memory=pin,
        generator=torch.Generator(),  # else the loader takes a number out of torch's global random state
    )
    for item in loader:
        if isinstance(item, UserError):
            raise item
        yield item


def ordered_batches(
    task: Task, rows: Rows, *, size: int, batch: int, workers: int
) -> Iterator[tuple[Tensor, npt.NDArray[np.int64]]]:
    """Each picture of `rows` once, in order: uint8 (n, 3, size, size), and the positions in `rows` of these n."""
    dataset = OrderedBatches(Images([(task, rows)]), size, batch)
    done = 0
    for item in batches(dataset, range(len(dataset)), workers=min(workers, len(dataset))):
        yield item.images, np.arange(done, done + len(item.images))
        done += len(item.images)


def _batch(
    images: Images, index: npt.NDArray[np.int64], place: npt.NDArray[np.int64], flips: npt.NDArray[np.bool_], size: int
) -> Batch | UserError:
    """An unreadable picture is answered, not raised: the loader would wrap an exception in its worker's traceback."""
    pixels = torch.empty((len(index), 3, size, size), dtype=torch.uint8, memory_format=torch.channels_last)
    try:
        for target, number, where in zip(pixels, index.tolist(), place.tolist(), strict=True):
            target.copy_(square(images.decode(number), size, where))
    except UserError as error:
        return error
    counts = np.bincount(images.task_of(index), minlength=len(images.names))
    return Batch(pixels, torch.from_numpy(images.label[index]), torch.from_numpy(flips), torch.from_numpy(counts))


def _joined(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return np.concatenate(columns).astype(np.int64)


def _leave_signals_to_the_main_process(_worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
