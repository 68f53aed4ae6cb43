"""Masks and points from the maps of the shared network: a decoder that all tasks share, and a convolution a task.

The decoder is a feature pyramid (Lin et al., 2017) of 96 channels, from the coarsest map to the finest. A task's own
convolution of 3 x 3 gives a map of logits for each class of its masks, and one for each class of its points, which are
discs of the points' radius.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtrain.data.task import Dense
from mtrain.model.maps import Level
from mtrain.model.task_heads import HeadView, TaskHeads

CHANNELS = 96
GROUPS = 8
PRIOR = 0.01  # that a place is in a disc, before anything is learnt (Lin et al., "Focal loss", 2017)


class Decoder(nn.Module):
    """Maps from fine to coarse, each (N, channels, h, w) -> (N, 96, h, w) of the finest.

    Maps of tokens are all of one size: they are first brought to twice and four times it, and to half of it.
    """

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(level.channels, CHANNELS, 1) for level in levels)
        tokens = levels[0].kind == "tokens"
        self.resizers = nn.ModuleList(_resizer(2 - number if tokens else 0) for number in range(len(levels)))
        self.merges = nn.ModuleList(
            nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.GroupNorm(GROUPS, CHANNELS), nn.GELU())
            for _ in levels
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The merged map at the size of the finest."""
        merged: Tensor | None = None
        for lateral, resizer, merge, given in reversed(
            list(zip(self.laterals, self.resizers, self.merges, maps, strict=True))
        ):
            level: Tensor = resizer(lateral(given))
            if merged is not None:  # nearest: its gradient has the same bits each time, also on CUDA
                level = level + F.interpolate(merged, size=level.shape[-2:], mode="nearest")
            merged = merge(level)
        assert merged is not None
        return merged


def _resizer(doublings: int) -> nn.Module:
    """Doubles the size of a map this often; halves it for -1."""
    if doublings < 0:
        return nn.MaxPool2d(2, ceil_mode=True)
    layers = [nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2) for _ in range(doublings)]
    return nn.Sequential(*layers) if layers else nn.Identity()


class DenseHeads(TaskHeads):
    """A 3 x 3 convolution for each task, all as one layer: (N, 96, h, w) -> (N, maps of all tasks, h, w)."""

    @staticmethod
    def _layer(features: int, number: int) -> nn.Conv2d:
        return nn.Conv2d(features, number, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, 96, h, w) -> logits (N, maps of all tasks, h, w)."""
        return F.conv2d(features, self.weight, self.bias, padding=1)


def own_maps(head: HeadView, features: Tensor) -> Tensor:
    """The logits of one task: (N, 96, h, w) -> (N, maps, h, w)."""
    return F.conv2d(features, head.weight, head.bias, padding=1)


class DenseNetwork(nn.Module):
    """Decoder and convolutions for these tasks, by name, on the maps of these levels."""

    choice: Tensor
    has_class: Tensor
    has_points: Tensor
    classes: Tensor

    def __init__(self, levels: Sequence[Level], tasks: Mapping[str, Dense]) -> None:
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
        """Maps of N images, and the number of each image's task among `tasks` (N,) -> the logits of that task, first of
        the classes of masks, then of points, both as many as any task has: (N, classes + points, h, w).

        The shapes, and what is launched, do not depend on which tasks the images are of.
        """
        logits = self.heads(self.decoder(maps))
        own: Tensor = self.choice[tasks].to(logits.dtype) @ logits.flatten(2)
        return own.view(*own.shape[:2], *logits.shape[-2:])


def _kinds(of: Sequence[Dense]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    return [dense.seg for dense in of], [dense.points for dense in of]


def enlarged(logits: Tensor, size: int) -> Tensor:
    """(N, K, h, w) -> (N, K, size, size), bilinear, as products: their gradients have the same bits each time."""
    rows, columns = (_weights(side, size, logits) for side in logits.shape[-2:])
    return rows @ logits @ columns.T


def _weights(side: int, size: int, like: Tensor) -> Tensor:
    """(size, side): the share of each pixel in each enlarged one, as F.interpolate(align_corners=False) has it."""
    centres = ((torch.arange(size, dtype=torch.float64) + 0.5) * side / size - 0.5).clamp(0, side - 1)
    shares = (1 - (centres[:, None] - torch.arange(side)).abs()).clamp(min=0)
    return shares.to(like.device, like.dtype, non_blocking=True)
