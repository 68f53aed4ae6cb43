"""Batch-normalization adaptation before training (the paper's supplement B).

Each layer's statistics are replaced by those of the pool, and its weight and bias are adjusted so that its output in
inference stays the same. The first training steps then see no sudden shift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtrain.model.batchnorm.batchnorm_per_task import TaskBatchNorm
from mtrain.model.batchnorm.batchnorm_sync import SYNCHRONIZED


def statistics_of_a_part(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances that are computed from the images of this rank only."""
    training = [module for module in network.modules() if module.training]
    layers = [layer for layer in training if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    buffers = [(layer.running_mean, layer.running_var) for layer in layers if not isinstance(layer, SYNCHRONIZED)]
    split = [module for module in training if isinstance(module, TaskBatchNorm)]
    of_tasks = [tuple(one.buffers(recurse=False)) for one in split if not isinstance(one.layer, SYNCHRONIZED)]
    return [values for several in (*buffers, *of_tasks) for values in several if values is not None]


class Moments:
    """Running mean and population variance per channel, combined over batches in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.spread = torch.zeros(())

    def add(self, values: Tensor) -> None:
        channels = values.detach().double().transpose(0, 1).flatten(1)
        count, mean = channels.shape[1], channels.mean(1)
        spread = (channels - mean[:, None]).square().sum(1)
        if self.count == 0:
            self.mean, self.spread = torch.zeros_like(mean), torch.zeros_like(spread)
        whole, shift = self.count + count, mean - self.mean
        self.spread = self.spread + spread + shift.square() * self.count * count / whole
        self.mean = self.mean + shift * count / whole
        self.count = whole

    @property
    def variance(self) -> Tensor:
        return self.spread / self.count


def layers_of(network: nn.Module) -> list[_BatchNorm]:
    """Return the batch-normalization layers whose statistics can be adapted."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.affine]


@torch.no_grad()
def adapt(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Adapt all batch-normalization layers to normalized batches (N, 3, H, W); return the number of layers.

    All layers are measured in one pass in inference mode, since adapting one layer does not change the input of others.
    """
    layers = layers_of(network)
    measured = {layer: Moments() for layer in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda module, inputs: measured[module].add(inputs[0])) for layer in layers
    ]
    was_training = network.training
    network.eval()
    try:
        for batch in batches:
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)
    for layer, moments in measured.items():
        if moments.count:
            _replace(layer, moments.mean, moments.variance)
    return len(layers)


@torch.no_grad()
def measure(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the statistics of all batch-normalization layers by the means of those of normalized batches
    (N, 3, H, W), with weights and biases as they are; return the number of layers.

    Unlike `adapt`, this changes the network's output. Each layer sees what the layers before it give in training mode.
    """
    layers = layers_of(network)
    momenta, was_training = [layer.momentum for layer in layers], network.training
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    for batch in batches:
        network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.train(was_training)
    return len(layers)


def freeze(network: nn.Module) -> None:
    """Freeze the batch-normalization statistics of a network that is being trained."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


@contextmanager
@torch.no_grad()
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics as they are, whatever passes through the network meanwhile.

    A backward pass with checkpointing runs the blocks a second time in training mode, and so updates their statistics a
    second time with the same batch.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm | TaskBatchNorm)]
    buffers = [values for layer in layers for values in layer.buffers(recurse=False)]
    before = [values.clone() for values in buffers]
    try:
        yield
    finally:
        for values, earlier in zip(buffers, before, strict=True):
            values.copy_(earlier)


def _replace(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Set the statistics of `layer`, and keep its output in inference:

    weight_t = weight_s sqrt(var_t + eps) / sqrt(var_s + eps)
    bias_t = bias_s + weight_s (mean_t - mean_s) / sqrt(var_s + eps)
    """
    assert layer.running_mean is not None
    assert layer.running_var is not None
    weight = layer.weight.double()
    deviation = (layer.running_var.double() + layer.eps).sqrt()
    layer.bias.copy_(layer.bias.double() + weight * (mean - layer.running_mean.double()) / deviation)
    layer.weight.copy_(weight * (variance + layer.eps).sqrt() / deviation)
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)
