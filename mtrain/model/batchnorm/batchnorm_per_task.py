"""Optional batch normalization with separate statistics for each task; weight and bias stay shared.

After Chang et al., "Domain-specific batch normalization for unsupervised domain adaptation" (2019). The exported
network has one set of statistics again: those of the activations of all tasks, with equal weight per task.

A layer that is synchronized over ranks stays synchronized: it uses the statistics of a task's images on all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mtrain.model.batchnorm.batchnorm_sync import SYNCHRONIZED, sum_over_ranks


class TaskBatchNorm(nn.Module):
    """Apply `layer` to each task's part of the batch with that task's statistics.

    The batch contains counts[0] images of the first task, then counts[1] of the second, and so on.
    """

    def __init__(self, layer: _BatchNorm, tasks: int) -> None:
        super().__init__()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        assert layer.momentum is not None
        self.layer, self.tasks, self.momentum = layer, tasks, layer.momentum
        self.counts: Sequence[int] = ()
        self.train(layer.training)
        for task in range(tasks):
            self.register_buffer(f"mean_{task}", layer.running_mean.clone())
            self.register_buffer(f"variance_{task}", layer.running_var.clone())
        layer.running_mean = layer.running_var = None

    def forward(self, images: Tensor) -> Tensor:
        """Normalize a batch; input and output shapes are those of `layer`."""
        tracked, self.layer.num_batches_tracked = self.layer.num_batches_tracked, None  # counts batches, not parts
        try:  # checkpointing ends a second pass by an exception, as soon as it has all tensors
            if self.training and isinstance(self.layer, SYNCHRONIZED):
                return self._over_ranks(images)
            parts = enumerate(torch.split(images, list(self.counts)))
            return torch.cat([self._normalized(task, part) for task, part in parts if len(part)])
        finally:
            self.layer.num_batches_tracked = tracked.add_(self.training) if tracked is not None else None

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return means and variances, (tasks, channels) each."""
        means = torch.stack([self.get_buffer(f"mean_{task}") for task in range(self.tasks)])
        return means, torch.stack([self.get_buffer(f"variance_{task}") for task in range(self.tasks)])

    def _normalized(self, task: int, part: Tensor) -> Tensor:
        """Normalize one task's part; one value per channel has no variance: stored statistics are used then."""
        self.layer.running_mean = self.get_buffer(f"mean_{task}")
        self.layer.running_var = self.get_buffer(f"variance_{task}")
        self.layer.train(self.training and part.numel() > part.shape[1])
        try:
            normalized: Tensor = self.layer(part)
        finally:
            self.layer.running_mean = self.layer.running_var = None  # else a checkpoint would hold them twice
        return normalized

    def _over_ranks(self, images: Tensor) -> Tensor:
        """Normalize over ranks with two messages for all tasks, in which ranks without images of a task join too."""
        with torch.autocast(images.device.type, enabled=False):
            values = images.to(torch.promote_types(images.dtype, torch.float32)).reshape(*images.shape[:2], -1)
            task = F.one_hot(torch.repeat_interleave(torch.tensor(self.counts)), self.tasks).to(values.dtype)
            task = task.to(values.device, non_blocking=True)  # (N, tasks)
            here = task.sum(0)[:, None] * values.shape[2]
            total = sum_over_ranks(torch.cat([task.T @ values.sum(2), here], dim=1))
            count = total[:, -1:]
            mean = total[:, :-1] / count.clamp(min=1)
            squares = (values - (task @ mean)[:, :, None]).square().sum(2)
            variance = sum_over_ranks(task.T @ squares) / count.clamp(min=1)
            known = count < 2  # one value per channel has no variance
            before = self.statistics()
            self._remember(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1), count[:, 0] > 1)
            mean, variance = (torch.where(known, *pair) for pair in zip(before, (mean, variance), strict=True))
            factor = (variance + self.layer.eps).rsqrt()
            normal = (values - (task @ mean)[:, :, None]) * (task @ factor)[:, :, None]
            if self.layer.affine:
                normal = normal * self.layer.weight[:, None] + self.layer.bias[:, None]
        return normal.to(images.dtype).view_as(images)

    @torch.no_grad()
    def _remember(self, means: Tensor, variances: Tensor, present: Tensor) -> None:
        """Update the running statistics of the tasks for which `present` is true."""
        shares = self.momentum * present.to(means.dtype)
        for task, share in enumerate(shares):
            self.get_buffer(f"mean_{task}").lerp_(means[task], share)
            self.get_buffer(f"variance_{task}").lerp_(variances[task], share)


def split(network: nn.Module, tasks: int) -> None:
    """Give every batch-normalization layer one set of statistics per task, initialized with the layer's own."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, _BatchNorm) and layer.track_running_stats:
            _replace(network, name, TaskBatchNorm(layer, tasks))


def route(network: nn.Module, counts: Sequence[int]) -> None:
    """Set the number of images of each task in the next batch."""
    for module in network.modules():
        if isinstance(module, TaskBatchNorm):
            module.counts = counts


@torch.no_grad()
def merge(network: nn.Module) -> None:
    """Undo `split`: keep one mean and variance per channel, those of the mixture of all tasks."""
    for name, module in list(network.named_modules()):
        if isinstance(module, TaskBatchNorm):
            means, variances = (values.double() for values in module.statistics())
            mean = means.mean(0)
            variance = (variances + means.square()).mean(0) - mean.square()
            module.layer.running_mean = mean.float()
            module.layer.running_var = variance.float()
            _replace(network, name, module.layer)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, module)
