"""The gradient of each task's loss in the trained weights of the shared network, and what follows from them.

`add_jacobian` is exact, and costs one backward pass for each task in the batch. Rows are tasks, columns are weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

CHUNK = 2**20  # columns that are multiplied in double precision at a time


def no_gradients(tasks: int, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return zeros (tasks, weights), to which `add_jacobian` adds."""
    weights = sum(parameter.numel() for parameter in parameters)
    return torch.zeros(tasks, weights, dtype=parameters[0].dtype, device=parameters[0].device)


def add_jacobian(rows: Tensor, losses: Tensor, counts: Sequence[int], parameters: Sequence[nn.Parameter]) -> None:
    """Add the gradients of losses (tasks,) to `rows` (tasks, weights); nothing for tasks without samples. The graph is
    kept, and so are the gradients that the parameters have.

    counts: samples of each task on all ranks, so that all ranks run the same backward passes.
    """
    for row, loss, count in zip(rows, losses, counts, strict=True):
        if count:
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for part, gradient in zip(torch.split(row, [p.numel() for p in parameters]), found, strict=True):
                part += gradient.reshape(-1)


def gramian(rows: Tensor) -> Tensor:
    """Return the inner products (tasks, tasks) of gradients (tasks, weights), summed in double precision."""
    found = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for chunk in torch.split(rows, CHUNK, dim=1):
        wide = chunk.double()
        found += wide @ wide.T
    return found


def cosines(products: Tensor, tasks: Sequence[str]) -> dict[str, float]:
    """Return the cosine between the gradients of each pair of tasks, as "Lung/Necrosis": 0.1; none for pairs with a
    gradient of 0. products: (tasks, tasks), as `gramian` returns it.
    """
    lengths = products.diagonal().sqrt()
    found = (products / (lengths[:, None] * lengths)).clamp(-1, 1).tolist()
    moving = [number for number, length in enumerate(lengths.tolist()) if length > 0]
    return {f"{tasks[i]}/{tasks[j]}": found[i][j] for i in moving for j in moving if i < j}


@torch.no_grad()
def put_gradient(row: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Make the parts of `row` (weights,) the gradients of the parameters."""
    parts = torch.split(row, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype)


def event(iteration: int, found: Mapping[str, float]) -> dict[str, object]:
    """Return what the log says of the cosines of an iteration."""
    return {"event": "cosines", "iteration": iteration, "cosines": dict(found)}
