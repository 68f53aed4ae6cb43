"""Multi-task training: a configuration in, a run folder with the shared network's weights out.

A run that was stopped or killed goes on from its newest checkpoint, and ends with the weights that it would have ended
with anyway, bit for bit.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain import provenance
from mtrain.backbones import catalog
from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig
from mtrain.data import sampling
from mtrain.data.pool import Pool, fetch_shards, leave_out, open_pool, training_on
from mtrain.errors import RunError, UsageError
from mtrain.model import batchnorm_adapt, batchnorm_per_task, tuning
from mtrain.model.batchnorm_sync import synchronize
from mtrain.model.heads import save_heads
from mtrain.model.names import remark
from mtrain.model.network import MultiHead, SharedNetwork, check_size, shared_network
from mtrain.model.tensor_file import not_finite, write_tensors
from mtrain.model.weights import State as TensorState
from mtrain.model.weights import read_weights, save_weights
from mtrain.runs import Run, State
from mtrain.train import checkpoint
from mtrain.train.compilation import compiled
from mtrain.train.distributed import ALONE, Ranks, Vote
from mtrain.train.journal import Journal, journal
from mtrain.train.memory import memory
from mtrain.train.meter import Meter
from mtrain.train.signals import passed_on
from mtrain.train.trainer import Training


def fit(config: FitConfig, run: Run, report: Reporter, ranks: Ranks = ALONE, pool: Pool | None = None) -> State:
    """Train, or go on with, the run: "finished", or "stopped" with a checkpoint when a signal asked for it.

    With several ranks each calls this; the first writes. `pool`: in place of what lies in `config.shards`.

    Raises:
        UsageError, ShardError: options or shards that cannot be used.
        RunError: the run belongs to other settings, shards or another process, the training has diverged, or the disk
            is full.
    """
    given = pool
    pool, left, notes = leave_out(given or open_pool(config.shards), config.leave_out)
    if given is None:
        pool = _sets_to_train_on(config, pool)
    _check_pool(pool)
    _check_division(config, ranks)
    for note in (*pool.notes, *notes):
        report.note(note)
    network = _network(config, run)
    about = provenance.about(config, pool, left, ranks.size, network)
    with run.locked() if ranks.first else nullcontext():
        if ranks.told(lambda: _finished(run, about, report)):
            return "finished"
        training = _training(config, network, pool, run, report, ranks)
        for note in (*_about_sets(config, pool), *filter(None, [remark(config.backbone)])):
            report.note(note)
        if ranks.first:
            run.write("config.json", about)
        with (
            _stop_asked(ranks) as asked,
            journal(run, report, training.iteration, kept=ranks.first) as kept,
            _too_small_a_machine(),
        ):
            _loop(training, kept, asked)
            return _end(training, kept)


def _sets_to_train_on(config: FitConfig, pool: Pool) -> Pool:
    """The pool whose training sets are those that the settings ask for.

    Raises:
        UsageError: a target of `joint` that is not in the pool, or test sets.
    """
    splits = config.train_on.split("+")
    if "test" in splits:
        raise UsageError("test sets are trained on by `mtrain release` alone", found=f"--train-on {config.train_on}")
    return training_on(pool, splits, but=config.joint)


def _about_sets(config: FitConfig, pool: Pool) -> Iterator[str]:
    """What to say of sets that are trained on beside the training sets."""
    tasks = [task for task in pool.tasks if "val" in task.trains]
    if not tasks:
        return
    kept = [task.name for task in pool.tasks if "val" not in task.trains]
    but = f", of {', '.join(kept)} the training set alone" if kept else ""
    curves = "" if kept or not config.validate_every else "; nothing is left to validate on (--train-on train does)"
    yield f"trained on: {', '.join(tasks[0].trains)} of {counted(len(tasks), 'task')}{but}{curves}"


def _finished(run: Run, about: dict[str, Any], report: Reporter) -> bool:
    """Whether there is nothing to do; refuses a run that is another one."""
    if run.exists:
        provenance.check_same(run, about)
    if run.state()[0] == "finished":
        lost = _lost(run)
        if lost is None:
            report.note(f"{run.name}: finished already, nothing to do")
            return True
        report.note(f"{lost}; it is made again")
        _check_can_be_made_again(run, lost)
    elif run.state()[1] and not checkpoint.newest(run.checkpoints):
        report.note(f"{run.name}: neither weights nor a checkpoint are left: the run begins anew")
    if run.exists and (note := provenance.other_division(run, about)):
        report.note(note)
    return False


def _lost(run: Run) -> str | None:
    """Which of the files that a finished run leaves is gone or damaged, in words."""
    for path in (run.weights, run.heads):
        try:
            read_weights(path)
        except RunError as error:
            return f"{path}: {error.what}"
    return None


def _check_can_be_made_again(run: Run, lost: str) -> None:
    """Nothing, if a checkpoint of the end is there; weights that are still good are not trained again over its lack."""
    for path in checkpoint.newest(run.checkpoints):
        try:
            checkpoint.load(path)
        except RunError:
            continue
        return
    remedy = f"remove {run.weights} to train the run again, or name another --run"
    raise RunError(f"{lost}, and no checkpoint is left to make it from", remedy=remedy)


def _loop(training: Training, journal: Journal, asked: Sequence[int]) -> None:
    """Step, log, validate, save, stop?"""
    config, ranks = training.config, training.ranks
    meter, vote = Meter(training.tasks, ranks), Vote(ranks)
    numbers = range(training.iteration, config.iterations)
    journal.state("running", training.iteration)
    with journal.report.bar(journal.run.name, config.iterations, done=training.iteration, unit="iterations") as advance:
        for parts in meter.timed(training.iterations(numbers)):
            warming = training.warming
            meter.add(training.step(*parts), training.counts)
            advance()
            stop, last = vote(bool(asked)), training.iteration == config.iterations
            if last or _due(training, config.log_every):
                now = {"lr": training.rates, "memory": memory(training.device), "warmup": warming}
                journal.step(meter.take(training.iteration) | now, training, advance)
            with meter.paused():
                if config.validate_every and not stop and (last or _due(training, config.validate_every)):
                    stop = not _validate(training, journal, asked)
                if last or stop or _due(training, config.checkpoint_every):
                    meter.check(training.iteration)
                    journal.save(training)
            if stop:
                break
    vote.count()


def _due(training: Training, every: int) -> bool:
    return training.iteration % every == 0


def _validate(training: Training, journal: Journal, asked: Sequence[int]) -> bool:
    """Whether it came to its end."""
    accuracy = training.validate(enough=lambda: bool(asked))
    if accuracy is not None:
        journal.validation(accuracy, training.iteration)
    return accuracy is not None


def _end(training: Training, journal: Journal) -> State:
    """The state that the run is left in; the weights come before the word that they are there."""
    state: State = "finished" if training.iteration == training.config.iterations else "stopped"
    if state == "finished" and training.ranks.first:
        run, shared = journal.run, training.model.shared
        batchnorm_per_task.merge(shared)
        with training.averaged():
            save_heads(run.heads, training.model.heads, training.pool.tasks)
            trained_on = {task.name: task.trains for task in training.pool.tasks}
            about = {"run": run.name, "pool": training.pool.digest, "trained_on": trained_on}
            if adapter := tuning.adapter_state(shared.body):
                write_tensors(run.adapter, adapter, {"backbone": shared.name, "tune": training.config.tune, **about})
            save_weights(tuning.merged_state(shared.body), run.weights, shared.name, **about)
    journal.skipped(training)
    journal.state(state, training.iteration)
    return state


def _network(config: FitConfig, run: Run) -> str | BackboneCard:
    """What the shared network is built from: a run that goes on has its own table, though its file may be gone."""
    if run.exists and run.config().backbone == config.backbone and not Path(config.backbone).exists():
        return run.network()
    card = catalog.described(config.backbone, config.backbone_options)
    if card is not None and (fault := card.size_fault(config.size)):
        raise UsageError(fault, found=f"--size {config.size}")
    return card or config.backbone


def _training(
    config: FitConfig, network: str | BackboneCard, pool: Pool, run: Run, report: Reporter, ranks: Ranks
) -> Training:
    """A training at its start, or where the newest readable checkpoint of the run is.

    Of several ranks the first finds weights or checkpoint, and tells the others.
    """
    device = ranks.device(config.device)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # else the same iteration gives other bits the second time
    torch.manual_seed(config.seed)
    saved = _newest_readable(run, report) if ranks.first else None
    done = ranks.told(lambda: 0 if saved is None else saved[1])
    begins = ranks.first and saved is None
    shared = shared_network(network, config.weights if begins else "random", config.weights_key if begins else None)
    check_size(shared, config.size)
    _check_start(shared, config.weights)
    tuning.prepare(shared.body, config.tune, shared.name)
    if config.layer_decay is not None:
        tuning.by_layer(shared.body, config.layer_decay, shared.name)
    if config.checkpointing:
        tuning.check_pointing(shared.body, shared.name)
    model = MultiHead(shared, {task.name: task.num_classes for task in pool.tasks})
    if config.sync_batchnorm and not ranks.alone:
        synchronize(shared, device)
    model = model.to(device).to(memory_format=torch.channels_last)
    if not config.stream:
        splits = {split for task in pool.tasks for split in task.trains} | ({"val"} if config.validate_every else set())
        fetch_shards(pool.tasks, sorted(splits), report)
    training = Training(config, pool, model, device, done, ranks)
    training.skipping.note = report.note
    if saved is None and ranks.first:
        _adapt(training, run, report)
    if config.batchnorm == "per-task":
        batchnorm_per_task.split(shared, len(pool.tasks))
    if saved is not None:
        training.restore(saved[0])
        report.note(f"{run.name}: goes on after iteration {done} of {config.iterations}")
    if not ranks.alone:
        training.restore(ranks.told_state(training.state()))
    if config.compile and config.tune != "heads":
        training.features = compiled(shared, training.example(), report.note)
    return training


def _adapt(training: Training, run: Run, report: Reporter) -> None:
    """Batch-normalization adaptation, on batches of their own; alone, whatever the number of ranks."""
    config, shared = training.config, training.model.shared
    numbers = range(config.adapt_batches)
    if not numbers or not config.adapts or config.tune == "heads":
        return
    if not batchnorm_adapt.layers_of(shared):
        report.note(f"{run.name}: {shared.name} has no batch normalization to adapt")
    else:
        drawn = training.drawn(numbers, sampling.Stream.ADAPT, [range(config.batch)])
        layers = batchnorm_adapt.adapt(shared, (training.prepare(batch) for batch in drawn))
        report.note(f"{run.name}: {layers} batch-normalization layers adapted to the pool")


def _check_start(shared: SharedNetwork, weights: str) -> None:
    """Raises:
    RunError: weights to start from that no training could mend.
    """
    if broken := not_finite(shared.body.state_dict()):
        raise RunError(f"weights that are not finite: {broken[0]}", where=weights, remedy="give others with --weights")


def _newest_readable(run: Run, report: Reporter) -> tuple[TensorState, int] | None:
    found = checkpoint.newest(run.checkpoints)
    for number, path in enumerate(found, start=1):
        try:
            return checkpoint.load(path)
        except RunError as error:
            instead = "the one before is used" if number < len(found) else "there is none before: the run begins anew"
            report.note(f"{error}; {instead}")
    return None


def _check_division(config: FitConfig, ranks: Ranks) -> None:
    parts = ranks.size * config.accumulate
    if config.batch < 2 * parts:  # batch normalization has no variance to learn from in one sample
        raise UsageError(
            f"--batch {config.batch} is too small for {ranks.size} processes with --accumulate {config.accumulate}",
            remedy=f"give --batch {2 * parts} or more",
        )


def _check_pool(pool: Pool) -> None:
    for task in pool.tasks:
        if not len(task.rows["train"]):
            raise UsageError("this task has no training set", where=task.folder, remedy="leave it out with --leave-out")


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


def _stop_asked(ranks: Ranks) -> AbstractContextManager[list[int]]:
    """A list that Ctrl-C and SIGTERM fill, to stop after the iteration under way; a second Ctrl-C interrupts.

    Not so under torchrun, which passes on what the terminal has already sent to all.
    """

    def next_one_interrupts() -> None:
        if ranks.alone:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    return passed_on(next_one_interrupts)
