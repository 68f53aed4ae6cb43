"""A batch on its way from workers to the device: squares in one piece of memory, and what goes with them."""

from __future__ import annotations

import math
import mmap
import multiprocessing
from typing import NamedTuple

import torch
from torch import Tensor

from mtrain.backbones.card import Interpolation
from mtrain.data import sampling
from mtrain.data.augment import resized, room_for_squares

NO_CHANGE = 0.5


class Batch(NamedTuple):
    """`counts[t]` pictures of task t, one task after the other; all tensors are made on the CPU."""

    pixels: Tensor  # uint8 (bytes,): the square of each picture, (side, side, 3), one after the other
    sides: Tensor  # int64 (N,)
    labels: Tensor  # int64 (N,)
    flips: Tensor  # bool (N, 2): left-right, up-down
    counts: Tensor  # int64 (tasks,)
    looks: Tensor  # float32 (N, 16): what else is to be changed, see sampling.looks; 0.5 where nothing was drawn

    @staticmethod
    def room(pictures: int, size: int, tasks: int, *, shared: bool = False) -> Batch:
        """A batch that nothing has been put into yet; with `shared`, in memory that other processes see."""
        empty = _shared if shared else torch.empty
        return Batch(
            empty((room_for_squares(pictures, size),), dtype=torch.uint8),
            empty((pictures,), dtype=torch.int64),
            empty((pictures,), dtype=torch.int64),
            empty((pictures, 2), dtype=torch.bool),
            empty((tasks,), dtype=torch.int64),
            empty((pictures, sampling.LOOKS_A_SLOT), dtype=torch.float32).fill_(NO_CHANGE),
        )

    def first(self, pictures: int) -> Batch:
        """The same memory for fewer pictures."""
        sides, labels, flips, looks = (part[:pictures] for part in (self.sides, self.labels, self.flips, self.looks))
        return Batch(self.pixels[: 3 * int((sides * sides).sum())], sides, labels, flips, self.counts, looks)

    def images(self, size: int, how: Interpolation = "bilinear") -> Tensor:
        """The pictures, resized and flipped: uint8 (N, 3, size, size), channels last, where the pixels are."""
        return resized(self.pixels, self.sides, size, self.flips, how)

    def to(self, device: torch.device) -> Batch:
        """With pixels, labels and flips on the device; what the CPU needs to know stays there."""
        pixels, labels, flips = (part.to(device, non_blocking=True) for part in (self.pixels, self.labels, self.flips))
        return self._replace(pixels=pixels, labels=labels, flips=flips)

    def copied(self, pin: bool = False) -> Batch:
        """In memory of its own; with `pin` from where a GPU fetches it by itself."""
        return Batch(*(torch.empty_like(tensor, pin_memory=pin).copy_(tensor) for tensor in self))


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Room that forked workers see has no name: what has one lies in /dev/shm, which is small in containers."""
    if multiprocessing.get_start_method() != "fork":
        return torch.empty(shape, dtype=dtype).share_memory_()  # type: ignore[no-untyped-call,no-any-return]
    size = math.prod(shape) * dtype.itemsize
    return torch.frombuffer(mmap.mmap(-1, max(size, 1)), dtype=torch.uint8)[:size].view(dtype).view(shape)
