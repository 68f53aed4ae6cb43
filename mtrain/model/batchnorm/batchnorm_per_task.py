"""Optional batch normalization with separate statistics for each task; weight and bias stay shared.

After Chang et al., "Domain-specific batch normalization for unsupervised domain adaptation" (2019). The exported
network has one set of statistics again: those of the activations of all tasks, with equal weight per task.

A layer that is synchronized over ranks stays synchronized: it uses the statistics of a task's images on all ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtrain.model.batchnorm.batchnorm_sync import PLAIN, SYNCHRONIZED, sum_over_ranks
from mtrain.model.saved_rows import load_rows

SAVED = {"means": "mean_", "variances": "variance_"}  # buffer -> beginning of the names of its rows in a checkpoint


class TaskBatchNorm(nn.Module):
    """Apply `layer` to each image of a batch, with the statistics of its task instead of the layer's own.

    means, variances: running statistics, (tasks, channels). route: the task of each image of the next batch, (N,), on
    the device of the images. Shapes and launched kernels do not depend on the tasks in the batch.
    """

    means: Tensor
    variances: Tensor

    def __init__(self, layer: _BatchNorm, tasks: int) -> None:
        super().__init__()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        assert layer.momentum is not None
        self.layer, self.tasks, self.momentum = layer, tasks, layer.momentum
        self.route: Tensor | None = None
        self.train(layer.training)
        self.register_buffer("means", layer.running_mean.repeat(tasks, 1))
        self.register_buffer("variances", layer.running_var.repeat(tasks, 1))
        layer.running_mean = layer.running_var = None

    def forward(self, images: Tensor) -> Tensor:
        """Normalize a batch; input and output shapes are those of `layer`."""
        assert self.route is not None, "the tasks of the images are not known"
        assert len(self.route) == len(images), "the tasks are those of other images"
        layer, low = self.layer, images.dtype
        if self.training and layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        with torch.autocast(images.device.type, enabled=False):
            of_task = self.route[:, None] == torch.arange(self.tasks, device=images.device)
            own = of_task.to(torch.promote_types(low, torch.float32))  # (N, tasks)
            means, variances = (own @ part for part in self._statistics(images, own))
            factors = (variances + layer.eps).rsqrt()
            shifts, alone = -means * factors, type(layer) in (*PLAIN, *SYNCHRONIZED)
            if alone and layer.affine:
                factors, shifts = factors * layer.weight, shifts * layer.weight + layer.bias
            values = images.reshape(*images.shape[:2], -1)
            normal = torch.addcmul(shifts[:, :, None], values, factors[:, :, None]).to(low).view_as(images)
        return normal if alone else self._continued(normal)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return means and variances, (tasks, channels) each."""
        return self.means, self.variances

    def _statistics(self, images: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Those that the images of each task are normalized with, (tasks, channels): of the batch in training.

        One value per channel has no variance: stored statistics are used then. own: (N, tasks), 1 for its own task.
        """
        before = self.means.to(own.dtype), self.variances.to(own.dtype)
        if not self.training:
            return before
        positions = images.numel() // (images.shape[0] * images.shape[1])
        mean, variance = _MomentsOfImages.apply(images, own.dtype)  # of each image
        total = self._summed(torch.cat([own.T @ mean * positions, own.sum(0)[:, None] * positions], dim=1))
        count = total[:, -1:]
        means = total[:, :-1] / count.clamp(min=1)
        spread = self._summed(own.T @ (variance + (mean - own @ means).square()) * positions)
        variances = spread / count.clamp(min=1)
        self._remember(means.detach(), variances.detach() * count / (count - 1).clamp(min=1), count > 1)
        return torch.where(count > 1, means, before[0]), torch.where(count > 1, variances, before[1])

    def _summed(self, values: Tensor) -> Tensor:
        """The sum over the ranks, in which ranks without images of a task join too, if the layer is synchronized."""
        return sum_over_ranks(values) if isinstance(self.layer, SYNCHRONIZED) else values

    @torch.no_grad()
    def _remember(self, means: Tensor, variances: Tensor, present: Tensor) -> None:
        """Update the running statistics of the tasks for which `present` (tasks, 1) is true."""
        for kept, new in zip(self.statistics(), (means, variances), strict=True):
            kept.copy_(torch.where(present, kept.lerp(new.to(kept.dtype), self.momentum), kept))

    def _continued(self, normal: Tensor) -> Tensor:
        """Apply the weight and bias of the layer, and what follows them in it, to values that are normalized."""
        layer, was_training = self.layer, self.layer.training
        layer.running_mean = torch.zeros_like(self.means[0])
        layer.running_var = torch.full_like(self.means[0], 1 - layer.eps)
        layer.training = False  # not of its children
        try:
            result: Tensor = layer(normal)
        finally:
            layer.training = was_training
            layer.running_mean = layer.running_var = None  # else a checkpoint would hold them
        return result

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for buffer, begin in SAVED.items():
            for task, row in enumerate(self.get_buffer(buffer)):
                destination[f"{prefix}{begin}{task}"] = row if keep_vars else row.detach()

    def _load_from_state_dict(
        self,
        state: Mapping[str, Any],
        prefix: str,
        metadata: Any,
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        rows = {
            f"{prefix}{begin}{task}": row
            for buffer, begin in SAVED.items()
            for task, row in enumerate(self.get_buffer(buffer))
        }
        load_rows(rows, state, missing, errors)
        own, inner = (name for name in state if name.startswith(prefix)), f"{prefix}layer."
        unexpected += [name for name in own if strict and name not in rows and not name.startswith(inner)]


class _MomentsOfImages(torch.autograd.Function):
    """Mean and variance of each channel of each image, (N, channels), in a precision that the images need not have.

    Only the images are kept for the backward pass, no copy of them in that precision.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        values = images.reshape(*images.shape[:2], -1).to(precision)
        variance, mean = torch.var_mean(values, 2, correction=0)
        ctx.save_for_backward(images, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor, None]:
        images, mean = ctx.saved_tensors
        values = images.reshape(*images.shape[:2], -1)
        slopes = 2 * of_variance[:, :, None] * (values - mean[:, :, None])
        gradient = (of_mean[:, :, None] + slopes) / values.shape[2]
        return gradient.to(images.dtype).view_as(images), None


def split(network: nn.Module, tasks: int) -> None:
    """Give every batch-normalization layer one set of statistics per task, initialized with the layer's own."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, _BatchNorm) and layer.track_running_stats:
            _replace(network, name, TaskBatchNorm(layer, tasks))


def route(network: nn.Module, tasks: Tensor) -> None:
    """State the task of each image of the next batch: (N,), on the device of the network."""
    for module in network.modules():
        if isinstance(module, TaskBatchNorm):
            module.route = tasks


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
