"""The multi-task loss and the scaling of the heads' gradients (the paper, section IV-B and supplement C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def task_losses(
    logits: Mapping[str, Tensor], labels: Tensor, counts: Sequence[int], tasks: Sequence[str], smoothing: float = 0.0
) -> Tensor:
    """(tasks,) cross-entropy of each task summed over its samples, under its own head; 0 where it has none.

    `labels` holds counts[0] labels of the first task, then counts[1] of the second, and so on. The loss of the batch is
    the sum of these divided by the number of all its samples. `smoothing` is the share of the target that goes to all
    classes of the task alike.
    """
    parts = dict(zip(tasks, torch.split(labels, list(counts)), strict=True))
    summed = {task: _cross_entropy(values, parts[task], smoothing) for task, values in logits.items()}
    nothing = torch.zeros((), dtype=next(iter(summed.values())).dtype, device=labels.device)
    return torch.stack([summed.get(task, nothing) for task in tasks])


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    at_least_single = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(at_least_single), labels, reduction="sum", label_smoothing=smoothing)


def scale_head_gradients(heads: nn.ModuleDict, counts: Sequence[int]) -> None:
    """Multiply each head's gradient by B / B_t; a head without samples gets none, so that no optimizer moves it.

    The loss is divided by B although only B_t samples reach the head of task t. With several ranks or accumulated
    batches both are counts of the whole effective batch.
    """
    whole = sum(counts)
    for head, count in zip(heads.values(), counts, strict=True):
        for parameter in head.parameters():
            if count == 0:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.mul_(whole / count)
