"""Batches from shards that are read sequentially, for pools larger than the disk: one endless stream for each task.

Task, crop and flips of a slot are those of `sampling.draw`. The image is the next one of its task's stream, which reads
the shards in a new random order each time and shuffles within a buffer. Without random access, the image of a slot
depends on the number of workers and on where a run was resumed: a resumed run continues with another shuffle, and its
weights differ from those of an uninterrupted one. Every worker and every rank reads shards of every task.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrain.backbones.card import Interpolation
from mtrain.data import sampling
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.loader import Batches, BatchReady
from mtrain.data.dense_sample import most_objects
from mtrain.data.labels import widest
from mtrain.data.streamed_samples import MOST, Sample, StreamedTask, samples
from mtrain.data.task import Task
from mtrain.errors import ShardError, UserError
from mtrain.used import mark

BUFFERED = 128 << 20  # bytes of samples that a process buffers for shuffling, over all tasks


class StreamBatches(Batches):
    """Batch i has the tasks that iteration i draws. Each process that makes batches has its own streams.

    dense: whether batches have masks and points.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        size: int,
        seed: int,
        slots: range,
        stream: sampling.Stream,
        *,
        skip: bool = False,
        mixture: sampling.Mixture = sampling.UNIFORM,
        looks: bool = False,
        how: Interpolation = "bilinear",
        dense: bool = False,
    ) -> None:
        super().__init__(size, len(slots), len(tasks))
        mark("check_images")
        self.how = how
        self.seed, self.slots, self.stream, self.skip, self.mixture = seed, slots, stream, skip, mixture
        self.looks = looks
        self.sources = [StreamedTask.of(task, dense=dense) for task in tasks]
        self.sizes = [source.images for source in self.sources]
        self.objects = most_objects((task.dense, task.rows["train"]) for task in tasks) if dense else None
        self.width = widest(tasks)
        self._streams: list[Iterator[Sample]] | None = None

    def room(self, *, shared: bool = False) -> Batch:
        """Memory for the largest batch."""
        return Batch.room(self.largest, self.size, self.tasks, shared=shared, objects=self.objects, width=self.width)

    def make(self, number: int, into: Batch) -> BatchReady | UserError:
        """Write batch `number` to `into`. Errors are returned, not raised."""
        drawn = sampling.draw(self.sizes, self.seed, number, self.slots, self.stream, self.mixture)
        order = np.argsort(drawn.task, kind="stable")
        skipped: list[UserError] = []
        dense = 0
        try:
            streams = self._opened(number)
            room, used = into.pixels.numpy(), 0
            for slot, task, place in zip(range(len(order)), drawn.task[order], drawn.place[order], strict=True):
                sample, side = self._put(streams[task], int(place), room[used:], into, dense, skipped)
                into.labels[slot], into.sides[slot] = sample.label, side
                _put_targets(sample, into, slot)
                used += 3 * side * side
                dense += sample.task.dense is not None
        except UserError as error:
            return error
        into.flips[: len(order)] = torch.from_numpy(drawn.flips[order])
        if self.looks:
            into.looks[: len(order)] = torch.from_numpy(sampling.looks(self.seed, number, order + self.slots.start))
        into.counts[:] = torch.from_numpy(np.bincount(drawn.task, minlength=len(into.counts)))
        return BatchReady(len(order), tuple(skipped), dense)

    def _put(
        self,
        samples: Iterator[Sample],
        place: int,
        room: npt.NDArray[np.uint8],
        into: Batch,
        entry: int,
        skipped: list[UserError],
    ) -> tuple[Sample, int]:
        """Write the next readable image to `room`, and its mask and points to an entry of the batch. Returns the sample
        and the side of its square.
        """
        for sample in itertools.islice(samples, 2 * MOST):
            try:
                return sample, sample.put(place, self.size, room, self.how, into, entry)
            except ShardError as error:
                if not self.skip:
                    raise
                skipped.append(error)
        raise skipped[-1]

    def _opened(self, number: int) -> list[Iterator[Sample]]:
        """The streams of this process, seeded with the first batch that it makes, which is unique to the process."""
        if self._streams is None:
            share = BUFFERED // len(self.sources)
            seed = f"{self.seed} {number} {self.slots.start} {self.stream}"
            self._streams = [samples(source, source.buffer(share), f"{seed} {source.name}") for source in self.sources]
        return self._streams

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": None}


def _put_targets(sample: Sample, into: Batch, slot: int) -> None:
    into.targets[slot] = 0
    if sample.targets is not None:
        into.targets[slot, : len(sample.targets)] = torch.from_numpy(sample.targets)
