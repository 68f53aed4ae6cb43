"""Memory for the inputs of a recorded iteration: allocated once, and filled without waiting for the device.

What the processor computes for an iteration is small. It is written to page-locked memory and travels in one copy:
several copies from ordinary memory would wait until the device has finished the previous iteration.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from mtrain.backbones.card import Interpolation
from mtrain.data import sampling
from mtrain.data.batches.augment import LARGEST, mirrored_at_once, resized_at_once, room_for_squares
from mtrain.data.batches.batch import Batch
from mtrain.train.dense_part import DenseInputs, DensePart

SLOTS = 4  # iterations whose small inputs may be on their way at once


class Computed(NamedTuple):
    """What the processor computes for N images: views of one block of bytes, the widest types first."""

    scales: Tensor  # float64 (tasks,): from `loss.head_scales`
    sides: Tensor  # int64 (N,)
    tasks: Tensor  # int64 (N,): the number of each image's task
    dense_slots: Tensor  # int64 (N,): `DenseInputs.slots`, then anything
    dense_tasks: Tensor  # int64 (N,): `DenseInputs.tasks`, then anything
    looks: Tensor  # float32 (N, 16)

    @staticmethod
    def bytes(images: int, tasks: int) -> int:
        """The size of the block."""
        return 8 * tasks + (4 * 8 + 4 * sampling.LOOKS_A_SLOT) * images

    @staticmethod
    def of(block: Tensor, images: int, tasks: int) -> Computed:
        """The views of a block, uint8 (bytes,)."""
        sizes = [8 * tasks, *[8 * images] * 4, 4 * sampling.LOOKS_A_SLOT * images]
        scales, *whole, looks = torch.split(block, sizes)
        sides, numbers, slots, dense = (part.view(torch.int64) for part in whole)
        of_images = looks.view(torch.float32).view(images, sampling.LOOKS_A_SLOT)
        return Computed(scales.view(torch.float64), sides, numbers, slots, dense, of_images)


class Known(NamedTuple):
    """What an iteration knows of its N images, on the device; see `Batch`."""

    labels: Tensor
    tasks: Tensor  # int64 (N,): the number of each image's task
    targets: Tensor
    flips: Tensor
    looks: Tensor
    dense: DenseInputs | None  # of a training on masks and points


class Inputs:
    """What an iteration reads, on the device: a batch of N images (see `Batch`) and what the processor knows of it.

    width: of `Batch.targets`. part: of a training on masks and points. objects: maximum number of points of an image.

    All iterations of one `form` have the same shapes.
    """

    def __init__(
        self,
        images: int,
        size: int,
        tasks: int,
        device: torch.device,
        *,
        width: int = 0,
        part: DensePart | None = None,
        objects: int = 0,
    ) -> None:
        self.pixels = torch.zeros(room_for_squares(images, size), dtype=torch.uint8, device=device)  # the end: anything
        self.labels = torch.zeros(images, dtype=torch.int64, device=device)
        self.targets = torch.zeros((images, width), dtype=torch.float32, device=device)
        self.flips = torch.zeros((images, 2), dtype=torch.bool, device=device)
        self._block = torch.zeros(Computed.bytes(images, tasks), dtype=torch.uint8, device=device)
        found = Computed.of(self._block, images, tasks)
        self.scales, self.sides, self.tasks, self.looks = found.scales, found.sides, found.tasks, found.looks
        self._outbox = _Outbox(self._block)
        self._part = part
        if part is not None:
            room = DenseInputs.room(images, size, objects, device)
            self._dense = room._replace(slots=found.dense_slots, tasks=found.dense_tasks)
        self.form = 0  # the number of images that go through the decoder

    @property
    def known(self) -> Known:
        """All but the images."""
        return Known(self.labels, self.tasks, self.targets, self.flips, self.looks, self.dense)

    @property
    def dense(self) -> DenseInputs | None:
        """What the decoder reads; None if there is none."""
        return None if self._part is None else self._dense.first(self.form)

    def fill(self, batch: Batch, scales: Tensor) -> None:
        """Copy a batch and the scales of its heads, from wherever they are, without waiting for the device."""
        self.pixels[: len(batch.pixels)].copy_(batch.pixels, non_blocking=True)
        self.labels.copy_(batch.labels, non_blocking=True)
        self.targets.copy_(batch.targets, non_blocking=True)
        self.flips.copy_(batch.flips, non_blocking=True)
        slots = numbers = torch.zeros(0, dtype=torch.int64)
        if self._part is not None:
            slots, numbers = self._part.chosen(batch.counts.tolist())
            self._dense.fill_targets(batch)
        self.form = len(slots)
        with self._outbox.next() as block:
            room = Computed.of(block, len(self.labels), len(self.scales))
            room.scales.copy_(scales)
            room.sides.copy_(batch.sides)
            room.tasks.copy_(torch.repeat_interleave(batch.counts))
            room.dense_slots[: self.form].copy_(slots)
            room.dense_tasks[: self.form].copy_(numbers)
            room.looks.copy_(batch.looks)

    def images(self, size: int, how: Interpolation) -> Tensor:
        """The images, resized and flipped: uint8 (N, 3, size, size), channels last."""
        images = resized_at_once(self.pixels, self.sides, size, LARGEST * size, how)
        return mirrored_at_once(images, self.flips)


class _Outbox:
    """Blocks that are copied to `target` in turn. Each is written again only after its copy is complete."""

    def __init__(self, target: Tensor) -> None:
        self.target, self.cuda = target, target.device.type == "cuda"
        self.blocks = [
            torch.zeros(len(target), dtype=torch.uint8, pin_memory=self.cuda) for _ in range(SLOTS if self.cuda else 1)
        ]
        self.turns = itertools.cycle(range(len(self.blocks)))
        self.sent: dict[int, torch.cuda.Event] = {}

    @contextmanager
    def next(self) -> Iterator[Tensor]:
        """The next block, to be written to; afterwards it is copied."""
        number = next(self.turns)
        if number in self.sent:
            self.sent[number].synchronize()
        yield self.blocks[number]
        self.target.copy_(self.blocks[number], non_blocking=True)
        if self.cuda:
            self.sent[number] = torch.cuda.current_stream(self.target.device).record_event()
