"""Batch normalization with the mean and variance of the whole batch when it is spread over several ranks.

CUDA devices use torch's SyncBatchNorm. torch has none for the CPU, so this module implements an equivalent layer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtrain.errors import UsageError

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronize(network: nn.Module, device: torch.device) -> None:
    """Replace every batch-normalization layer of a network by one over all ranks, with the same weights.

    Raises:
        UsageError: a layer does more than normalize, so it cannot be replaced.
    """
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, _BatchNorm):
                continue
            if type(layer) not in PLAIN:
                raise UsageError(
                    f"--sync-batchnorm cannot replace this network's {type(layer).__name__}",
                    remedy="use another --backbone, or leave it out",
                )
            kind = nn.SyncBatchNorm if device.type == "cuda" else SynchronizedBatchNorm
            setattr(parent, name, _exchanged(layer, kind))


class SynchronizedBatchNorm(_BatchNorm):
    """Normalize (N, C, ...) over all dimensions but C and over all ranks; inference is that of a plain layer."""

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return super().forward(values)
        over = [d for d in range(values.ndim) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(values.ndim)]
        ones = values.new_full((1,), values.numel() / values.shape[1])
        total = sum_over_ranks(torch.cat([values.sum(over), ones]))
        mean, count = total[:-1] / total[-1], total[-1]
        centred = values - mean.view(shape)
        variance = sum_over_ranks(centred.square().sum(over)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""


SYNCHRONIZED = (nn.SyncBatchNorm, SynchronizedBatchNorm)


class _SumOverRanks(torch.autograd.Function):
    """A sum over ranks. The loss is the sum of all ranks' losses, so the gradients of the ranks are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the differentiable sum over all ranks, which must run both passes through such sums in the same order."""
    summed: Tensor = _SumOverRanks.apply(values)
    return summed


def _summed(values: Tensor) -> Tensor:
    summed = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


def _exchanged(layer: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    new = kind(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    new.weight, new.bias = layer.weight, layer.bias
    new.running_mean, new.running_var = layer.running_mean, layer.running_var
    new.num_batches_tracked = layer.num_batches_tracked
    return new.train(layer.training)
