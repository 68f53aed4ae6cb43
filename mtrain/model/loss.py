"""The multi-task loss and the scaling of the heads' gradients (the paper, section IV-B and supplement C).

Both have the same shapes in every iteration, whatever the tasks in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mtrain.model.task_heads import TaskHeads


def task_losses(logits: Tensor, labels: Tensor, tasks: Tensor, heads: TaskHeads, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of each task under its own head, summed over its samples: (tasks,); 0 without samples.

    logits: (N, classes of all tasks); classes of other tasks are ignored. labels, tasks: (N,), the class of each sample
    within its task, and the index of the task. smoothing: share of the target that is spread evenly over all classes of
    the task. The loss of the batch is the sum of the result divided by the number of samples in the batch.
    """
    own = tasks[:, None] == heads.task_of_row
    values = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(~own, -torch.inf)
    losses = (1 - smoothing) * F.cross_entropy(values, heads.first_row[tasks] + labels, reduction="none")
    if smoothing:
        losses = losses - smoothing * values.log_softmax(1).masked_fill(~own, 0).sum(1) / own.sum(1)
    return losses @ (tasks[:, None] == torch.arange(len(heads), device=tasks.device)).to(losses.dtype)


def head_scales(counts: Sequence[int]) -> Tensor:
    """Return B / B_t for each task, (tasks,); 0 where B_t is 0.

    The loss is divided by B although only B_t samples reach the head of task t. With several ranks or accumulated
    batches, both are counts over the whole effective batch.
    """
    whole = sum(counts)
    return torch.tensor([whole / count if count else 0.0 for count in counts], dtype=torch.float64)


@torch.no_grad()
def scale_head_gradients(heads: TaskHeads, scales: Tensor) -> None:
    """Multiply the gradient of each head by its scale; `scales` (tasks,) is on the device of the heads."""
    rows = scales[heads.task_of_row].to(heads.weight.dtype)
    for parameter in (heads.weight, heads.bias):
        if parameter.grad is not None:
            parameter.grad.mul_(rows.view(-1, *[1] * (parameter.ndim - 1)))
