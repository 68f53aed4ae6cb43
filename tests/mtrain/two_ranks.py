"""What test_distributed.py runs with torchrun: a few iterations of small networks; weights into one file per rank."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn

from mtrain.config import FitConfig
from mtrain.data.pool import open_pool
from mtrain.data.sampling import Stream
from mtrain.model.backbones import Body
from mtrain.model.batchnorm import batchnorm_per_task
from mtrain.model.batchnorm.batchnorm_adapt import adapt
from mtrain.model.batchnorm.batchnorm_sync import synchronize
from mtrain.model.network import MultiHead, SharedNetwork
from mtrain.train import checkpoint
from mtrain.train.backward import gradients
from mtrain.train.distributed import SINGLE_PROCESS, Ranks, Vote, joined
from mtrain.train.reporting.meter import Meter
from mtrain.train.trainer import Training
from tests.mtrain.dense_networks import dense_training

STEPS = 6
CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "iterations": STEPS,
    "warmup": 2,
    "batch": 5,
    "size": 16,
    "workers": 0,
    "lr": 0.02,
    "tau": 3.0,
    "warmup_lr": 0.05,
    "weight_decay": 0.01,
}


def a_training(shards: Path, ranks: Ranks = SINGLE_PROCESS, *, norm: str = "none", **changed: Any) -> Training:
    """A convolutional network in double precision; `norm` is that of its layers: none, batch or sync."""
    config = FitConfig(shards=str(shards), **SETTINGS | changed)
    torch.manual_seed(7)
    layers = [nn.Conv2d(3, 8, 3), *([] if norm == "none" else [nn.BatchNorm2d(8)]), nn.ReLU(), nn.Conv2d(8, 6, 3)]
    body = nn.Sequential(*layers, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pool = open_pool(shards)
    model = MultiHead(SharedNetwork("toy", Body(body)), {task.name: task.num_classes for task in pool.tasks}).double()
    if norm == "sync" and not ranks.alone:
        synchronize(model.shared, CPU)
    ours = Training(config, pool, model, CPU, 0, ranks)
    ours.prepare = lambda batch: Training.prepare(ours, batch).double()  # type: ignore[method-assign]
    return ours


def results(shards: Path, ranks: Ranks, **options: Any) -> dict[str, torch.Tensor]:
    """Weights, buffers, momentum, losses and validation after a few iterations."""
    ours, meter = a_training(shards, ranks, **options), Meter(["Alpha", "Beta", "Gamma"], ranks)
    if options.get("norm", "none") != "none":
        adapt(ours.model.shared, map(ours.prepare, ours.drawn(range(2), Stream.ADAPT, [range(5)])))
    if ours.config.batchnorm == "per-task":
        batchnorm_per_task.split(ours.model.shared, len(ours.tasks))
    for parts in ours.iterations(range(STEPS)):
        meter.add(ours.step(*parts), ours.counts)
        gradients = ours.model.heads.rows_of(cast(torch.Tensor, ours.model.heads.weight.grad))
        assert [bool(rows.any()) for rows in gradients.values()] == [count > 0 for count in ours.counts]
    event = meter.take(STEPS)
    found = checkpoint.training_state(ours.model, ours.optimizer)
    found["losses"] = torch.tensor([event["tasks"][task] for task in ours.tasks])
    ours.model.float()  # that is what images to validate on come in
    accuracy = ours.validate()
    assert accuracy is not None
    return found | {"accuracy": torch.tensor(list(accuracy.values()))}


def dense_results(shards: Path, ranks: Ranks, **options: Any) -> dict[str, torch.Tensor]:
    """Weights and momentum after a few iterations of a pool with masks and points."""
    ours = dense_training(shards, ranks, **options)
    for parts in ours.iterations(range(STEPS)):
        ours.step(*parts)
    return checkpoint.training_state(ours.model, ours.optimizer)


def votes(ranks: Ranks) -> torch.Tensor:
    """Whether to stop, in each of three iterations; the last rank wants to from the second on."""
    vote = Vote(ranks)
    answers = [vote(ranks.rank == ranks.size - 1 and number > 0) for number in range(3)]
    vote.count()
    return torch.tensor(answers)


SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 2},
    "batch": {"norm": "batch"},
    "sync": {"norm": "sync"},
    "per-task": {"norm": "batch", "batchnorm": "per-task"},
    "upgrad": {"gradients": "upgrad", "norm": "sync"},
    "pcgrad": {"gradients": "pcgrad", "accumulate": 2},
    "per-task-sync": {"norm": "sync", "batchnorm": "per-task"},
}


def main(shards: Path, out: Path) -> None:
    """Every scenario; a name of the file's tensors is the scenario and what it is called there."""
    gradients.MESSAGE = 1000  # several messages even for these
    with joined() as ranks:
        found = {"votes": votes(ranks)}
        for scenario, options in SCENARIOS.items():
            found |= {f"{scenario}.{name}": tensor for name, tensor in results(shards, ranks, **options).items()}
        found |= {f"dense.{name}": tensor for name, tensor in dense_results(shards.parent / "dense", ranks).items()}
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, out / f"rank-{ranks.rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
