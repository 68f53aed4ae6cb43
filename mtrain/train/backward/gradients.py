"""Sums the gradients of all ranks while the backward pass still runs.

torch's DistributedDataParallel does so too, but it rearranges its messages after the first iteration, so that a resumed
training would round differently from an uninterrupted one. It also averages, while our loss is already divided by the
size of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

MESSAGE = 25 * 2**20  # bytes: large enough for full bandwidth, small enough to start early


class GradientSums:
    """Call `begin` before the backward pass whose gradients are to be summed, and `finish` after it.

    The layout of the messages depends only on the parameters, and all ranks send them in the same order.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.messages = _messages(parameters)
        self.message_of = {parameter: n for n, message in enumerate(self.messages) for parameter in message}
        self.missing: list[int] = []
        self.sent: list[tuple[Tensor, Any]] = []
        for parameter in self.message_of:
            parameter.register_post_accumulate_grad_hook(self._on_gradient)  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """From now on, send each message as soon as all its gradients are computed."""
        self.missing = [len(message) for message in self.messages]

    def finish(self) -> None:
        """Wait until every gradient is the sum over the ranks; a parameter without gradients gets zeros."""
        while len(self.sent) < len(self.messages):
            self._send()
        for message, (flat, work) in zip(self.messages, self.sent, strict=True):
            work.wait()
            for parameter, summed in zip(message, torch.split(flat, [p.numel() for p in message]), strict=True):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.copy_(summed.view_as(parameter))
        self.missing, self.sent = [], []

    def _on_gradient(self, parameter: Tensor) -> None:
        if not self.missing:
            return
        self.missing[self.message_of[parameter]] -= 1  # type: ignore[index]  # a hook is called with its parameter
        while len(self.sent) < len(self.messages) and self.missing[len(self.sent)] == 0:
            self._send()

    def _send(self) -> None:
        message = self.messages[len(self.sent)]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in message])
        self.sent.append((flat, dist.all_reduce(flat, async_op=True)))


def _messages(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in the order of the backward pass, in messages of about `MESSAGE` bytes."""
    messages: list[list[nn.Parameter]] = []
    room = 0
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.element_size()
        if size > room or messages[-1][0].dtype != parameter.dtype:
            messages.append([])
            room = MESSAGE
        messages[-1].append(parameter)
        room -= size
    return messages
