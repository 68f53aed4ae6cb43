"""Predict masks and points from the maps of the shared network: one decoder for all tasks, one convolution per task.

The decoder is a feature pyramid (Lin et al., 2017) with 96 channels, from the coarsest map to the finest. The 3 x 3
convolution of a task outputs one map of logits for each class of its masks and one for each class of its points; points
are predicted as discs with the points' radius.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtrain.data.rows import DenseTargets
from mtrain.model.dense.maps import FeatureMap
from mtrain.model.task_heads import HeadView, TaskHeads

CHANNELS = 96
GROUPS = 8
PRIOR = 0.01  # initial probability that a position lies in a disc (Lin et al., "Focal loss", 2017)


class Decoder(nn.Module):
    """Merge maps (N, channels, h, w), ordered from fine to coarse, into one (N, 96, h, w) at the size of the finest.

    Token maps all have the same size, so they are first resized to four times, twice, once and half that size.
    """

    def __init__(self, levels: Sequence[FeatureMap]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(level.channels, CHANNELS, 1) for level in levels)
        tokens = levels[0].kind == "tokens"
        self.resizers = nn.ModuleList(_resizer(2 - number if tokens else 0) for number in range(len(levels)))
        self.merges = nn.ModuleList(
            nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.GroupNorm(GROUPS, CHANNELS), nn.GELU())
            for _ in levels
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the merged map at the size of the finest one."""
        merged: Tensor | None = None
        for lateral, resizer, merge, given in reversed(
            list(zip(self.laterals, self.resizers, self.merges, maps, strict=True))
        ):
            level: Tensor = resizer(lateral(given))
            if merged is not None:  # "nearest" has a deterministic gradient, also on CUDA
                level = level + F.interpolate(merged, size=level.shape[-2:], mode="nearest")
            merged = merge(level)
        assert merged is not None
        return merged


def _resizer(doublings: int) -> nn.Module:
    """Return a module that doubles the size of a map `doublings` times; -1 halves it."""
    if doublings < 0:
        return nn.MaxPool2d(2, ceil_mode=True)
    layers = [nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2) for _ in range(doublings)]
    return nn.Sequential(*layers) if layers else nn.Identity()


class DenseHeads(TaskHeads):
    """A 3 x 3 convolution per task, computed as one layer: (N, 96, h, w) -> (N, maps of all tasks, h, w)."""

    @staticmethod
    def _layer(features: int, number: int) -> nn.Conv2d:
        return nn.Conv2d(features, number, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, 96, h, w) -> logits (N, maps of all tasks, h, w)."""
        return F.conv2d(features, self.weight, self.bias, padding=1)


def own_maps(head: HeadView, features: Tensor) -> Tensor:
    """Return the logits of one task: (N, 96, h, w) -> (N, maps, h, w)."""
    return F.conv2d(features, head.weight, head.bias, padding=1)


class DenseNetwork(nn.Module):
    """The decoder on the maps of `levels`, and the convolutions of the tasks, by name."""

    choice: Tensor
    has_class: Tensor
    has_points: Tensor
    classes: Tensor

    def __init__(self, levels: Sequence[FeatureMap], tasks: Mapping[str, DenseTargets]) -> None:
        super().__init__()
        self.levels, self.tasks = tuple(levels), dict(tasks)
        self.decoder = Decoder(levels)
        self.heads = DenseHeads(CHANNELS, {name: dense.channels for name, dense in tasks.items()})
        of = list(tasks.values())
        self.most_classes, self.most_points = (max(len(kind) for kind in kinds) for kinds in _kinds(of))
        choice, first = torch.zeros(len(of), self.most_classes + self.most_points, len(self.heads.task_of_row)), 0
        for number, dense in enumerate(of):
            for row in range(len(dense.seg)):
                choice[number, row, first + row] = 1
            for row in range(len(dense.points)):
                choice[number, self.most_classes + row, first + len(dense.seg) + row] = 1
                with torch.no_grad():
                    self.heads.bias[first + len(dense.seg) + row] = -math.log(1 / PRIOR - 1)
            first += dense.channels
        present = choice.any(2)
        self.register_buffer("choice", choice, persistent=False)
        self.register_buffer("has_class", present[:, : self.most_classes], persistent=False)
        self.register_buffer("has_points", present[:, self.most_classes :], persistent=False)
        self.register_buffer("classes", torch.tensor([float(len(dense.seg)) for dense in of]), persistent=False)

    def forward(self, maps: Sequence[Tensor], tasks: Tensor) -> Tensor:
        """Return the logits (N, most classes + most points, h, w) of each image's own task: mask classes, then points.

        tasks: (N,), the index of each image's task. Both parts have room for the largest number that any task has.
        Shapes and launched kernels do not depend on the tasks in the batch.
        """
        logits = self.heads(self.decoder(maps))
        own: Tensor = self.choice[tasks].to(logits.dtype) @ logits.flatten(2)
        return own.view(*own.shape[:2], *logits.shape[-2:])


def _kinds(of: Sequence[DenseTargets]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    return [dense.seg for dense in of], [dense.points for dense in of]


def enlarged(logits: Tensor, size: int) -> Tensor:
    """Resize (N, K, h, w) to (N, K, size, size) bilinearly, by matrix products, whose gradients are deterministic."""
    rows, columns = (_weights(side, size, logits) for side in logits.shape[-2:])
    return rows @ logits @ columns.T


def _weights(side: int, size: int, like: Tensor) -> Tensor:
    """Return (size, side): the weight of each pixel in each output pixel, as in F.interpolate(align_corners=False).

    They are computed where they are used: a recorded iteration cannot receive them from the processor.
    """
    pixels, places = (torch.arange(count, dtype=torch.float64, device=like.device) for count in (size, side))
    centres = ((pixels + 0.5) * side / size - 0.5).clamp(0, side - 1)
    return (1 - (centres[:, None] - places).abs()).clamp(min=0).to(like.dtype)
