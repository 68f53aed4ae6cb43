"""What a training writes to its run folder and prints while it runs. With several ranks, only the first one does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from dpconvert.runtime.progress import Advance, Reporter
from mtrain.disk.atomic import writing
from mtrain.model.weight_files.weights import StateDict
from mtrain.runs.belonging import settings_digest, write_state
from mtrain.runs.run_folder import Run, RunState
from mtrain.scoring.metrics import METRICS
from mtrain.train import checkpoint
from mtrain.train.reporting.tracking import Tracker, tracking
from mtrain.train.trainer import Training
from mtrain.used import mark

OF_DENSE = ("dice", "f1")
MUCH_WAITING = 0.2  # share of a window's time


class Journal:
    """Writes events, states and checkpoints of one run."""

    def __init__(
        self, run: Run, report: Reporter, board: SummaryWriter | None, trackers: Sequence[Tracker] = ()
    ) -> None:
        self.run, self.report, self.board, self.trackers = run, report, board, trackers
        self.waited = False

    def state(self, state: RunState, iteration: int) -> None:
        """Write the state that `mtrain runs` prints."""
        if self.board:
            write_state(self.run, state, iteration)

    def log(self, event: dict[str, Any]) -> None:
        """Append a line to log.jsonl, and write its numbers for TensorBoard and the trackers."""
        if not self.board:
            return
        self.run.log(event)
        numbers = numbers_of(event)
        with writing(self.run.path / "tensorboard"):
            for name, number in numbers.items():
                self.board.add_scalar(name, number, event["iteration"])
        for tracker in self.trackers:
            tracker.log(numbers, event["iteration"])

    def step(self, event: dict[str, Any], training: Training, advance: Advance) -> None:
        """Log the iterations since the last call: an event of `Meter.take`."""
        self.log(event)
        classes = {t.name: t.num_classes if t.target == "class" else math.e for t in training.pool.tasks}
        advance(0, glance(event, classes))
        self._note_waiting(event["wait"], training)

    def _note_waiting(self, share: float, training: Training) -> None:
        """Print a note when the training starts to wait much for data, but not again while it continues to."""
        much, before, self.waited = share > MUCH_WAITING, self.waited, share > MUCH_WAITING
        starting = training.iteration <= 1  # the loader's processes have just been started
        if starting:
            self.waited = False
        elif much and not before and training.config.features == "online":
            self.report.note(
                f"{self.run.label}: at iteration {training.iteration}, {share:.0%} of the time is spent waiting for "
                f"data; more --workers (now {training.config.workers}), smaller stored images or a faster disk help"
            )

    def validation(
        self, accuracy: Mapping[str, float], iteration: int, dense: Mapping[str, Mapping[str, float]] | None = None
    ) -> None:
        """Log the accuracy of each task on images of its validation set, and its Dice and F1 if it has masks or points:
        task -> metric -> value.
        """
        if not accuracy:
            return
        scored = {
            metric: {task: scores[metric] for task, scores in (dense or {}).items() if metric in scores}
            for metric in OF_DENSE
        }
        scored = {metric: of_tasks for metric, of_tasks in scored.items() if of_tasks}
        self.log({"event": "validation", "iteration": iteration, "accuracy": dict(accuracy), **scored})
        for metric, of_tasks in scored.items():
            values = ", ".join(f"{task} {value:.3f}" for task, value in of_tasks.items())
            self.report.note(f"{self.run.label}: iteration {iteration}, {METRICS[metric]} on val: {values}")
        values = ", ".join(f"{task} {value:.3f}" for task, value in accuracy.items())
        self.report.note(f"{self.run.label}: iteration {iteration}, accuracy on val: {values}")

    def skipped(self, training: Training) -> None:
        """Log the corrupt samples that this process has skipped."""
        samples = list(training.skipping.found)
        if not samples:
            return
        self.log({"event": "skipped", "iteration": training.iteration, "samples": samples})
        self.report.note(f"{self.run.label}: {len(samples)} corrupt samples were skipped: {'; '.join(samples)}")

    def save(self, training: Training, since: StateDict | None = None) -> None:
        """Write a checkpoint. since: the state of the meter, which measures since the last event.

        Raises:
            DivergedError, RunError: as checkpoint.save does.
        """
        if self.board:
            settings = settings_digest(self.run)
            checkpoint.save(self.run.checkpoints, training.iteration, training.state() | (since or {}), settings)
        self.state("running", training.iteration)


@contextmanager
def journal(
    run: Run, report: Reporter, iteration: int, *, kept: bool, trackers: Sequence[str] = ()
) -> Iterator[Journal]:
    """The journal of a run that is at this iteration; `kept` is true on the rank that writes it. trackers: names of
    services of `mtrain.train.reporting.tracking` that also receive its numbers.

    Events of later iterations, which a killed process may have written, are removed from log.jsonl and hidden by
    TensorBoard.
    """
    if not kept:
        yield Journal(run, report, None)
        return
    run.forget_events_after(iteration)
    with writing(run.path / "tensorboard"):
        board = SummaryWriter(str(run.path / "tensorboard"), purge_step=iteration + 1)
    settings = settings_of(run)
    try:
        with writing(run.path / "tensorboard"):
            _write_settings(board, settings)
        mark("trackers")
        with tracking(trackers, run, settings) as services:
            yield Journal(run, report, board, services)
    finally:
        with writing(run.path / "tensorboard"):
            board.close()


def numbers_of(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an event by name: "loss", "tasks/Lung", "lr/shared", "memory/host"."""
    parts = {name: value if isinstance(value, dict) else {"": value} for name, value in event.items()}
    return {
        f"{name}/{part}".rstrip("/"): number
        for name, values in parts.items()
        for part, number in values.items()
        if isinstance(number, float)
    }


def settings_of(run: Run) -> dict[str, bool | float | str]:
    """The settings of a run as services and TensorBoard take them: lists and missing values as text."""
    config: dict[str, Any] = run.about().get("config", {})
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in config.items()
    }


def _write_settings(board: SummaryWriter, settings: Mapping[str, bool | float | str]) -> None:
    """Write the settings for TensorBoard's table of hyper-parameters, which shows the loss beside them."""
    # add_hparams would open a second run in TensorBoard
    for part in hparams(dict(settings), {"loss": 0.0}):  # type: ignore[no-untyped-call]
        board._get_file_writer().add_summary(part)  # type: ignore[no-untyped-call]


def glance(event: Mapping[str, Any], classes: Mapping[str, float]) -> str:
    """A summary of an event: its loss, and the task whose loss is the highest share of guessing's, ln(classes).

    classes: their number; e for tasks whose loss is scaled so that guessing gives 1.
    """
    rates = " ".join(f"{name} {rate:.2g}" for name, rate in event["lr"].items())
    shares = {task: loss / math.log(max(classes[task], 2)) for task, loss in event["tasks"].items()}
    highest = max(shares, key=lambda task: shares[task])
    relative = f"{highest} {event['tasks'][highest]:.3f} ({shares[highest]:.0%} of guessing)"
    return f"loss {event['loss']:.3f}, highest relative loss {relative}, lr {rates}"
