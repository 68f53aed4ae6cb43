"""Measures a training between two log entries: losses, speed, and the share of the time spent waiting for data.

Losses stay on the device until they are read, so that no iteration waits for the device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mtrain.errors import DivergedError
from mtrain.model.weight_files.weights import StateDict
from mtrain.train.distributed import SINGLE_PROCESS, Ranks

LOSSES, SAMPLES, STEPS = "log.losses", "log.samples", "log.steps"  # names in a checkpoint


class Meter:
    """Accumulates iterations. `take` returns them as one event and resets the meter; all ranks call it together."""

    def __init__(self, tasks: Sequence[str], ranks: Ranks = SINGLE_PROCESS) -> None:
        self.tasks, self.ranks = tasks, ranks
        self._reset()

    def _reset(self) -> None:
        self.losses: Tensor | None = None
        self.samples = torch.zeros(len(self.tasks), dtype=torch.int64)
        self.steps, self.waited, self.begun = 0, 0.0, time.monotonic()
        self.earlier = 0  # of the samples, those of a process before this one

    def state(self, summed: Sequence[float]) -> StateDict:
        """What a checkpoint keeps, so that the next event of a resumed training is that of an undisturbed one.

        summed: the losses that `check` returned.
        """
        losses = torch.tensor(summed, dtype=torch.float64)
        return {LOSSES: losses, SAMPLES: self.samples.clone(), STEPS: torch.tensor(self.steps)}

    def restore(self, state: StateDict, device: torch.device) -> None:
        """Continue from what `state` returned; on the first rank, which has the losses of all ranks."""
        if self.ranks.first and len(state.get(LOSSES, ())) == len(self.tasks):
            self.losses = state[LOSSES].to(device, torch.float32)
        if len(state.get(SAMPLES, ())) == len(self.tasks):
            self.samples, self.steps = state[SAMPLES].clone(), int(state[STEPS])
            self.earlier = int(self.samples.sum())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time spent inside from the measured time."""
        start = time.monotonic()
        yield
        self.begun += time.monotonic() - start

    def timed(self, items: Iterator[Any], waited: Callable[[], float]) -> Iterator[Any]:
        """Yield the items. waited: the seconds for which they have been waited for since some moment."""
        while True:
            start = waited()
            try:
                item = next(items)
            except StopIteration:
                return
            self.waited += waited() - start
            yield item

    def add(self, losses: Tensor, counts: Sequence[int] | Tensor) -> None:
        """Add one iteration. losses: (tasks,), summed over the samples of each task on this rank. counts: the number of
        samples of each task on all ranks.
        """
        self.losses = losses.clone() if self.losses is None else self.losses.add_(losses)
        self.samples += torch.as_tensor(counts)
        self.steps += 1

    def check(self, iteration: int) -> list[float]:
        """The accumulated loss of each task, summed over all ranks.

        Raises:
            DivergedError: a loss is not finite.
        """
        summed: list[float] = []
        if self.losses is not None:
            total = self.losses.clone()
            self.ranks.all_reduce_([total])
            summed = total.tolist()
        diverged = [task for task, value in zip(self.tasks, summed, strict=False) if not math.isfinite(value)]
        if diverged:
            first = iteration - self.steps + 1
            where = f"iteration {iteration}" if first == iteration else f"iterations {first} to {iteration}"
            raise DivergedError(
                f"the loss of {', '.join(diverged)} is not finite in {where}: the training has diverged",
                remedy="start another run with a lower --lr or --tau",
            )
        return summed

    def take(self, iteration: int) -> dict[str, Any]:
        """An event: mean loss over all samples and over those of each task, images per second, share of waiting."""
        summed, samples = self.check(iteration), self.samples.tolist()
        seconds = max(time.monotonic() - self.begun, 1e-9)
        event = {
            "event": "step",
            "iteration": iteration,
            "loss": sum(summed) / max(sum(samples), 1),
            "tasks": {t: value / n for t, value, n in zip(self.tasks, summed, samples, strict=True) if n},
            "images_per_s": (sum(samples) - self.earlier) / seconds,
            "wait": self.waited / seconds,
        }
        self._reset()
        return event
