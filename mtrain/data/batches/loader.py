"""Load batches of uint8 images, by number, in worker processes.

A worker makes whole batches: it decodes each image from its shard and writes its square to memory that it shares with
the main process. Resizing and all later steps run on the device. The memory is allocated once and reused, because new
pages for each batch would cost a third of the time of decoding; only the number of images is sent between processes.
The images of a batch are in the order of their tasks.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from dpconvert.runtime.without_main import CONTEXTS
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.prefetch import ON_THEIR_WAY, on_device, page_locked
from mtrain.data.batches.worker_start import start_method
from mtrain.errors import UserError
from mtrain.used import mark

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


@dataclass
class Waiting:
    """Seconds for which this process has waited until batches were made, and nothing else."""

    seconds: float = 0.0


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
        batch = self.make(number, room)
        return batch if isinstance(batch, UserError) else room.first(batch.images, batch.dense)


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


def batches(
    dataset: Batches,
    numbers: range,
    *,
    workers: int,
    pin: bool = False,
    skipping: Skipping | None = None,
    lasting: int | None = None,
    waiting: Waiting | None = None,
) -> Iterator[Batch]:
    """The batches `numbers` of a dataset, in that order, made by `workers` processes (0: in this one).

    Each batch is a copy. With `lasting`, none is copied: only the last `lasting` ones yielded are valid, since their
    memory is reused. With `pin`, a CUDA device can copy from them without the processor: the pixels of only the last
    `ON_THEIR_WAY` are valid, and `batches_on` waits until the device has copied them; the other tensors are copies in
    pinned memory.

    Raises:
        ShardError: an image cannot be read, or more than `skipping` allows.
    """
    mark("workers")
    slots = _ReusedSlots(dataset, numbers, workers, ON_THEIR_WAY if pin else lasting or 1)
    method = start_method()
    context = CONTEXTS.get(method, multiprocessing.get_context(method)) if workers else None
    with warnings.catch_warnings():  # more workers than processors are the user's choice
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[BatchReady | UserError] = DataLoader(
            slots,
            batch_size=None,
            sampler=range(len(numbers)),
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            worker_init_fn=_leave_signals_to_the_main_process,
            multiprocessing_context=context,
            generator=torch.Generator(),  # else the loader draws from torch's global random state
        )
        ready = iter(loader)
    loaded = _uncopied(slots, ready, skipping, waiting or Waiting())
    del ready  # the batches hold the only reference, whose end ends the workers
    atexit.register(loaded.close)  # else this process waits at its end for the workers, which ignore signals
    unregister = partial(atexit.unregister, loaded.close)  # a generator may outlive the names of its module
    pixels = [slot.pixels for slot in slots.slots]
    try:
        with page_locked(pixels) if pin else nullcontext(False) as locked:  # after the workers have started
            for batch in loaded:
                yield batch if lasting else batch.copied(pin, pixels=not locked)
    finally:
        unregister()


def batches_on(
    device: torch.device,
    dataset: Batches,
    numbers: range,
    *,
    workers: int,
    lasting: int = 1,
    skipping: Skipping | None = None,
    send: Callable[[Batch, int], Batch] | None = None,
    waiting: Waiting | None = None,
) -> Iterator[Batch]:
    """The batches `numbers` of a dataset, in that order, with what `Batch.to` sends on `device`.

    On CUDA, the next batch is on its way while one is used, and the memory that it was made in is reused only after the
    copy from it is complete. On the CPU, only the last `lasting` ones yielded are valid.

    workers: processes that make them, 0: this one, and more only if there are as many batches. send: as in `on_device`.

    Raises:
        ShardError: an image cannot be read, or more than `skipping` allows.
    """
    pin, workers = device.type == "cuda", min(workers, len(numbers))
    lasts = None if pin else lasting
    loaded = batches(dataset, numbers, workers=workers, pin=pin, skipping=skipping, lasting=lasts, waiting=waiting)
    return on_device(loaded, device, send)


def _uncopied(
    slots: _ReusedSlots, ready: Iterator[BatchReady | UserError], skipping: Skipping | None, waiting: Waiting
) -> Generator[Batch, None, None]:
    """The batches, in the memory that they were made in."""
    begun = time.monotonic()
    try:
        for position, one in enumerate(ready):
            waiting.seconds += time.monotonic() - begun
            if isinstance(one, UserError):
                raise one
            if skipping is not None:
                skipping.add(one.skipped)
            yield slots.memory(position).first(one.images, one.dense)
            begun = time.monotonic()
    finally:
        del ready  # drops the last reference, which ends the workers: the traceback of an error would keep it


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


def _leave_signals_to_the_main_process(_worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
