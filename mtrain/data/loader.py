"""Load batches of uint8 images, by number, in worker processes.

A worker makes whole batches: it decodes each image from its shard and writes its square to memory that it shares with
the main process. Resizing and all later steps run on the device. The memory is allocated once and reused, because new
pages for each batch would cost a third of the time of decoding; only the number of images is sent between processes.
The images of a batch are in the order of their tasks.
"""

from __future__ import annotations

import atexit
import signal
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mtrain.backbones.card import Interpolation
from mtrain.data import sampling
from mtrain.data.augment import CENTRE, resized
from mtrain.data.batch import Batch
from mtrain.data.images import Images
from mtrain.data.prefetch import ON_THEIR_WAY, page_locked
from mtrain.data.targets import Targets
from mtrain.data.task import Rows, Task
from mtrain.errors import ShardError, UserError
from mtrain.used import mark

CPU = torch.device("cpu")
PREFETCHED = 2  # batches that each worker makes in advance


class BatchReady(NamedTuple):
    """A batch that was made: its number of images, and the unreadable ones that were replaced."""

    images: int
    skipped: tuple[UserError, ...] = ()
    dense: int = 0  # images with masks or points


@dataclass
class Skipping:
    """Skips unreadable samples, at most `limit` distinct ones. Each new one is passed to `note`."""

    limit: int = 0
    note: Callable[[str], None] = lambda _text: None
    found: dict[str, UserError] = field(default_factory=dict)

    def add(self, skipped: tuple[UserError, ...]) -> None:
        """Count the samples that were not skipped before.

        Raises:
            UserError: the limit is exceeded.
        """
        for error in skipped:
            if str(error) in self.found:
                continue
            if len(self.found) == self.limit:
                raise error
            self.found[str(error)] = error
            self.note(f"skipped, {len(self.found)} of at most {self.limit}: {error}")


@dataclass(frozen=True)
class BatchDraw:
    """The images of a batch, in order, with their augmentation."""

    index: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]
    looks: npt.NDArray[np.float32] | None = None


class Batches(Dataset[Batch | UserError]):
    """Item i is batch i, or the error: if a worker raised it, DataLoader would wrap it in a traceback."""

    def __init__(self, size: int, largest: int, tasks: int) -> None:
        self.size, self.largest, self.tasks = size, largest, tasks

    def make(self, number: int, into: Batch) -> BatchReady | UserError:
        """Write batch `number` to `into`, which has room for it. Errors are returned, not raised."""
        raise NotImplementedError

    def room(self, *, shared: bool = False) -> Batch:
        """Memory for the largest batch."""
        return Batch.room(self.largest, self.size, self.tasks, shared=shared)

    def __getitem__(self, number: int) -> Batch | UserError:
        room = self.room()
        made = self.make(number, room)
        return made if isinstance(made, UserError) else room.first(made.images, made.dense)


class ImageBatches(Batches):
    """Batches of images drawn by number. With `skip`, an unreadable image is replaced by the next one of its task.

    targets: the masks and points of these images; None: they are not read.
    """

    def __init__(
        self, images: Images, size: int, largest: int, *, skip: bool = False, targets: Targets | None = None
    ) -> None:
        super().__init__(size, largest, len(images.names))
        self.images, self.skip, self.targets = images, skip, targets

    def room(self, *, shared: bool = False) -> Batch:
        """Memory for the largest batch."""
        objects = None if self.targets is None else self.targets.most
        return Batch.room(self.largest, self.size, self.tasks, shared=shared, objects=objects)

    def drawn(self, number: int) -> BatchDraw:
        """The images of batch `number`."""
        raise NotImplementedError

    def make(self, number: int, into: Batch) -> BatchReady | UserError:
        """Write batch `number` to `into`, which has room for it. Errors are returned, not raised."""
        drawn = self.drawn(number)
        skipped: list[UserError] = []
        room, sides, used, dense = into.pixels.numpy(), into.sides.numpy(), 0, 0
        try:
            for slot, (index, place) in enumerate(zip(drawn.index.tolist(), drawn.place.tolist(), strict=True)):
                drawn.index[slot], sides[slot] = self._put(index, place, room[used:], into, dense, skipped)
                used += 3 * int(sides[slot]) ** 2
                dense += self._has_targets(index)
        except UserError as error:
            return error
        count = len(drawn.index)
        into.labels[:count] = torch.from_numpy(self.images.label[drawn.index])
        into.flips[:count] = torch.from_numpy(drawn.flips)
        if drawn.looks is not None:
            into.looks[:count] = torch.from_numpy(drawn.looks)
        into.counts[:] = torch.from_numpy(np.bincount(self.images.task_of(drawn.index), minlength=self.tasks))
        return BatchReady(count, tuple(skipped), dense)

    def _has_targets(self, index: int) -> bool:
        return self.targets is not None and self.targets.has(index)

    def _put(
        self, index: int, place: int, room: npt.NDArray[np.uint8], into: Batch, dense: int, skipped: list[UserError]
    ) -> tuple[int, int]:
        """Write an image, or the next readable one of its task, to `room`, and its targets to entry `dense` of the
        batch. Returns its number and its side.
        """
        first = index
        while True:
            try:
                side, shape = self.images.put(index, place, self.size, room)
                if self.targets is not None and self.targets.has(index):
                    self.targets.put(index, shape, place, into, dense)
                return index, side
            except ShardError as error:
                index = self.images.after(index)
                if not self.skip or index == first:
                    raise
                skipped.append(error)


class TrainingBatches(ImageBatches):
    """Item i is the batch of iteration i. `slots` is this process's share of it.

    With `skip`, an unreadable image is replaced by the next one of its task, so that the batch still depends only on
    seed, iteration and slots. With `looks`, amounts of further augmentation are drawn.
    """

    def __init__(
        self, images: Images, size: int, seed: int, slots: range, stream: sampling.Stream, *,
        skip: bool = False, mixture: sampling.Mixture = sampling.UNIFORM, looks: bool = False,
        targets: Targets | None = None,
    ) -> None:  # fmt: skip
        super().__init__(images, size, len(slots), skip=skip, targets=targets)
        self.seed, self.slots, self.stream, self.mixture, self.looks = seed, slots, stream, mixture, looks

    def drawn(self, number: int) -> BatchDraw:
        """The images of an iteration, in the order of tasks and rows."""
        drawn = sampling.draw(self.images.sizes, self.seed, number, self.slots, self.stream, self.mixture)
        index = self.images.starts[drawn.task] + drawn.row
        order = np.argsort(index, kind="stable")
        looks = sampling.looks(self.seed, number, order + self.slots.start) if self.looks else None
        return BatchDraw(index[order], drawn.place[order], drawn.flips[order], looks)


class Parts(Batches):
    """Micro-batches: item i * n + k is item i of part k, for n parts."""

    def __init__(self, parts: Sequence[Batches]) -> None:
        super().__init__(parts[0].size, max(part.largest for part in parts), parts[0].tasks)
        self.parts = parts

    def room(self, *, shared: bool = False) -> Batch:
        """Memory for the largest batch of any part."""
        return max(self.parts, key=lambda part: part.largest).room(shared=shared)

    def make(self, number: int, into: Batch) -> BatchReady | UserError:
        """Write one part of a batch to `into`."""
        item, part = divmod(number, len(self.parts))
        return self.parts[part].make(item, into)


class EpochBatches(ImageBatches):
    """Item i is batch i % parts of epoch i // parts. An epoch holds every image once, in batches of nearly equal size.

    No batch is much smaller than the others, because batch normalization needs more than a single image.
    """

    def __init__(self, images: Images, size: int, seed: int, batch: int, *, targets: Targets | None = None) -> None:
        self.parts = -(-len(images) // batch)
        super().__init__(images, size, -(-len(images) // max(self.parts, 1)), targets=targets)
        self.seed = seed
        self._drawn = (
            -1,
            sampling.epoch(0, seed, 0),
        )  # the current epoch: drawing its order again for each batch would be slow

    def drawn(self, number: int) -> BatchDraw:
        """One batch of an epoch."""
        epoch, part = divmod(number, self.parts)
        if self._drawn[0] != epoch:
            self._drawn = (epoch, sampling.epoch(len(self.images), self.seed, epoch))
        start, end = (number * len(self.images) // self.parts for number in (part, part + 1))
        drawn = self._drawn[1]
        return BatchDraw(drawn.row[start:end].copy(), drawn.place[start:end], drawn.flips[start:end])


class OrderedBatches(ImageBatches):
    """Item i is the i-th block of `batch` images: every image once, in order, cropped at the centre."""

    def __init__(self, images: Images, size: int, batch: int, *, targets: Targets | None = None) -> None:
        super().__init__(images, size, batch, targets=targets)

    def __len__(self) -> int:
        return -(-len(self.images) // self.largest)

    def drawn(self, number: int) -> BatchDraw:
        """The images of one block."""
        index = np.arange(number * self.largest, min((number + 1) * self.largest, len(self.images)))
        return BatchDraw(index, np.full(len(index), CENTRE), np.zeros((len(index), 2), dtype=bool))


def batches(
    dataset: Batches, numbers: range, *, workers: int, pin: bool = False, skipping: Skipping | None = None,
    lasting: int | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """The batches `numbers` of a dataset, in that order, made by `workers` processes (0: in this one).

    Each batch is a copy. With `lasting`, none is copied: only the last `lasting` ones yielded are valid, since their
    memory is reused. With `pin`, a CUDA device can copy from them without the processor: the pixels of only the last
    `ON_THEIR_WAY` are valid, the other tensors are copies in pinned memory.

    Raises:
        ShardError: an image cannot be read, or more than `skipping` allows.
    """
    mark("workers")
    slots = _ReusedSlots(dataset, numbers, workers, ON_THEIR_WAY if pin else lasting or 1)
    with warnings.catch_warnings():  # more workers than processors are the user's choice
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[BatchReady | UserError] = DataLoader(
            slots,
            batch_size=None,
            sampler=range(len(numbers)),
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            worker_init_fn=_leave_signals_to_the_main_process,
            generator=torch.Generator(),  # else the loader draws from torch's global random state
        )
    loaded = _uncopied(slots, iter(loader), skipping)
    atexit.register(loaded.close)  # else this process waits at its end for the workers, which ignore signals
    unregister = partial(atexit.unregister, loaded.close)  # a generator may outlive the names of its module
    pixels = [slot.pixels for slot in slots.slots]
    try:
        with page_locked(pixels) if pin else nullcontext(False) as locked:  # after the workers have started
            for batch in loaded:
                yield batch if lasting else batch.copied(pin, pixels=not locked)
    finally:
        unregister()


def _uncopied(
    slots: _ReusedSlots, made: Iterator[BatchReady | UserError], skipping: Skipping | None
) -> Generator[Batch, None, None]:
    """The batches, in the memory that they were made in."""
    try:
        for position, one in enumerate(made):
            if isinstance(one, UserError):
                raise one
            if skipping is not None:
                skipping.add(one.skipped)
            yield slots.memory(position).first(one.images, one.dense)
    finally:
        del made  # drops the last reference, which ends the workers: the traceback of an error would keep it


class _ReusedSlots(Dataset[BatchReady | UserError]):
    """Batches made in slots of shared memory, which are reused in turn.

    The DataLoader holds at most workers x PREFETCHED unread batches, and the consumer keeps the last `lasting` ones.
    That many slots suffice.
    """

    def __init__(self, dataset: Batches, numbers: range, workers: int, lasting: int) -> None:
        self.dataset, self.numbers = dataset, numbers
        count = min(workers * PREFETCHED + lasting, max(len(numbers), 1))
        self.slots = [dataset.room(shared=workers > 0) for _ in range(count)]

    def __getitem__(self, position: int) -> BatchReady | UserError:
        return self.dataset.make(self.numbers[position], self.memory(position))

    def memory(self, position: int) -> Batch:
        """The slot of the batch at this position."""
        return self.slots[position % len(self.slots)]


def ordered_batches(
    task: Task,
    rows: Rows,
    *,
    size: int,
    batch: int,
    workers: int,
    device: torch.device = CPU,
    how: Interpolation = "bilinear",
) -> Iterator[tuple[Tensor, npt.NDArray[np.int64]]]:
    """Every image of `rows` once, in order: batches of uint8 (n, 3, size, size) on the device, each with the positions
    of its n images in `rows`.
    """
    dataset = OrderedBatches(Images([(task, rows)], how=how), size, batch)
    done = 0
    for item in batches(dataset, range(len(dataset)), workers=min(workers, len(dataset)), lasting=1):
        images = resized(item.pixels.to(device), item.sides, size, how=how)
        yield images, np.arange(done, done + len(images))
        done += len(images)


def _leave_signals_to_the_main_process(_worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
