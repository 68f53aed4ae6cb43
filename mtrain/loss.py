"""The multi-task loss and the scaling of the heads' gradients (the paper, section IV-B and supplement C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def task_losses(logits: Mapping[str, Tensor], labels: Tensor, counts: Sequence[int], tasks: Sequence[str]) -> dict[str, Tensor]:
    """Cross-entropy of each active task summed over its samples, each under its own head.

    `labels` holds counts[0] labels of the first task, then counts[1] of the second, and so on.
    """
    parts = zip(tasks, labels.split(list(counts)), strict=True)
    return {
        task: F.cross_entropy(logits[task].float(), part, reduction="sum") for task, part in parts if task in logits
    }


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
