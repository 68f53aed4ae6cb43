"""The part of an iteration that masks and points add: their samples' maps through the decoder, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtrain.config import FitConfig
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.sending import without_waiting
from mtrain.data.dense_sample import IGNORE
from mtrain.data.targets import turned
from mtrain.model.dense.dense_loss import dense_losses
from mtrain.model.dense.dense_network import DenseNetwork
from mtrain.train.compilation import Decode

SHARES = 4  # the decoder runs on one to four quarters of a batch: so few shapes occur
NO_TARGETS = -1  # in the place of a task: an image that only fills a quarter


class DenseInputs(NamedTuple):
    """What the decoder reads of a batch: K of its images, first the D with masks or points, then others that count
    nothing.
    """

    slots: Tensor  # int64 (K,): place of each image in the batch
    tasks: Tensor  # int64 (K,): number of its task among those with masks or points, or NO_TARGETS
    masks: Tensor  # uint8 (K, size, size), as in `Batch`; IGNORE in images without
    points: Tensor  # float32 (K, P, 3), as in `Batch`; class -1 in images without
    radii: Tensor  # float32 (K,), as in `Batch`; 0 in images without

    @staticmethod
    def room(images: int, size: int, objects: int, device: torch.device) -> DenseInputs:
        """Memory for up to this many images. objects: maximum number of points of an image."""
        return DenseInputs(
            torch.zeros(images, dtype=torch.int64, device=device),
            torch.full((images,), NO_TARGETS, device=device),
            torch.full((images, size, size), IGNORE, dtype=torch.uint8, device=device),
            torch.full((images, objects, 3), -1.0, device=device),
            torch.zeros(images, device=device),
        )

    def first(self, images: int) -> DenseInputs:
        """The first images, in the same memory."""
        return DenseInputs(*(part[:images] for part in self))

    def fill_targets(self, batch: Batch) -> None:
        """Copy masks, points and radii, from wherever they are, without waiting for the device; empty the others."""
        empty = (IGNORE, -1, 0)
        for room, values, nothing in zip(self[2:], (batch.masks, batch.points, batch.radii), empty, strict=True):
            room[: len(values)].copy_(values, non_blocking=True)
            room[len(values) :].fill_(nothing)


def decoded_images(images: int) -> list[int]:
    """The numbers of images of a batch of `images` that may go through the decoder, in ascending order."""
    share = -(-images // SHARES)
    return sorted({min(number * share, images) for number in range(1, SHARES + 1)})


class DensePart:
    """What of a batch goes through the decoder. tasks: those of the pool, in order."""

    def __init__(self, config: FitConfig, network: DenseNetwork, tasks: Sequence[str]) -> None:
        self.config, self.network = config, network
        own = list(network.tasks)
        self.numbers = np.array([own.index(task) if task in own else NO_TARGETS for task in tasks])
        self.pool = torch.tensor([tasks.index(task) for task in own], device=network.choice.device)

    def chosen(self, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The images that go through the decoder and their tasks: `DenseInputs.slots` and `tasks`, on the CPU.

        counts: images of each task in the batch. K is the number of images with masks or points, rounded up to a
        quarter of the batch or a multiple of it.
        """
        numbers = np.repeat(self.numbers, counts)
        dense, rest = np.flatnonzero(numbers >= 0), np.flatnonzero(numbers < 0)
        size = next(size for size in decoded_images(len(numbers)) if size >= len(dense))
        slots = np.concatenate([dense, rest[: size - len(dense)]])
        return torch.from_numpy(slots), torch.from_numpy(numbers[slots])

    def inputs(self, batch: Batch) -> DenseInputs:
        """What the decoder reads of this batch, on its device."""
        slots, tasks = self.chosen(batch.counts.tolist())
        size, objects, device = batch.masks.shape[1], batch.points.shape[1], self.pool.device
        found = DenseInputs.room(len(slots), size, objects, device)
        found.fill_targets(batch)
        slots, tasks = (without_waiting(part, device) for part in (slots, tasks))
        return found._replace(slots=slots, tasks=tasks)

    def losses(
        self, decode: Decode, maps: Sequence[Tensor], inputs: DenseInputs, flips: Tensor, looks: Tensor
    ) -> Tensor:
        """The loss of each task of the pool, summed over its samples: (tasks,).

        decode: the network of masks and points, or its compiled form. maps: of all images of the batch, one of each
        level. flips, looks: of all images, as in `Batch`, on the device.
        No shape depends on anything but the number of images in `inputs`.
        """
        device, slots, own = maps[0].device, inputs.slots, inputs.tasks >= 0
        numbers = inputs.tasks.clamp(min=0)
        quarter = looks[:, 0].index_select(0, slots) < 0.5 if self.config.rotations else None
        masks, points = turned(inputs.masks, inputs.points, flips.index_select(0, slots), quarter)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = decode([level.index_select(0, slots) for level in maps], numbers)
        losses = dense_losses(
            self.network, logits, numbers, masks, points, inputs.radii, scaled=self.config.scales_losses
        )
        of_task = own[:, None] & (numbers[:, None] == torch.arange(len(self.pool), device=device))
        found = torch.where(own, losses, 0) @ of_task.to(losses.dtype)
        whole = torch.zeros(len(self.numbers), dtype=found.dtype, device=device)
        return whole.index_copy(0, self.pool, found)
