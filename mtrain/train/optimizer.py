"""What moves the weights: stochastic gradient descent as the paper has it; AdamW and a cosine schedule on request."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from mtrain.config import FitConfig
from mtrain.model.network import MultiHead

Rates = tuple[float, float]


def learning_rates(config: FitConfig, iteration: int) -> Rates:
    """Of the shared network and of the heads in this iteration. During the warm-up the shared network stands still.

    The cosine schedule starts when the warm-up ends, at the full rates, and ends at 0 with the training.
    """
    if iteration < config.warmup:
        return 0.0, config.warmup_lr
    share = 1.0
    if config.schedule == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * (iteration - config.warmup) / (config.iterations - config.warmup)))
    return config.lr * share, config.lr * config.tau * share


def make_optimizer(config: FitConfig, model: MultiHead, iteration: int) -> torch.optim.Optimizer:
    """For the phase of `iteration`: the heads alone during the warm-up, then the shared network and the heads."""
    shared_rate, heads_rate = learning_rates(config, iteration)
    groups: list[dict[str, Any]] = [{"params": list(model.heads.parameters()), "lr": heads_rate}]
    if iteration >= config.warmup:
        groups.insert(0, {"params": list(model.shared.parameters()), "lr": shared_rate})
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=_has_fused_kernel(groups))
    return sgd(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def sgd(groups: list[dict[str, Any]], momentum: float, weight_decay: float) -> torch.optim.SGD:
    """PyTorch's SGD with its fused kernel, on the CPU as on CUDA, so that tests on either run the same code.

    Every momentum buffer starts as zeros, from which the first step computes what it computes without a buffer. The
    fused kernel needs them: it takes a buffer for all parameters of a group or for none, and raises TypeError for a
    head whose first sample comes later than that of another.
    """
    optimizer = torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay, fused=_has_fused_kernel(groups))
    if momentum:
        for parameter in _parameters(groups):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _has_fused_kernel(groups: list[dict[str, Any]]) -> bool:
    return all(parameter.device.type in ("cpu", "cuda") for parameter in _parameters(groups))


def _parameters(groups: list[dict[str, Any]]) -> Iterator[torch.nn.Parameter]:
    return (parameter for group in groups for parameter in group["params"])


def set_rates(optimizer: torch.optim.Optimizer, rates: Rates) -> None:
    """Give an optimizer of `make_optimizer` the rates of the next iteration."""
    for group, rate in zip(optimizer.param_groups, rates[-len(optimizer.param_groups) :], strict=True):
        group["lr"] = rate
