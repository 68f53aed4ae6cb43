"""Optimizers and schedules: stochastic gradient descent as in the paper; optionally AdamW and a cosine schedule."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mtrain.config import FitConfig
from mtrain.data.batches.sending import without_waiting
from mtrain.model.dense.dense_network import DenseNetwork
from mtrain.model.loss import scale_head_gradients
from mtrain.model.network import MultiHead
from mtrain.model.task_heads import TaskHeads
from mtrain.model.tuning import by_layer, moved

Rates = tuple[float, float]
FACTOR = "factor"  # of a group of parameters: on the rate of the shared network


def learning_rates(config: FitConfig, iteration: int) -> Rates:
    """(shared network, heads): the learning rates of this iteration. The shared network is frozen during the warm-up.

    The cosine schedule starts when the warm-up ends, at the full rates, and ends at 0 with the training.
    """
    if iteration < config.warmup:
        return 0.0, config.warmup_lr
    share = 1.0
    if config.schedule == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * (iteration - config.warmup) / (config.iterations - config.warmup)))
    return config.lr * share, config.lr * config.tau * share


class PhaseOptimizer:
    """The optimizer of one phase: of the heads during the warm-up, then of the shared network and the heads.

    The shared network has an optimizer of PyTorch. In the heads only the rows of active tasks are updated: the rows of
    other tasks, with their momentum and moments, stay exactly as they are, without weight decay. A mask selects them,
    so that every iteration has the same shapes.
    """

    def __init__(self, config: FitConfig, model: MultiHead, iteration: int) -> None:
        self.model, self.heads = model, HeadOptimizer(config, model.heads)
        self.dense = None if model.dense is None else DenseOptimizer(config, model.dense, model.heads)
        self.shared: torch.optim.Optimizer | None = None
        if iteration >= config.warmup and moved(model.shared):
            self.shared = _shared_optimizer(config, model)
        self.set_rates(learning_rates(config, iteration))

    @property
    def state(self) -> ChainMap[Tensor, dict[str, Tensor]]:
        """Parameter -> the tensors that are kept for it from iteration to iteration."""
        dense = [] if self.dense is None else [part.state for part in self.dense.parts]
        return ChainMap(self.heads.state, *dense, {} if self.shared is None else self.shared.state)

    @property
    def rates(self) -> dict[str, float]:
        """Learning rates of the parts being trained: shared network and heads, or only the heads."""
        shared = {} if self.shared is None else {"shared": float(self.rate)}
        return shared | {"heads": self.heads_rate}

    def set_rates(self, rates: Rates) -> None:
        """Set the learning rates of the next iteration."""
        self.rate, self.heads_rate = rates
        self.heads.rate = _set(self.heads.rate, self.heads_rate)
        if self.dense is not None:
            self.dense.set_rate(self.heads_rate)
        for group in self._groups():
            group["lr"] = _set(group["lr"], self.rate * group[FACTOR])

    def use_tensors_as_rates(self) -> None:
        """Keep the learning rates on the device from now on, where a recorded iteration finds their current values."""
        device = self.model.heads.weight.device
        for part in (self.heads, *(self.dense.parts if self.dense is not None else ())):
            part.rate = torch.tensor(self.heads_rate, dtype=torch.float32, device=device)
        for group in self._groups():
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)

    def before_recording(self) -> None:
        """State that the next step is recorded, which torch's AdamW on CUDA requires."""
        for group in self._groups():
            if "capturable" in group and group["lr"].device.type == "cuda":
                group["capturable"] = True

    def _groups(self) -> list[dict[str, Any]]:
        return [] if self.shared is None else self.shared.param_groups

    def zero_grad(self) -> None:
        """Clear all gradients, including those of a frozen shared network."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def step(self, scales: Tensor) -> None:
        """Update the active parts. scales: (tasks,) from `loss.head_scales`, on the device of the model."""
        scale_head_gradients(self.model.heads, scales)
        if self.shared is not None:
            self.shared.step()
        self.heads.step(scales)
        if self.dense is not None:
            self.dense.step(scales)


def _set(rate: float | Tensor, value: float) -> float | Tensor:
    return rate.fill_(value) if isinstance(rate, Tensor) else value


class DenseOptimizer:
    """Optimizer of the decoder and the convolutions of tasks with masks or points, at the rate of the heads.

    The paper's rule holds for both: gradients times B / B_t, where B_t of the decoder is the number of all samples that
    reach it; what no sample reaches stays exactly as it is.
    """

    def __init__(self, config: FitConfig, dense: DenseNetwork, heads: TaskHeads) -> None:
        self.network = dense
        self.heads = HeadOptimizer(config, dense.heads)
        self.decoder = MaskedOptimizer(config, dict.fromkeys(dense.decoder.parameters()), 1)
        self.parts = (self.heads, self.decoder)
        tasks = torch.tensor([list(heads).index(task) for task in dense.heads])
        self.tasks = without_waiting(tasks, dense.choice.device)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next iteration."""
        for part in self.parts:
            part.rate = _set(part.rate, rate)

    @torch.no_grad()
    def step(self, scales: Tensor) -> None:
        """Update what samples reached. scales: (tasks of the pool,) from `loss.head_scales`."""
        own = scales[self.tasks]
        scale_head_gradients(self.network.heads, own)
        self.heads.step(own)
        shares = torch.where(own > 0, 1 / own, 0).sum()  # B_t / B of all samples that reach the decoder
        whole = torch.where(shares > 0, 1 / shares, 0)[None]
        for parameter in self.decoder.owners:
            if parameter.grad is not None:
                parameter.grad.mul_(whole.to(parameter.dtype))
        self.decoder.step(whole)


class MaskedOptimizer:
    """SGD with momentum, or AdamW, as in `torch.optim`, restricted to what belongs to active owners.

    owners: of each parameter, the owner of each of its rows, a number below `count`; None: owner 0 has all.
    `state` holds momentum_buffer, or exp_avg, exp_avg_sq and step: (count,), the number of steps of each owner.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-8  # those of torch.optim.AdamW

    def __init__(self, config: FitConfig, owners: Mapping[Tensor, Tensor | None], count: int) -> None:
        self.config, self.owners, self.count = config, dict(owners), count
        self.rate: float | Tensor = 0.0
        self.state = {parameter: self._initial_state(parameter) for parameter in self.owners}

    def _initial_state(self, parameter: Tensor) -> dict[str, Tensor]:
        if self.config.optimizer == "sgd":
            return {"momentum_buffer": torch.zeros_like(parameter)}
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        return {**moments, "step": torch.zeros(self.count, device=parameter.device)}

    @torch.no_grad()
    def step(self, scales: Tensor) -> None:
        """Update what belongs to the owners whose scale is not 0. scales: (count,)."""
        active = scales > 0
        for parameter in self.owners:
            kept, mask = self.state[parameter], self._of_rows(parameter, active)
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if "step" in kept:
                kept["step"].add_(active)
            rule = self._adamw if "step" in kept else self._sgd
            for name, values in rule(parameter, gradient, kept).items():
                old = kept.get(name, parameter)
                old.copy_(torch.where(mask, values, old))

    def _of_rows(self, parameter: Tensor, of_owners: Tensor) -> Tensor:
        """What each row of the parameter has of its owner, in a shape that multiplies the parameter."""
        owners = self.owners[parameter]
        return of_owners if owners is None else of_owners[owners].view(-1, *[1] * (parameter.ndim - 1))

    def _sgd(self, parameter: Tensor, gradient: Tensor, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        velocity = self.config.momentum * kept["momentum_buffer"] + gradient + self.config.weight_decay * parameter
        return {"momentum_buffer": velocity, "parameter": parameter - self.rate * velocity}

    def _adamw(self, parameter: Tensor, gradient: Tensor, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        one, two = self.BETAS
        first = one * kept["exp_avg"] + (1 - one) * gradient
        second = two * kept["exp_avg_sq"] + (1 - two) * gradient.square()
        times = self._of_rows(parameter, kept["step"].double())  # in single precision 1 - 0.999 loses three digits
        bias_one, bias_two = ((1 - beta**times).to(parameter.dtype) for beta in self.BETAS)
        decayed = parameter * (1 - self.rate * self.config.weight_decay)
        moved = decayed - self.rate * (first / bias_one) / ((second / bias_two).sqrt() + self.EPSILON)
        return {"exp_avg": first, "exp_avg_sq": second, "parameter": moved}


class HeadOptimizer(MaskedOptimizer):
    """A `MaskedOptimizer` of heads, whose rows belong to tasks."""

    def __init__(self, config: FitConfig, heads: TaskHeads) -> None:
        super().__init__(config, dict.fromkeys((heads.weight, heads.bias), heads.task_of_row), len(heads))


def _groups(config: FitConfig, model: MultiHead) -> list[dict[str, Any]]:
    """The trained parameters of the shared network; a group for each layer if their rates differ."""
    if config.layer_decay is None:
        return [{"params": moved(model.shared), "lr": config.lr, FACTOR: 1.0}]
    layers = by_layer(model.shared.body, config.layer_decay, model.shared.name)
    return [{"params": params, "lr": config.lr * factor, FACTOR: factor} for factor, params in layers]


def _shared_optimizer(config: FitConfig, model: MultiHead) -> torch.optim.Optimizer:
    groups = _groups(config, model)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=_has_fused_kernel(groups))
    return sgd(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def sgd(groups: list[dict[str, Any]], momentum: float, weight_decay: float) -> torch.optim.SGD:
    """PyTorch's SGD with its fused kernel, on the CPU as on CUDA, so that tests on either run the same code.

    Every momentum buffer starts as zeros, with which the first step has the same result as without a buffer. The fused
    kernel needs them: it requires a buffer for all parameters of a group or for none, and raises TypeError if the first
    gradient of one parameter comes later than that of another.
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
