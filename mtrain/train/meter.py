"""What a training did since the last look: losses, speed, and the share of the time that it waited for data.

Losses stay on the device until then, so that no iteration waits for the device to finish.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mtrain.errors import DivergedError
from mtrain.train.distributed import ALONE, Ranks


class Meter:
    """Gathers iterations; `take` answers them as one event and begins anew. Ranks do so together."""

    def __init__(self, tasks: Sequence[str], ranks: Ranks = ALONE) -> None:
        self.tasks, self.ranks = tasks, ranks
        self._begin()

    def _begin(self) -> None:
        self.losses: Tensor | None = None
        self.samples = torch.zeros(len(self.tasks), dtype=torch.int64)
        self.steps, self.waited, self.begun = 0, 0.0, time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that does not count."""
        asked = time.monotonic()
        yield
        self.begun += time.monotonic() - asked

    def timed(self, items: Iterator[Any]) -> Iterator[Any]:
        """The items; the time that getting them takes counts as waiting."""
        while True:
            asked = time.monotonic()
            try:
                item = next(items)
            except StopIteration:
                return
            self.waited += time.monotonic() - asked
            yield item

    def add(self, losses: Tensor, counts: Sequence[int] | Tensor) -> None:
        """The losses (tasks,) of one iteration, summed over the samples of each task on this rank, and how many samples
        there were on all.
        """
        self.losses = losses.clone() if self.losses is None else self.losses.add_(losses)
        self.samples += torch.as_tensor(counts)
        self.steps += 1

    def check(self, iteration: int) -> list[float]:
        """The losses gathered, over all ranks.

        Raises:
            DivergedError: one is not finite.
        """
        summed: list[float] = []
        if self.losses is not None:
            total = self.losses.clone()
            self.ranks.sum_([total])
            summed = total.tolist()
        wrong = [task for task, value in zip(self.tasks, summed, strict=False) if not math.isfinite(value)]
        if wrong:
            since = f"{iteration - self.steps + 1}..{iteration}"
            raise DivergedError(
                f"the loss of {', '.join(wrong)} is not finite in iterations {since}: the training has diverged",
                remedy="start another run with a lower --lr or --tau",
            )
        return summed

    def take(self, iteration: int) -> dict[str, Any]:
        """Mean loss over all samples and over those of each task, pictures a second, share of waiting."""
        summed, samples = self.check(iteration), self.samples.tolist()
        seconds = max(time.monotonic() - self.begun, 1e-9)
        event = {
            "event": "step",
            "iteration": iteration,
            "loss": sum(summed) / max(sum(samples), 1),
            "tasks": {t: value / n for t, value, n in zip(self.tasks, summed, samples, strict=True) if n},
            "images_per_s": sum(samples) / seconds,
            "wait": self.waited / seconds,
        }
        self._begin()
        return event
