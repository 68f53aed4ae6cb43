"""Margins of samples under their heads, and the projected gradients of these margins in the shared weights.

The margin of a sample is the logit of its class minus the log-sum-exp of all other logits, so that its cross-entropy is
log(1 + exp(-margin)), with any number of classes (Li, Sharma and Zhang, "Scalable multitask learning using
gradient-based estimation of task affinity", KDD 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from mtrain.data.batches.image_batches import ordered_batches
from mtrain.data.labels import need_classes
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.influence.projection import Projection
from mtrain.model.network import SharedNetwork

Values = NDArray[np.float64]
DEFINED = "the method is defined by the margins of their logits"
LAST = 0.15  # minimum share of all weights in the last stage
AT_ONCE = 16  # number of samples whose gradients are in memory at once


@dataclass(frozen=True)
class Margins:
    """Margins (n,) of n samples of one task, and their projected gradients (n, dimensions)."""

    margins: Values
    gradients: Values

    def loss_gradient(self) -> Values:
        """Gradient (dimensions,) of the mean cross-entropy."""
        pull = -1 / (1 + np.exp(self.margins))
        mean: Values = (pull[:, None] * self.gradients).mean(0)
        return mean


def moving(body: nn.Module, layers: str) -> dict[str, nn.Parameter]:
    """The parameters that may move, by name: all that the training moved, or only those of the last stages.

    Stages are the parts that the network runs one after the other. The last stages are those at the end that together
    contain at least the share `LAST` of all weights.
    """
    named = {name: parameter for name, parameter in body.named_parameters() if parameter.requires_grad}
    if layers == "all":
        return named
    total, held = sum(parameter.numel() for parameter in body.parameters()), 0
    kept: list[str] = []
    for prefix in reversed(list(_stages(body))):
        kept.append(prefix)
        held += sum(parameter.numel() for parameter in body.get_submodule(prefix).parameters())
        if held >= LAST * total:
            break
    return {name: p for name, p in named.items() if any(name.startswith(f"{prefix}.") for prefix in kept)}


def _stages(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the stages; a container with most of the weights is divided into its children."""
    total = sum(parameter.numel() for parameter in module.parameters())
    for name, child in module.named_children():
        size = sum(parameter.numel() for parameter in child.parameters())
        if isinstance(child, nn.Sequential | nn.ModuleList) and size > total / 1.25:
            yield from _stages(child, f"{prefix}{name}.")
        elif size:
            yield f"{prefix}{name}"


def margin(logits: Tensor, label: Tensor) -> Tensor:
    """The margin, a scalar, of a sample with these logits (classes,) and this label."""
    own = torch.arange(logits.shape[-1], device=logits.device) == label  # vmap does not support F.one_hot
    others = torch.logsumexp(logits.masked_fill(own, -torch.inf), -1)
    return logits.masked_fill(~own, 0).sum(-1) - others


def margins(
    network: SharedNetwork,
    head: tuple[Tensor, Tensor],
    task: Task,
    rows: Rows,
    projection: Projection,
    parameters: dict[str, Tensor],
    *,
    size: int,
    workers: int,
    device: torch.device,
) -> Margins:
    """Margins of `rows` under a head (weight (classes, features), bias (classes,)), and their gradients.

    The network is in evaluation mode. Images are cropped and resized as for features.
    """
    need_classes(task, "mtrain influence", DEFINED)
    weight, bias = (part.to(device) for part in head)

    def of_one(moved: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        features = functional_call(network, {f"body.{name}": p for name, p in moved.items()}, (image[None],))
        return margin(F.linear(features, weight, bias)[0], label)

    per_sample = vmap(grad_and_value(of_one), in_dims=(None, 0, 0))
    labels = torch.from_numpy(rows.label).to(device)
    values, gradients = np.empty(len(rows)), np.empty((len(rows), projection.dimensions))
    for images, places in ordered_batches(
        task, rows, size=size, batch=AT_ONCE, workers=workers, device=device, how=network.interpolation
    ):
        with torch.no_grad():  # for everything but the gradients that `per_sample` takes
            grads, found = per_sample(
                parameters, network.normalize(images), labels[torch.from_numpy(places).to(device)]
            )
        flat = torch.cat([grads[name].reshape(len(images), -1) for name in parameters], dim=1)
        values[places] = found.double().cpu().numpy()
        gradients[places] = projection(flat).double().cpu().numpy()
    return Margins(values, gradients)
