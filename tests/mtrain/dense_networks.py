"""A small network with maps of strides 2 and 4, in double precision, and its training on masks and points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtrain.config import FitConfig
from mtrain.data.pool import open_pool
from mtrain.model.backbones import Body
from mtrain.model.network import MultiHead, SharedNetwork
from mtrain.train.distributed import SINGLE_PROCESS, Ranks
from mtrain.train.trainer import Training

SETTINGS: dict[str, Any] = {
    "iterations": 6,
    "warmup": 2,
    "batch": 8,
    "size": 16,
    "workers": 0,
    "lr": 0.01,
    "tau": 2.0,
    "warmup_lr": 0.02,
    "weight_decay": 0.01,
    "dense": True,
    "loss_scale": "none",
    "device": "cpu",
}


def body() -> nn.Module:
    """(N, 3, S, S) -> (N, 6)."""
    first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Tanh())
    second = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Tanh())
    return nn.Sequential(first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def dense_training(
    shards: Path, ranks: Ranks = SINGLE_PROCESS, *, precision: torch.dtype = torch.float64, **changed: Any
) -> Training:
    """A training at its start."""
    config = FitConfig(shards=str(shards), **SETTINGS | changed)
    torch.manual_seed(7)
    pool = open_pool(shards)
    dense = {task.name: task.dense for task in pool.tasks if task.dense} if config.dense else {}
    classes = {task.name: task.num_classes for task in pool.tasks}
    model = MultiHead(SharedNetwork("toy", Body(body())), classes, dense, config.size).to(precision)
    ours = Training(config, pool, model, torch.device("cpu"), 0, ranks)
    ours.prepare = lambda batch: Training.prepare(ours, batch).to(precision)  # type: ignore[method-assign]
    return ours


def trained(shards: Path, steps: int = 6, **changed: Any) -> Training:
    """A training after this many iterations."""
    ours = dense_training(shards, **changed)
    for parts in ours.iterations(range(steps)):
        ours.step(*parts)
    return ours
