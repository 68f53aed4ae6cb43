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
from mtrain.data.augment import LARGEST, mirrored_at_once, resized_at_once, room_for_squares
from mtrain.data.batch import Batch

SLOTS = 4  # iterations whose small inputs may be on their way at once


class Computed(NamedTuple):
    """What the processor computes for N images: views of one block of bytes, the widest types first."""

    scales: Tensor  # float64 (tasks,): from `loss.head_scales`
    sides: Tensor  # int64 (N,)
    tasks: Tensor  # int64 (N,): the number of each image's task
    looks: Tensor  # float32 (N, 16)

    @staticmethod
    def bytes(images: int, tasks: int) -> int:
        """The size of the block."""
        return 8 * tasks + (8 + 8 + 4 * sampling.LOOKS_A_SLOT) * images

    @staticmethod
    def of(block: Tensor, images: int, tasks: int) -> Computed:
        """The views of a block, uint8 (bytes,)."""
        sizes = [8 * tasks, 8 * images, 8 * images, 4 * sampling.LOOKS_A_SLOT * images]
        scales, sides, numbers, looks = torch.split(block, sizes)
        return Computed(
            scales.view(torch.float64),
            sides.view(torch.int64),
            numbers.view(torch.int64),
            looks.view(torch.float32).view(images, sampling.LOOKS_A_SLOT),
        )


class Inputs:
    """What an iteration reads, on the device: a batch of N images (see `Batch`) and what the processor knows of it."""

    def __init__(self, images: int, size: int, tasks: int, device: torch.device, width: int = 0) -> None:
        self.pixels = torch.zeros(room_for_squares(images, size), dtype=torch.uint8, device=device)  # the end: anything
        self.labels = torch.zeros(images, dtype=torch.int64, device=device)
        self.targets = torch.zeros((images, width), dtype=torch.float32, device=device)
        self.flips = torch.zeros((images, 2), dtype=torch.bool, device=device)
        self._block = torch.zeros(Computed.bytes(images, tasks), dtype=torch.uint8, device=device)
        self.scales, self.sides, self.tasks, self.looks = Computed.of(self._block, images, tasks)
        self._outbox = _Outbox(self._block)

    def fill(self, batch: Batch, scales: Tensor) -> None:
        """Copy a batch and the scales of its heads, from wherever they are, without waiting for the device."""
        self.pixels[: len(batch.pixels)].copy_(batch.pixels, non_blocking=True)
        self.labels.copy_(batch.labels, non_blocking=True)
        self.targets.copy_(batch.targets, non_blocking=True)
        self.flips.copy_(batch.flips, non_blocking=True)
        tasks = torch.repeat_interleave(batch.counts)
        with self._outbox.next() as block:
            rooms = Computed.of(block, len(self.labels), len(self.scales))
            for room, values in zip(rooms, (scales, batch.sides, tasks, batch.looks), strict=True):
                room.copy_(values)

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
