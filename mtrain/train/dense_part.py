"""The part of an iteration that masks and points add: their samples' maps through the decoder, and their losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtrain.config import FitConfig
from mtrain.data.batch import Batch
from mtrain.data.targets import IGNORE, turned
from mtrain.model.dense import DenseNetwork
from mtrain.model.dense_loss import dense_losses

SHARES = 4  # the decoder runs on one to four quarters of a batch: so few shapes occur


class DensePart:
    """What of a batch goes through the decoder. tasks: those of the pool, in order."""

    def __init__(self, config: FitConfig, network: DenseNetwork, tasks: Sequence[str]) -> None:
        self.config, self.network = config, network
        own = list(network.tasks)
        self.numbers = np.array([own.index(task) if task in own else -1 for task in tasks])
        self.pool = torch.tensor([tasks.index(task) for task in own])

    def losses(self, maps: Sequence[Tensor], batch: Batch) -> Tensor:
        """The loss of each task of the pool, summed over its samples: (tasks,).

        maps: of all images of the batch, one of each level. The decoder takes those of dense tasks, and others up to a
        quarter of the batch or a multiple of it: these count nothing.
        """
        device = maps[0].device
        slots, numbers, own = (part.to(device, non_blocking=True) for part in self._chosen(batch.counts.numpy()))
        masks, points, radii = self._targets(batch, slots)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = self.network([level.index_select(0, slots) for level in maps], numbers)
        losses = dense_losses(self.network, logits, numbers, masks, points, radii, scaled=self.config.scales_losses)
        of_task = own[:, None] & (numbers[:, None] == torch.arange(len(self.pool), device=device))
        found = torch.where(own, losses, 0) @ of_task.to(losses.dtype)
        whole = torch.zeros(len(self.numbers), dtype=found.dtype, device=device)
        return whole.index_copy(0, self.pool.to(device, non_blocking=True), found)

    def _chosen(self, counts: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """The images that go through the decoder, by slot; their tasks by number; and which of them are there for their
        targets: (K,) each.
        """
        numbers = np.repeat(self.numbers, counts)
        dense, rest = np.flatnonzero(numbers >= 0), np.flatnonzero(numbers < 0)
        share = -(-len(numbers) // SHARES)
        size = min(max(-(-len(dense) // share), 1) * share, len(numbers))
        slots = np.concatenate([dense, rest[: size - len(dense)]])
        own = np.arange(size) < len(dense)
        return torch.from_numpy(slots), torch.from_numpy(np.maximum(numbers[slots], 0)), torch.from_numpy(own)

    def _targets(self, batch: Batch, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Masks, points and radii on the device of `slots`, augmented as their images are; those of images that are not
        there for their targets are empty.
        """
        flips, looks = (part.to(slots.device, non_blocking=True) for part in (batch.flips, batch.looks))
        quarter = looks[:, 0].index_select(0, slots) < 0.5 if self.config.rotations else None
        kinds = ((batch.masks, IGNORE), (batch.points, -1), (batch.radii, 0))
        masks, points, radii = (
            _filled(part.to(slots.device, non_blocking=True), len(slots), empty) for part, empty in kinds
        )
        return *turned(masks, points, flips.index_select(0, slots), quarter), radii


def _filled(part: Tensor, size: int, empty: float) -> Tensor:
    """The tensor, with entries of `empty` up to this size."""
    return torch.cat([part, part.new_full((size - len(part), *part.shape[1:]), empty)])
