"""Multi-task training: a configuration in, a run folder with the shared network's weights out.

A run that was stopped or killed resumes from its newest checkpoint. It ends with the weights of an uninterrupted run,
bit for bit.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain import provenance
from mtrain.config import FitConfig
from mtrain.data.choice import check_joint, chosen
from mtrain.data.labels import scaling_of
from mtrain.data.pool import Pool, leave_out, open_pool, training_on
from mtrain.errors import UsageError
from mtrain.model.devices import device_failures_reported
from mtrain.model.weight_files.weights import seen_by
from mtrain.runs.run_folder import SOUP, Run, RunState
from mtrain.train import checkpoint
from mtrain.train.backward import conflicts, task_gradients
from mtrain.train.distributed import SINGLE_PROCESS, Ranks, Vote
from mtrain.train.ending import check_recoverable, lost, restore_state, write_weights
from mtrain.train.reporting.journal import Journal, journal
from mtrain.train.reporting.memory import memory
from mtrain.train.reporting.meter import Meter
from mtrain.train.reporting.remarks import remarks
from mtrain.train.signals import passed_on
from mtrain.train.start import begin, network_of
from mtrain.train.trainer import Training


def fit(
    config: FitConfig,
    run: Run,
    report: Reporter,
    ranks: Ranks = SINGLE_PROCESS,
    pool: Pool | None = None,
    *,
    trackers: Sequence[str] = (),
) -> RunState:
    """Train the run, or resume it. Returns "finished", or "stopped" if a signal stopped it with a checkpoint.

    trackers: services that also receive the numbers of the log ("wandb", "mlflow").

    With several ranks, each calls this, and the first one writes. `pool` replaces the tasks in `config.shards`.

    Raises:
        UsageError, ShardError: the settings or the shards cannot be used.
        RunError: the run has other settings or shards, or another process is training it; the training has diverged;
            or the disk is full.
    """
    conflicts.check_installed(config.gradients)
    given = pool
    whole = given or open_pool(config.shards)
    pool, left, notes = leave_out(whole, config.leave_out)
    pool, choice, choosing = chosen(whole, pool, config, run.choice() if run.exists else None)
    if given is None:
        check_joint(whole, pool, config.joint)
        pool = _sets_to_train_on(config, pool)
    _check_pool(pool)
    for task in pool.tasks:
        scaling_of(task)  # numbers that are all equal cannot be learnt
    _check_dense(config, pool)
    _check_division(config, ranks)
    for note in (*pool.notes, *notes, *choosing):
        report.once(note)
    network = network_of(config, run)
    start = run.started_from() if run.exists else seen_by(config.weights, network)
    about = provenance.about(config, pool, left, ranks.size, start, network, choice)
    with run.locked() if ranks.first else nullcontext():
        if ranks.broadcast(lambda: _finished(run, about, report)):
            return "finished"
        for note in pool.empty_sets:
            report.once(note)
        training = begin(config, network, pool, run, report, ranks)
        for note in remarks(config, pool, start, left):
            report.once(note)
        if ranks.first:
            run.write("config.json", about)
        with (
            _stop_signals(ranks) as received,
            journal(run, report, training.iteration, kept=ranks.first, trackers=trackers) as kept,
            device_failures_reported(),
        ):
            _loop(training, kept, received)
            return _end(training, kept)


def _sets_to_train_on(config: FitConfig, pool: Pool) -> Pool:
    """The pool, with the training sets that the settings request.

    Raises:
        UsageError: a target of `joint` is not in the pool, or test sets are requested.
    """
    splits = config.train_on.split("+")
    if "test" in splits:
        raise UsageError("only `mtrain release` trains on test sets", found=f"--train-on {config.train_on}")
    return training_on(pool, splits, but=config.joint)


def _finished(run: Run, about: dict[str, Any], report: Reporter) -> bool:
    """Whether the run is finished already. Refuses a run with other settings or shards."""
    if run.exists:
        _check_trained(run)
        provenance.check_same(run, about)
        restore_state(run, report.note)
    if run.state()[0] == "finished":
        fault = lost(run)
        if fault is None:
            report.note(f"{run.label}: already finished, nothing to do")
            return True
        report.note(f"{fault}; it is written again")
        check_recoverable(run, fault)
    elif run.state()[1] and not checkpoint.newest(run.checkpoints):
        report.note(f"{run.label}: neither weights nor a checkpoint exist: the run starts from the beginning")
    if run.exists and (note := provenance.other_division(run, about)):
        report.note(note)
    return False


def _check_trained(run: Run) -> None:
    """Raises:
    UsageError: nothing has trained the run, so there is nothing to resume.
    """
    if SOUP in run.about():
        raise UsageError(
            "this run was made of other runs, not trained",
            where=run.path,
            remedy=f"train another from it with --weights {run.weights}",
        )


def _loop(training: Training, journal: Journal, signals: Sequence[int]) -> None:
    """Iterate: step, log, validate, save, and stop when a signal was received."""
    config, ranks = training.config, training.ranks
    meter, vote = Meter(training.tasks, ranks), Vote(ranks)
    meter.restore(training.measured, training.device)
    numbers = range(training.iteration, config.iterations)
    journal.state("running", training.iteration)
    with journal.report.bar(
        journal.run.label, config.iterations, done=training.iteration, unit="iterations"
    ) as advance:
        for parts in meter.timed(training.iterations(numbers), training.waited):
            warming = training.warming
            if _measures_cosines(training):
                with meter.paused():
                    journal.log(task_gradients.event(training.iteration + 1, training.cosines(*parts)))
            meter.add(training.step(*parts), training.counts)
            advance()
            stop, last = vote(bool(signals)), training.iteration == config.iterations
            if last or _due(training, config.log_every):
                now = {"lr": training.rates, "memory": memory(training.device), "warmup": warming}
                journal.step(meter.take(training.iteration) | now, training, advance)
            with meter.paused():
                if config.validate_every and not stop and (last or _due(training, config.validate_every)):
                    stop = not _validate(training, journal, signals)
                if last or stop or _due(training, config.checkpoint_every):
                    journal.save(training, meter.state(meter.check(training.iteration)))
            if stop:
                break
    vote.count()


def _due(training: Training, every: int) -> bool:
    return training.iteration % every == 0


def _measures_cosines(training: Training) -> bool:
    """Whether the cosines of the tasks' gradients are logged for the next iteration."""
    every = training.config.log_cosines
    return every > 0 and not (training.iteration + 1) % every and not training.still and len(training.tasks) > 1


def _validate(training: Training, journal: Journal, signals: Sequence[int]) -> bool:
    """Whether the validation was completed; a signal cuts it short."""
    accuracy = training.validate(enough=lambda: bool(signals))
    dense = None if accuracy is None else training.validate_dense(enough=lambda: bool(signals))
    if accuracy is not None and dense is not None:
        journal.validation(accuracy, training.iteration, dense)
    return dense is not None


def _end(training: Training, journal: Journal) -> RunState:
    """Write the weights of a finished run, then its state, and return the state."""
    state: RunState = "finished" if training.iteration == training.config.iterations else "stopped"
    if state == "finished" and training.ranks.first:
        write_weights(training, journal.run)
    journal.skipped(training)
    journal.state(state, training.iteration)
    return state


def _check_division(config: FitConfig, ranks: Ranks) -> None:
    if config.features == "cached" and not ranks.alone:
        raise UsageError(
            "--features cached trains in one process",
            found=f"{ranks.size} processes",
            remedy="run it without torchrun, or use --features online",
        )
    parts = ranks.size * config.accumulate
    if config.batch < 2 * parts:  # batch normalization has no variance to learn from in one sample
        among = f"{counted(ranks.size, 'process')} with --accumulate {config.accumulate}"
        raise UsageError(
            f"--batch {config.batch} is too small for {among}",
            remedy=f"give --batch {2 * parts} or more",
        )


def _check_pool(pool: Pool) -> None:
    for task in pool.tasks:
        if not len(task.rows["train"]):
            raise UsageError("this task has no training set", where=task.folder, remedy="leave it out with --leave-out")


def _check_dense(config: FitConfig, pool: Pool) -> None:
    if config.dense and not any(task.dense for task in pool.tasks):
        given = [f"{task.name} has only {' and '.join(task.unused)}" for task in pool.tasks if task.unused]
        (_, remedy), *_ = sorted(why for task in pool.tasks if (why := task.why_not_dense))
        raise UsageError(
            "--dense: no task of this pool has masks or exhaustive points",
            where=config.shards,
            found="; ".join(given) or None,
            remedy=f"{remedy}; or omit --dense",
        )


def _stop_signals(ranks: Ranks) -> AbstractContextManager[list[int]]:
    """A list that records Ctrl-C and SIGTERM, so that training stops after the current iteration.

    A second Ctrl-C interrupts at once, except under torchrun, which repeats the signal that the terminal sent to all.
    """

    def next_one_interrupts() -> None:
        if ranks.alone:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    return passed_on(next_one_interrupts)
