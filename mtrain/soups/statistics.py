"""Batch-normalization statistics of a combined network: averages of statistics are not those of its own activations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.data import sampling
from mtrain.data.pool import Pool, find_task, open_pool, pool_of, training_on
from mtrain.data.task import fetch_shards
from mtrain.errors import RunError
from mtrain.model.batchnorm import batchnorm_adapt
from mtrain.model.devices import find_device
from mtrain.model.network import MultiHead, SharedNetwork
from mtrain.runs.run_folder import Run
from mtrain.train.trainer import Training

BATCHES = 20  # as many as adapt a network before its training
# settings that leave the batches as they are and prepare parts that are not needed here
PLAIN = {
    "tune": "all",
    "layer_decay": None,
    "features": "online",
    "batchnorm": "adapted",
    "dense": False,
    "compile": False,
    "checkpointing": False,
    "accumulate": 1,
    "ema": 0.0,
}


def differ(networks: Sequence[SharedNetwork]) -> bool:
    """Whether the statistics of batch normalization differ between networks; they do not where they were frozen."""
    first, *others = [batchnorm_adapt.layers_of(network) for network in networks]
    return any(
        not torch.equal(values, same)
        for layers in others
        for layer, other in zip(first, layers, strict=True)
        for values, same in zip(layer.buffers(), other.buffers(), strict=True)
        if values.is_floating_point()
    )


def measure(
    network: SharedNetwork, runs: Sequence[Run], shards: Path | str | None, device: str, workers: int, report: Reporter
) -> tuple[int, int]:
    """Measure the statistics of the network on training images of the runs; return how many layers and images.

    The images are drawn as those that adapt a network before its training, by the settings of the first run.

    Raises:
        RunError: the shards are not those that a run was trained on.
    """
    config = runs[0].config()
    pool = _pool(runs, shards or config.shards)
    same = {task.name for task in pool.tasks} == set(runs[0].about()["pool"])
    mixing: dict[str, Any] = {} if same else {"task_weights": {}, "temperature": None}
    config = FitConfig.model_validate(config.model_dump() | PLAIN | mixing | {"device": device, "workers": workers})
    batches = config.adapt_batches or BATCHES
    model = MultiHead(network, {task.name: task.outputs for task in pool.tasks})
    model = model.to(find_device(device)).to(memory_format=torch.channels_last)
    fetch_shards(pool.tasks, sorted({split for task in pool.tasks for split in task.trains}), report)
    training = Training(config, pool, model, find_device(device))
    drawn = training.drawn(range(batches), sampling.Stream.ADAPT, [range(config.batch)])
    layers = batchnorm_adapt.measure(network, (training.prepare(batch) for batch in drawn))
    network.cpu()
    return layers, batches * config.batch


def _pool(runs: Sequence[Run], shards: Path | str) -> Pool:
    """The tasks that the runs were trained on, each with the sets that it was trained on."""
    whole, tasks = open_pool(shards), {}
    for run in runs:
        digests = run.about()["pool"]
        for name, sets in run.trained_on().items():
            if name not in digests:
                continue
            task = find_task(whole, name)
            if task.card.digest != digests[name]:
                raise RunError(f"the shards of {name} are not those that {run.name} was trained on", where=task.folder)
            tasks[name] = training_on(pool_of([task]), sets).tasks[0]
    return pool_of(tasks.values())
