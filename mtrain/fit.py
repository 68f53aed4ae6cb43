"""Multi-task training: a configuration in, a run folder with the shared network's weights out.

A run that was stopped or killed goes on from its newest checkpoint, and ends with the weights that it would have ended
with anyway, bit for bit.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from dpconvert.progress import Reporter
from mtrain import batchnorm, checkpoint, sampling
from mtrain.atomic import writing
from mtrain.config import INCIDENTAL, FitConfig
from mtrain.errors import RunError, UsageError
from mtrain.meter import Meter
from mtrain.network import MultiHead, check_size, find_device, shared_network
from mtrain.pool import Pool, Task, leave_out, open_pool
from mtrain.runs import Run, State
from mtrain.training import Training
from mtrain.versions import versions
from mtrain.weights import State as TensorState
from mtrain.weights import save_weights


def fit(config: FitConfig, run: Run, report: Reporter) -> State:
    """Train, or go on with, the run: "finished", or "stopped" with a checkpoint when a signal asked for it.

    Raises:
        UsageError, ShardError: options or shards that cannot be used.
        RunError: the run belongs to other settings, shards or another process, the training has diverged, or the disk
            is full.
    """
    pool, left, notes = leave_out(open_pool(Path(config.shards)), config.leave_out)
    _check_pool(pool)
    for note in notes:
        report.note(note)
    about = _about(config, pool, left)
    with run.locked():
        if run.exists:
            _check_same(run, about)
        if run.state()[0] == "finished":
            report.note(f"{run.name}: finished already, nothing to do")
            return "finished"
        training = _training(config, pool, run, report)
        run.write("config.json", about)
        with _stop_asked() as stop, _board(run, training.iteration) as board, _too_small_a_machine():
            _loop(training, run, report, stop, board)
        return _end(training, run)


def _loop(training: Training, run: Run, report: Reporter, stop: Sequence[int], board: SummaryWriter) -> None:
    """Step, log, validate, save, stop?"""
    config, meter = training.config, Meter(training.tasks)
    numbers = range(training.iteration, config.iterations)
    _note_state(run, "running", training)
    with report.bar(run.name, config.iterations, done=training.iteration, unit="iterations") as advance:
        for batch in meter.timed(training.drawn(numbers)):
            warming = training.warming
            meter.add(training.step(batch), batch.counts)
            advance()
            last = training.iteration == config.iterations
            if last or _due(training, config.log_every):
                event = meter.take(training.iteration)
                advance(0, f"loss {event['loss']:.3f}")
                _log(run, board, event | {"warmup": warming})
            with meter.paused():
                if config.validate_every and not stop and (last or _due(training, config.validate_every)):
                    _validate(training, run, report, stop, board)
                if last or stop or _due(training, config.checkpoint_every):
                    meter.check(training.iteration)
                    _save(training, run)
            if stop:
                return


def _save(training: Training, run: Run) -> None:
    state = checkpoint.training_state(training.model, training.optimizer)
    checkpoint.save(run.checkpoints, training.iteration, state)
    _note_state(run, "running", training)


def _due(training: Training, every: int) -> bool:
    return training.iteration % every == 0


def _end(training: Training, run: Run) -> State:
    """The state that the run is left in; the weights come before the word that they are there."""
    state: State = "finished" if training.iteration == training.config.iterations else "stopped"
    if state == "finished":
        shared = training.model.shared
        save_weights(shared.body, run.weights, shared.name, run=run.name, pool=training.pool.digest)
    _note_state(run, state, training)
    return state


def _training(config: FitConfig, pool: Pool, run: Run, report: Reporter) -> Training:
    """A training at its start, or where the newest readable checkpoint of the run is."""
    device = find_device(config.device)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # else the same iteration gives other bits the second time
    torch.manual_seed(config.seed)
    saved = _newest_readable(run, report)
    shared = shared_network(config.backbone, config.weights if saved is None else "random")
    check_size(shared, config.size)
    model = MultiHead(shared, {task.name: task.num_classes for task in pool.tasks})
    model = model.to(device).to(memory_format=torch.channels_last)
    if saved is None:
        training = Training(config, pool, model, device)
        _adapt(training, run, report)
        return training
    state, done = saved
    training = Training(config, pool, model, device, done)
    checkpoint.restore(model, training.optimizer, state)
    report.note(f"{run.name}: goes on after iteration {done} of {config.iterations}")
    return training


def _adapt(training: Training, run: Run, report: Reporter) -> None:
    """Batch-normalization adaptation, on batches of their own."""
    numbers = range(training.config.adapt_batches)
    if numbers:
        drawn = training.drawn(numbers, sampling.Stream.ADAPT)
        layers = batchnorm.adapt(training.model.shared, (training.prepare(batch) for batch in drawn))
        report.note(f"{run.name}: {layers} batch-normalization layers adapted to the pool")


def _newest_readable(run: Run, report: Reporter) -> tuple[TensorState, int] | None:
    found = checkpoint.newest(run.checkpoints)
    for number, path in enumerate(found, start=1):
        try:
            return checkpoint.load(path)
        except RunError as error:
            instead = "the one before is used" if number < len(found) else "there is none before: the run begins anew"
            report.note(f"{error}; {instead}")
    return None


def _about(config: FitConfig, pool: Pool, left: Sequence[Task]) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "pool": {task.name: task.card.digest for task in pool.tasks},
        "left_out": [task.name for task in left],
        "versions": versions(),
    }


def _check_same(run: Run, about: dict[str, Any]) -> None:
    """Refuse to go on with other settings or shards, by name of what differs."""
    there = run.about()
    settings, pool = there.get("config", {}), there.get("pool", {})
    differ = [
        f"{name} ({settings.get(name)!r} there, {value!r} asked for)"
        for name, value in about["config"].items()
        if name not in INCIDENTAL and settings.get(name) != value
    ]
    if there.get("left_out") != about["left_out"]:
        wordings = [", ".join(names) or "none" for names in (there.get("left_out", []), about["left_out"])]
        differ.append("tasks left out ({} there, {} asked for)".format(*wordings))
    changed = sorted(name for name in pool.keys() & about["pool"].keys() if pool[name] != about["pool"][name])
    if changed:
        differ.append(f"the shards of {', '.join(changed)}")
    if not differ and pool.keys() != about["pool"].keys():
        differ.append(f"the tasks of the pool ({', '.join(sorted(pool.keys() ^ about['pool'].keys()))})")
    if differ:
        raise RunError(
            f"this run has other settings: {'; '.join(differ)}", where=run.path,
            remedy="give the run's own settings to go on with it, or another --run name",
        )  # fmt: skip


def _note_state(run: Run, state: State, training: Training) -> None:
    run.write("state.json", {"state": state, "iteration": training.iteration})


def _validate(training: Training, run: Run, report: Reporter, stop: Sequence[int], board: SummaryWriter) -> None:
    accuracy = training.validate(enough=lambda: bool(stop))
    if accuracy:
        _log(run, board, {"event": "validation", "iteration": training.iteration, "accuracy": accuracy})
        found = ", ".join(f"{task} {value:.3f}" for task, value in accuracy.items())
        report.note(f"{run.name}: iteration {training.iteration}, accuracy on val: {found}")


def _log(run: Run, board: SummaryWriter, event: dict[str, Any]) -> None:
    run.log(event)
    with writing(run.path / "tensorboard"):
        for name, value in event.items():
            for task, number in (value if isinstance(value, dict) else {"": value}).items():
                if isinstance(number, float):
                    board.add_scalar(f"{name}/{task}".rstrip("/"), number, event["iteration"])


@contextmanager
def _board(run: Run, iteration: int) -> Iterator[SummaryWriter]:
    """TensorBoard's writer; what was written for later iterations, before a kill, is hidden."""
    with writing(run.path / "tensorboard"):
        board = SummaryWriter(str(run.path / "tensorboard"), purge_step=iteration + 1)
    try:
        yield board
    finally:
        with writing(run.path / "tensorboard"):
            board.close()


def _check_pool(pool: Pool) -> None:
    reserved = nn.ModuleDict()
    for task in pool.tasks:
        if not len(task.rows["train"]):
            raise UsageError("this task has no training set", where=task.folder, remedy="leave it out with --leave-out")
        if hasattr(reserved, task.name):
            raise UsageError(
                "torch does not allow this name for a head", where=task.folder, remedy="convert it under another name"
            )


@contextmanager
def _too_small_a_machine() -> Iterator[None]:
    """What short memory makes of a sound training, in one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise RunError(
            "the memory of the device is too small for this",
            remedy="start another run with a smaller --batch or --size",
        ) from None
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # torch has no class for it
            raise
        raise RunError(
            "a loader process was killed, perhaps for lack of memory",
            remedy="run the same command again, with fewer --workers",
        ) from None


@contextmanager
def _stop_asked() -> Iterator[list[int]]:
    """A list that Ctrl-C and SIGTERM fill, to stop after the iteration under way; a second Ctrl-C interrupts."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(received: int, _frame: object) -> None:
        asked.append(received)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        for number in before:
            signal.signal(number, ask)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
