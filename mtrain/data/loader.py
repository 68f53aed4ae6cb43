"""Numbers of batches in, batches of uint8 pictures out, made in worker processes.

A worker makes whole batches: it decodes each picture from its place in the shard and puts its square into memory that
it shares with the main process; resizing and what follows is for the device. That memory is made once and used in turn:
new pages for each batch would cost as much as a third of the decoding. What is sent between processes is how many
pictures there are. Pictures of a batch stand in the order of their tasks.
"""

from __future__ import annotations

import atexit
import signal
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
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
from mtrain.data.pool import Rows, Task
from mtrain.errors import ShardError, UserError

CPU = torch.device("cpu")
PREFETCHED = 2  # batches that each worker makes ahead


class Made(NamedTuple):
    """A batch was made: how many pictures, and the corrupt ones in whose place others stand."""

    pictures: int
    skipped: tuple[UserError, ...] = ()


@dataclass
class Skipping:
    """Corrupt samples may be skipped, `limit` different ones at most; each new one is told to `note`."""

    limit: int = 0
    note: Callable[[str], None] = lambda _text: None
    found: dict[str, UserError] = field(default_factory=dict)

    def add(self, skipped: tuple[UserError, ...]) -> None:
        """Count those not seen before.

        Raises:
            UserError: one too many.
        """
        for error in skipped:
            if str(error) in self.found:
                continue
            if len(self.found) == self.limit:
                raise error
            self.found[str(error)] = error
            self.note(f"skipped, {len(self.found)} of at most {self.limit}: {error}")


@dataclass(frozen=True)
class Drawn:
    """Pictures of a batch, in the order in which they are to stand."""

    index: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]
    looks: npt.NDArray[np.float32] | None = None


class Batches(Dataset[Batch | UserError]):
    """Item i is batch i, or why it cannot be made: raised in a worker, it would come wrapped in a traceback."""

    def __init__(self, size: int, largest: int, tasks: int) -> None:
        self.size, self.largest, self.tasks = size, largest, tasks

    def make(self, number: int, into: Batch) -> Made | UserError:
        """Put batch `number` into memory that has room for it."""
        raise NotImplementedError

    def room(self, *, shared: bool = False) -> Batch:
        """Memory for the largest batch."""
        return Batch.room(self.largest, self.size, self.tasks, shared=shared)

    def __getitem__(self, number: int) -> Batch | UserError:
        room = self.room()
        made = self.make(number, room)
        return made if isinstance(made, UserError) else room.first(made.pictures)


class ImageBatches(Batches):
    """Batches of pictures drawn by number; with `skip`, the next of its task stands for one that cannot be read."""

    def __init__(self, images: Images, size: int, largest: int, *, skip: bool = False) -> None:
        super().__init__(size, largest, len(images.names))
        self.images, self.skip = images, skip

    def drawn(self, number: int) -> Drawn:
        """Which pictures batch `number` holds."""
        raise NotImplementedError

    def make(self, number: int, into: Batch) -> Made | UserError:
        """Put batch `number` into memory that has room for it."""
        drawn = self.drawn(number)
        skipped: list[UserError] = []
        room, sides, used = into.pixels.numpy(), into.sides.numpy(), 0
        try:
            for slot, (index, place) in enumerate(zip(drawn.index.tolist(), drawn.place.tolist(), strict=True)):
                drawn.index[slot], sides[slot] = self._put(index, place, room[used:], skipped)
                used += 3 * int(sides[slot]) ** 2
        except UserError as error:
            return error
        count = len(drawn.index)
        into.labels[:count] = torch.from_numpy(self.images.label[drawn.index])
        into.flips[:count] = torch.from_numpy(drawn.flips)
        if drawn.looks is not None:
            into.looks[:count] = torch.from_numpy(drawn.looks)
        into.counts[:] = torch.from_numpy(np.bincount(self.images.task_of(drawn.index), minlength=self.tasks))
        return Made(count, tuple(skipped))

    def _put(self, index: int, place: int, room: npt.NDArray[np.uint8], skipped: list[UserError]) -> tuple[int, int]:
        """Put a picture into the batch, or the next of its task that can be read; the number and the side of it."""
        first = index
        while True:
            try:
                return index, self.images.put(index, place, self.size, room)
            except ShardError as error:
                index = self.images.after(index)
                if not self.skip or index == first:
                    raise
                skipped.append(error)


class TrainingBatches(ImageBatches):
    """Item i is the batch of iteration i; `slots` is the share of the batch that is asked of this process.

    With `skip`, a picture that cannot be read gives its slot to the next one of its task: still a function of seed,
    iteration and slot alone. With `looks`, these are drawn too.
    """

    def __init__(
        self, images: Images, size: int, seed: int, slots: range, stream: sampling.Stream, *,
        skip: bool = False, mixture: sampling.Mixture = sampling.UNIFORM, looks: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(images, size, len(slots), skip=skip)
        self.seed, self.slots, self.stream, self.mixture, self.looks = seed, slots, stream, mixture, looks

    def drawn(self, number: int) -> Drawn:
        """The draw of an iteration, in the order of tasks and rows."""
        drawn = sampling.draw(self.images.sizes, self.seed, number, self.slots, self.stream, self.mixture)
        index = self.images.starts[drawn.task] + drawn.row
        order = np.argsort(index, kind="stable")
        looks = sampling.looks(self.seed, number, order + self.slots.start) if self.looks else None
        return Drawn(index[order], drawn.place[order], drawn.flips[order], looks)


class Parts(Batches):
    """Item i * n + k is item i of part k of the n: micro-batches."""

    def __init__(self, parts: Sequence[Batches]) -> None:
        super().__init__(parts[0].size, max(part.largest for part in parts), parts[0].tasks)
        self.parts = parts

    def make(self, number: int, into: Batch) -> Made | UserError:
        """Put a part of a batch into memory that has room for it."""
        item, part = divmod(number, len(self.parts))
        return self.parts[part].make(item, into)


class EpochBatches(ImageBatches):
    """Item i is batch i % parts of epoch i // parts: in an epoch every picture once, in batches of nearly one size.

    So no batch is much smaller than the others: batch normalization would not know what to do with a single picture.
    """

    def __init__(self, images: Images, size: int, seed: int, batch: int) -> None:
        self.parts = -(-len(images) // batch)
        super().__init__(images, size, -(-len(images) // max(self.parts, 1)))
        self.seed = seed
        self._drawn = (-1, sampling.epoch(0, seed, 0))  # the epoch at hand: ordering one anew for each batch costs

    def drawn(self, number: int) -> Drawn:
        """A part of an epoch, in its order."""
        epoch, part = divmod(number, self.parts)
        if self._drawn[0] != epoch:
            self._drawn = (epoch, sampling.epoch(len(self.images), self.seed, epoch))
        start, end = (at * len(self.images) // self.parts for at in (part, part + 1))
        drawn = self._drawn[1]
        return Drawn(drawn.row[start:end].copy(), drawn.place[start:end], drawn.flips[start:end])


class OrderedBatches(ImageBatches):
    """Item i is the i-th run of `batch` pictures: all of them once, in order, cropped at the centre."""

    def __init__(self, images: Images, size: int, batch: int) -> None:
        super().__init__(images, size, batch)

    def __len__(self) -> int:
        return -(-len(self.images) // self.largest)

    def drawn(self, number: int) -> Drawn:
        """The next pictures."""
        index = np.arange(number * self.largest, min((number + 1) * self.largest, len(self.images)))
        return Drawn(index, np.full(len(index), CENTRE), np.zeros((len(index), 2), dtype=bool))


def batches(
    dataset: Batches, numbers: range, *, workers: int, pin: bool = False, skipping: Skipping | None = None,
    lasting: int | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """The batches `numbers` of a dataset, in that order, made by `workers` processes (0: in this one).

    Each is a copy, in pinned memory if asked for. With `lasting` none is copied, and only so many, the last ones handed
    out, keep what is in them.

    Raises:
        ShardError: a picture that cannot be read, or one more than `skipping` allows.
    """
    turns = _Turns(dataset, numbers, workers, lasting or 1)
    with warnings.catch_warnings():  # more workers than processors are the user's choice
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Made | UserError] = DataLoader(
            turns,
            batch_size=None,
            sampler=range(len(numbers)),
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            worker_init_fn=_leave_signals_to_the_main_process,
            generator=torch.Generator(),  # else the loader takes a number out of torch's global random state
        )
    found = _handed_out(turns, iter(loader), skipping)
    atexit.register(found.close)  # else the end of this process waits for workers, which let no signal end them
    forget = partial(atexit.unregister, found.close)  # a generator may outlive what its module names
    try:
        for batch in found:
            yield batch if lasting else batch.copied(pin)
    finally:
        forget()


def _handed_out(
    turns: _Turns, made: Iterator[Made | UserError], skipping: Skipping | None
) -> Generator[Batch, None, None]:
    """The batches where they were made."""
    try:
        for position, one in enumerate(made):
            if isinstance(one, UserError):
                raise one
            if skipping is not None:
                skipping.add(one.skipped)
            yield turns.memory(position).first(one.pictures)
    finally:
        del made  # the last mention of it, which ends the workers: the traceback of an error would keep them


class _Turns(Dataset[Made | UserError]):
    """Batches made into shared memory, each place of which is used again after all the others.

    A worker may begin a batch when the loader has handed out the one that it lies a loader's prefetch behind. That one
    is still looked at, as may be some before it: `lasting` in all. So many places more than the loader prefetches are
    enough.
    """

    def __init__(self, dataset: Batches, numbers: range, workers: int, lasting: int) -> None:
        self.dataset, self.numbers = dataset, numbers
        places = min(workers * PREFETCHED + lasting, max(len(numbers), 1))
        self.places = [dataset.room(shared=workers > 0) for _ in range(places)]

    def __getitem__(self, position: int) -> Made | UserError:
        return self.dataset.make(self.numbers[position], self.memory(position))

    def memory(self, position: int) -> Batch:
        """Where the batch at this position is made."""
        return self.places[position % len(self.places)]


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
    """Each picture of `rows` once, in order, on the device: uint8 (n, 3, size, size); and the positions in `rows` of
    these n.
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
