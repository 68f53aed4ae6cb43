"""The multi-task loss and the scaling of the heads' gradients (the paper, section IV-B and supplement C).

Both have the same shapes in every iteration, whatever tasks are in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mtrain.model.task_heads import TaskHeads


def task_losses(logits: Tensor, labels: Tensor, tasks: Tensor, heads: TaskHeads, smoothing: float = 0.0) -> Tensor:
    """(tasks,) cross-entropy of each task summed over its samples, under its own head; 0 where it has none.

    logits: (N, classes of all tasks); those of other tasks' classes do not count. labels, tasks: (N,), the class of
    each sample in its task, and the number of the task. The loss of the batch is the sum of these divided by the number
    of all its samples. `smoothing` is the share of the target that goes to all classes of the task alike.
    """
    own = tasks[:, None] == heads.task_of_row
    values = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(~own, -torch.inf)
    losses = (1 - smoothing) * F.cross_entropy(values, heads.first_row[tasks] + labels, reduction="none")
    if smoothing:
        losses = losses - smoothing * values.log_softmax(1).masked_fill(~own, 0).sum(1) / own.sum(1)
    return losses @ (tasks[:, None] == torch.arange(len(heads), device=tasks.device)).to(losses.dtype)


def head_scales(counts: Sequence[int]) -> Tensor:
    """(tasks,) B / B_t: the loss is divided by B although only B_t samples reach the head of task t; 0 where B_t is 0.

    With several ranks or accumulated batches both are counts of the whole effective batch.
    """
    whole = sum(counts)
    return torch.tensor([whole / count if count else 0.0 for count in counts], dtype=torch.float64)


@torch.no_grad()
def scale_head_gradients(heads: TaskHeads, scales: Tensor) -> None:
    """Multiply the gradient of each head by its scale (tasks,), on the device of the heads."""
    rows = scales[heads.task_of_row].to(heads.weight.dtype)
    for parameter in (heads.weight, heads.bias):
        if parameter.grad is not None:
            parameter.grad.mul_(rows.view(-1, *[1] * (parameter.ndim - 1)))
