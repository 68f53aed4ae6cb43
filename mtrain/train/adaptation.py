"""Adapt batch normalization before a training: on batches drawn for it, or as in an earlier training of this process.

The cells of a sweep that differ in their learning rates only begin with the same adaptation.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor

from mtrain.data import sampling
from mtrain.data.kept import kept
from mtrain.model.batchnorm import batchnorm_adapt
from mtrain.model.weight_files.weights import state_digest
from mtrain.train.trainer import Training

# settings on which an adaptation does not depend; all others are taken to matter
WITHOUT_EFFECT = {
    "lr",
    "tau",
    "warmup",
    "warmup_lr",
    "iterations",
    "momentum",
    "weight_decay",
    "optimizer",
    "schedule",
    "layer_decay",
    "ema",
    "label_smoothing",
    "workers",
    "resident",
    "checkpoint_every",
    "validate_every",
    "log_every",
    "log_cosines",
    "gradients",
}


def adapt(training: Training) -> int:
    """Adapt the shared network of a training; return the number of its layers."""
    if training.config.skip_corrupt or not training.ranks.alone:  # images that are skipped are counted
        return _measured(training)
    layers = batchnorm_adapt.layers_of(training.model.shared)
    found = kept("adaptation", _key(training), lambda: _adapted(training))
    with torch.no_grad():
        for layer, state in zip(layers, found, strict=True):
            for name, value in layer.state_dict().items():
                value.copy_(state[name])
    return len(layers)


def _measured(training: Training) -> int:
    config, shared = training.config, training.model.shared
    drawn = training.drawn(range(config.adapt_batches), sampling.Stream.ADAPT, [range(config.batch)])
    return batchnorm_adapt.adapt(shared, (training.prepare(batch) for batch in drawn))


def _adapted(training: Training) -> list[dict[str, Tensor]]:
    """Adapt the network; return the states of its layers."""
    _measured(training)
    layers = batchnorm_adapt.layers_of(training.model.shared)
    return [{name: value.clone() for name, value in layer.state_dict().items()} for layer in layers]


def _key(training: Training) -> str:
    """Everything on which the adaptation depends: the network as it is, the data and the settings."""
    config = training.config.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    about = json.dumps([config, training.pool.digest, str(training.device)], sort_keys=True)
    return state_digest(training.model.shared.body.state_dict(), about)
