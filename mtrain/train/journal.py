"""What a training leaves in its run folder and says to a person while it runs. Of several ranks the first keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from dpconvert.runtime.progress import Advance, Reporter
from mtrain.atomic import writing
from mtrain.runs import Run, State
from mtrain.train import checkpoint
from mtrain.train.trainer import Training

MUCH_WAITING = 0.2  # share of a window's time


class Journal:
    """Events, states and checkpoints of one run."""

    def __init__(self, run: Run, report: Reporter, board: SummaryWriter | None) -> None:
        self.run, self.report, self.board = run, report, board
        self.waited = False

    def state(self, state: State, iteration: int) -> None:
        """What `mtrain runs` shows."""
        if self.board:
            self.run.write("state.json", {"state": state, "iteration": iteration})

    def log(self, event: dict[str, Any]) -> None:
        """A line of log.jsonl, and its numbers for TensorBoard."""
        if not self.board:
            return
        self.run.log(event)
        with writing(self.run.path / "tensorboard"):
            for name, value in event.items():
                for part, number in (value if isinstance(value, dict) else {"": value}).items():
                    if isinstance(number, float):
                        self.board.add_scalar(f"{name}/{part}".rstrip("/"), number, event["iteration"])

    def step(self, event: dict[str, Any], training: Training, advance: Advance) -> None:
        """The iterations since the last time, as `Meter.take` tells them."""
        self.log(event)
        advance(0, glance(event, {task.name: task.num_classes for task in training.pool.tasks}))
        self._tell_waiting(event["wait"], training)

    def _tell_waiting(self, share: float, training: Training) -> None:
        """Said when it begins; said again only after a time without."""
        much, before, self.waited = share > MUCH_WAITING, self.waited, share > MUCH_WAITING
        if much and not before:
            self.report.note(
                f"{self.run.name}: at iteration {training.iteration}, {share:.0%} of the time is waiting for data; "
                f"more --workers ({training.config.workers} now), smaller stored pictures or a faster disk help"
            )

    def validation(self, accuracy: Mapping[str, float], iteration: int) -> None:
        """Accuracy of each task on pictures of its validation set."""
        if not accuracy:
            return
        self.log({"event": "validation", "iteration": iteration, "accuracy": dict(accuracy)})
        found = ", ".join(f"{task} {value:.3f}" for task, value in accuracy.items())
        self.report.note(f"{self.run.name}: iteration {iteration}, accuracy on val: {found}")

    def skipped(self, training: Training) -> None:
        """The corrupt samples that this process has passed over."""
        found = list(training.skipping.found)
        if not found:
            return
        self.log({"event": "skipped", "iteration": training.iteration, "samples": found})
        self.report.note(f"{self.run.name}: {len(found)} corrupt samples were skipped: {'; '.join(found)}")

    def save(self, training: Training) -> None:
        """A checkpoint.

        Raises:
            DivergedError, RunError: as checkpoint.save does.
        """
        if self.board:
            checkpoint.save(self.run.checkpoints, training.iteration, training.state())
        self.state("running", training.iteration)


@contextmanager
def journal(run: Run, report: Reporter, iteration: int, *, kept: bool) -> Iterator[Journal]:
    """The journal of a run that is at this iteration; `kept` where this rank is the one that writes.

    What TensorBoard was told of later iterations, before a kill, is hidden.
    """
    if not kept:
        yield Journal(run, report, None)
        return
    with writing(run.path / "tensorboard"):
        board = SummaryWriter(str(run.path / "tensorboard"), purge_step=iteration + 1)
    try:
        yield Journal(run, report, board)
    finally:
        with writing(run.path / "tensorboard"):
            board.close()


def glance(event: Mapping[str, Any], classes: Mapping[str, int]) -> str:
    """A window in a few words. The slowest task is the one whose loss is highest beside that of guessing."""
    rates = " ".join(f"{name} {rate:.2g}" for name, rate in event["lr"].items())
    slowest = max(event["tasks"], key=lambda task: event["tasks"][task] / math.log(max(classes[task], 2)))
    return f"loss {event['loss']:.3f}, lr {rates}, slowest {slowest} {event['tasks'][slowest]:.3f}"
