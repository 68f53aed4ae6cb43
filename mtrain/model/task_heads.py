"""The linear heads of all tasks as one layer, so that a batch of mixed tasks needs only one matrix product.

Row r of `weight` (classes of all tasks, features) and of `bias` belongs to one class of one task. For users, exports
and checkpoints each task still has its own head: `heads[task]` is a view of its rows, and the state dict contains
`<Task>.weight` and `<Task>.bias`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtrain.data.rows import Target
from mtrain.model.saved_rows import load_rows


class HeadView(NamedTuple):
    """The head of one task, as views of its rows in the shared weight and bias."""

    weight: Tensor  # (classes, features)
    bias: Tensor  # (classes,)

    def __call__(self, features: Tensor) -> Tensor:
        """Features (N, features) -> logits (N, classes)."""
        return F.linear(features, self.weight, self.bias)


class TaskHeads(nn.Module):
    """One linear head per task, by task name, in the order of `classes`.

    targets: what the samples of tasks are labelled with, if it is not one class; `mixed` is whether there are any.
    """

    task_of_row: Tensor

    def __init__(self, features: int, classes: Mapping[str, int], targets: Mapping[str, Target] | None = None) -> None:
        super().__init__()
        layers = [self._layer(features, number) for number in classes.values()]
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.cat([bias.detach() for bias in biases]))
        self.sizes = dict(classes)
        sizes = torch.tensor(list(classes.values()))
        self.register_buffer("task_of_row", torch.repeat_interleave(sizes), persistent=False)
        self.register_buffer("first_row", sizes.cumsum(0) - sizes, persistent=False)
        self.first_row: Tensor
        kinds = [(targets or {}).get(task, "class") for task in classes]
        self.mixed = any(kind != "class" for kind in kinds)
        self.register_buffer("of_class", torch.tensor([kind == "class" for kind in kinds]), persistent=False)
        self.register_buffer("of_labels", torch.tensor([kind == "labels" for kind in kinds]), persistent=False)
        self.of_class: Tensor
        self.of_labels: Tensor

    @staticmethod
    def _layer(features: int, number: int) -> nn.Linear | nn.Conv2d:
        """Return the initial head of one task."""
        return nn.Linear(features, number)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, features) -> logits (N, classes of all tasks)."""
        return F.linear(features, self.weight, self.bias)

    def __getitem__(self, task: str) -> HeadView:
        return HeadView(*(self.rows_of(tensor)[task] for tensor in (self.weight, self.bias)))

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def items(self) -> Iterator[tuple[str, HeadView]]:
        """Yield each task with its head."""
        return ((task, self[task]) for task in self)

    def rows_of(self, tensor: Tensor) -> dict[str, Tensor]:
        """Split by task: a tensor with one row per class into rows, one with an element per task into elements."""
        if len(tensor) == len(self.task_of_row):
            return dict(zip(self.sizes, torch.split(tensor, list(self.sizes.values())), strict=True))
        return dict(zip(self.sizes, tensor, strict=True))

    def from_rows(self, found: Mapping[str, Tensor]) -> Tensor:
        """Invert `rows_of`. Missing tasks become zeros: a head that has seen no sample yet has no entry."""
        some = next(iter(found.values()))
        if some.ndim == 0:
            return torch.stack([found.get(task, torch.zeros_like(some)) for task in self])
        sizes = self.sizes.items()
        return torch.cat([found.get(task, some.new_zeros((number, *some.shape[1:]))) for task, number in sizes])

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, parameter in self.named_parameters(recurse=False):
            for task, rows in self.rows_of(parameter if keep_vars else parameter.detach()).items():
                destination[f"{prefix}{task}.{name}"] = rows

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
        known = {
            f"{prefix}{task}.{name}": rows
            for name, parameter in self.named_parameters(recurse=False)
            for task, rows in self.rows_of(parameter.detach()).items()
        }
        load_rows(known, state, missing, errors)
        unexpected += [key for key in state if key.startswith(prefix) and key not in known]
