"""The multi-task loss and the scaling of the heads' gradients (the paper, section IV-B and supplement C).

Both have the same shapes in every iteration, whatever the tasks in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mtrain.model.task_heads import TaskHeads

OUTLYING = 3.0  # deviations of the training set


def task_losses(
    logits: Tensor,
    labels: Tensor,
    tasks: Tensor,
    heads: TaskHeads,
    smoothing: float = 0.0,
    targets: Tensor | None = None,
) -> Tensor:
    """Return the loss of each task under its own head, summed over its samples: (tasks,); 0 without samples.

    It is the cross-entropy of classes; of samples with any number of classes or a number, see `_other_losses`.

    logits: (N, classes of all tasks); classes of other tasks are ignored. labels, tasks: (N,), the class of each sample
    within its task, and the index of the task. smoothing: share of the target that is spread evenly over all classes of
    the task; it does not affect other targets. targets: (N, W), for the tasks of `heads` whose samples do not have one
    class, whose labels are ignored. The loss of the batch is the sum of the result divided by its number of samples.
    """
    own = tasks[:, None] == heads.task_of_row
    values = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(~own, -torch.inf)
    wanted = heads.first_row[tasks] + (labels.clamp(min=0) if heads.mixed else labels)
    losses = (1 - smoothing) * F.cross_entropy(values, wanted, reduction="none")
    if smoothing:
        losses = losses - smoothing * values.log_softmax(1).masked_fill(~own, 0).sum(1) / own.sum(1)
    if heads.mixed:
        assert targets is not None
        losses = torch.where(heads.of_class[tasks], losses, _other_losses(logits.to(losses.dtype), targets, own, heads))
    return losses @ (tasks[:, None] == torch.arange(len(heads), device=tasks.device)).to(losses.dtype)


def squared_error(errors: Tensor) -> Tensor:
    """Return the square of each error, which continues as its tangent beyond `OUTLYING` deviations.

    So the gradient is bounded, as that of a cross-entropy is: without that, learning rates that suit classes let a head
    of a number diverge, and the shared network with it.
    """
    return 2 * F.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=OUTLYING)


def _other_losses(logits: Tensor, targets: Tensor, own: Tensor, heads: TaskHeads) -> Tensor:
    """Return the loss of each sample, (N,), by the targets (N, W) of its own task's rows, `own` (N, rows).

    With any number of classes, it is the binary cross-entropy averaged over the classes and divided by ln 2; for a
    standardized number, the squared error (`squared_error`). Both are about 1 before anything is learnt, as the scaled
    losses of UMedPT (Schaefer et al., Nature Computational Science 4, 2024).
    """
    place = torch.arange(own.shape[1], device=own.device) - heads.first_row[heads.task_of_row]
    wanted = targets.to(logits.dtype)[:, place.clamp(max=targets.shape[1] - 1)]
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") / math.log(2)
    errors = torch.where(heads.of_labels[heads.task_of_row], entropy, squared_error(logits - wanted))
    return errors.masked_fill(~own, 0).sum(1) / own.sum(1)


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
