"""A batch as it travels from workers to the device: squares in one block of memory, with labels and augmentation."""

from __future__ import annotations

import math
import mmap
from typing import NamedTuple

import torch
from torch import Tensor

from mtrain.backbones.card import Interpolation
from mtrain.data import sampling
from mtrain.data.batches.augment import resized, room_for_squares
from mtrain.data.batches.worker_start import start_method

NO_CHANGE = 0.5


class Batch(NamedTuple):
    """`counts[t]` images of task t, one task after the other. All tensors are created on the CPU."""

    pixels: Tensor  # uint8 (bytes,): the square of each image, (side, side, 3), one after the other
    sides: Tensor  # int64 (N,)
    labels: Tensor  # int64 (N,)
    flips: Tensor  # bool (N, 2): left-right, up-down
    counts: Tensor  # int64 (tasks,)
    looks: Tensor  # float32 (N, 16): further augmentation, see sampling.looks; 0.5 means no change
    # of the D images of tasks with masks or points, in the order of the images; D is 0 unless these are read
    masks: Tensor  # uint8 (D, size, size): index of the class of each pixel, 255 where it is not annotated
    points: Tensor  # float32 (D, P, 3): x and y in pixels of the resized square, and class; class -1 means no point
    radii: Tensor  # float32 (D,): radius of the points in pixels of the resized square, 0 in tasks without points
    # of images that do not have one class, see mtrain.data.labels; (N, 0) if all tasks have classes
    targets: Tensor  # float32 (N, W): a value for each output of the image's task, then 0

    @staticmethod
    def room(
        images: int, size: int, tasks: int, *, shared: bool = False, objects: int | None = None, width: int = 0
    ) -> Batch:
        """An empty batch for up to this many images; with `shared`, in memory shared with other processes.

        objects: maximum number of points of an image; None: neither masks nor points are read. width: of `targets`.
        """
        dense = 0 if objects is None else images
        empty = _shared if shared else torch.empty
        return Batch(
            empty((room_for_squares(images, size),), dtype=torch.uint8),
            empty((images,), dtype=torch.int64),
            empty((images,), dtype=torch.int64),
            empty((images, 2), dtype=torch.bool),
            empty((tasks,), dtype=torch.int64),
            empty((images, sampling.LOOKS_A_SLOT), dtype=torch.float32).fill_(NO_CHANGE),
            empty((dense, size, size), dtype=torch.uint8),
            empty((dense, objects or 0, 3), dtype=torch.float32),
            empty((dense,), dtype=torch.float32),
            empty((images, width), dtype=torch.float32),
        )

    def first(self, images: int, dense: int = 0) -> Batch:
        """The first images of the batch, `dense` of them with masks or points, in the same memory."""
        sides, labels, flips, looks = (part[:images] for part in (self.sides, self.labels, self.flips, self.looks))
        masks, points, radii = (part[:dense] for part in (self.masks, self.points, self.radii))
        pixels = self.pixels[: 3 * int((sides * sides).sum())]
        return Batch(pixels, sides, labels, flips, self.counts, looks, masks, points, radii, self.targets[:images])

    def images(self, size: int, how: Interpolation = "bilinear") -> Tensor:
        """The images, resized and flipped: uint8 (N, 3, size, size), channels last, on the device of the pixels."""
        return resized(self.pixels, self.sides, size, self.flips, how)

    def to(self, device: torch.device) -> Batch:
        """The batch with what the device reads on it: pixels, labels, targets and flips. The others stay on the CPU."""
        parts = (self.pixels, self.labels, self.flips, self.targets)
        pixels, labels, flips, targets = (part.to(device, non_blocking=True) for part in parts)
        return self._replace(pixels=pixels, labels=labels, flips=flips, targets=targets)

    def copied(self, pin: bool = False, *, pixels: bool = True) -> Batch:
        """A copy of the batch, in pinned memory if `pin`; without `pixels`, these stay where they are."""
        copies = (torch.empty_like(tensor, pin_memory=pin).copy_(tensor) for tensor in self[not pixels :])
        return Batch(*copies) if pixels else Batch(self.pixels, *copies)


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in shared memory. For forked workers it is anonymous, because /dev/shm is small in containers."""
    if start_method() != "fork":
        return torch.empty(shape, dtype=dtype).share_memory_()  # type: ignore[no-untyped-call,no-any-return]
    size = math.prod(shape) * dtype.itemsize
    return torch.frombuffer(mmap.mmap(-1, max(size, 1)), dtype=torch.uint8)[:size].view(dtype).view(shape)
