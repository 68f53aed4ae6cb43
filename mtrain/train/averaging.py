"""An optional exponential moving average of a network's weights (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mtrain.model.weight_files.weights import StateDict


class Average:
    """average = decay x average + (1 - decay) x weights after each step. Buffers are not averaged.

    Early in training the average covers fewer steps: after n steps, the decay is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, model: nn.Module, decay: float, state: StateDict | None = None) -> None:
        self.decay, self.weights = decay, dict(model.named_parameters())
        self.state: StateDict = {name: parameter.detach().clone() for name, parameter in self.weights.items()}
        for name, values in (state or {}).items():
            self.state[name].copy_(values)

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Update the average with the weights after this many steps."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))  # type: ignore[no-untyped-call]
        average(list(self.state.values()), [weight.detach() for weight in self.weights.values()], steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the averaged weights into the model, for scoring and saving."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.weights.items():
            current = weight.detach().clone()
            weight.copy_(self.state[name])
            self.state[name].copy_(current)
