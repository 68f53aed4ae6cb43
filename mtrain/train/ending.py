"""The files that a finished training leaves, and what is to be done where one of them is missing or of another run."""

from __future__ import annotations

from collections.abc import Callable

from mtrain.errors import RunError
from mtrain.model import low_rank
from mtrain.model.batchnorm import batchnorm_per_task
from mtrain.model.dense.dense_file import save_dense
from mtrain.model.frozen import saved_digest
from mtrain.model.heads import save_heads
from mtrain.model.weight_files.tensor_file import write_tensors
from mtrain.model.weight_files.weights import read_weights, save_weights
from mtrain.runs.belonging import (
    NETWORK,
    SETTINGS,
    check_part,
    check_weights,
    has_foreign_state,
    header,
    settings_digest,
    write_state,
)
from mtrain.runs.run_folder import STATE, Run
from mtrain.train import checkpoint
from mtrain.train.trainer import Training


def write_weights(training: Training, run: Run) -> None:
    """Write heads, decoder, low-rank updates and, last, the shared network of a finished training.

    Raises:
        RunError: a file cannot be written.
    """
    shared, pool = training.model.shared, training.pool
    batchnorm_per_task.merge(shared)
    with training.averaged():
        merged = low_rank.merged_state(shared.body)
        network = saved_digest(shared, merged)
        save_heads(run.heads, training.model.heads, pool.tasks, network)
        about = {"run": run.name, "pool": pool.digest, NETWORK: network, **run.seen().json()}
        if training.model.dense is not None:
            save_dense(run.dense, training.model.dense, {"backbone": shared.name, **about})
        if adapter := low_rank.adapter_state(shared.body):
            write_tensors(run.adapter, adapter, {"backbone": shared.name, "tune": training.config.tune, **about})
        save_weights(merged, run.weights, shared.name, **about, **{SETTINGS: settings_digest(run)})


def lost(run: Run) -> str | None:
    """An error text for the first file of a finished run that is missing, damaged or of another run; None if all are
    good.
    """
    for path in (run.weights, run.heads, *((run.dense,) if run.config().dense else ())):
        try:
            read_weights(path)
            if path == run.weights:
                check_weights(run)
            check_part(path, header(path))
        except RunError as error:
            return f"{path}: {error.what}"
    return None


def restore_state(run: Run, note: Callable[[str], None]) -> None:
    """Write the state of a run again, by its weights and checkpoints, if its file is that of another run."""
    if not has_foreign_state(run):
        return
    note(f"{run.path / STATE}: the state of another run; it is written again")
    if run.weights.is_file() and lost(run) is None:
        write_state(run, "finished", run.config().iterations)
    else:
        saved = checkpoint.newest(run.checkpoints)
        write_state(run, "stopped", checkpoint.iteration_of(saved[0]) if saved else 0)


def check_recoverable(run: Run, lost: str) -> None:
    """Raises unless a usable checkpoint exists: a finished run is not silently trained again from the beginning."""
    if checkpoint.newest_readable(run.checkpoints, lambda _text: None, settings_digest(run)) is None:
        remedy = f"remove {run.weights} to train the run again, or name another --run"
        raise RunError(f"{lost}, and no checkpoint exists to restore it from", remedy=remedy)
