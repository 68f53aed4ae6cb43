"""Run one cell: its warm-up if it is missing, its training and its transfers; then write one file with the scores."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from dpconvert.runtime.progress import Reporter
from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.disk.documents import write_document
from mtrain.errors import DivergedError, RunError, UserError
from mtrain.model.dense.maps import levels_of
from mtrain.model.devices import find_device
from mtrain.model.network import shared_network
from mtrain.runs.run_folder import Run
from mtrain.sweep.cells import Cell, check_unchanged, warmup_config
from mtrain.sweep.spec import Transfer
from mtrain.sweep.store import Store
from mtrain.train import checkpoint
from mtrain.train.fit import fit
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.request import OWN, targets
from mtrain.transfers.transfer import TransferOptions, source_of, transfer
from mtrain.versions import versions

KEPT = ("metric", "set", "score", "scores", "C", "objects", "notes")  # entries of a transfer's result

Outcome = Literal["done", "busy", "stopped"]


def attempt(store: Store, cell: Cell, report: Reporter) -> Outcome:
    """Run the cell unless it has a result; return "busy" while another process runs it or the warm-up that it needs.

    The failure of a training or a transfer is recorded as a result, not raised.

    Raises:
        RunError: the result cannot be written, or the shards have changed since the cell was planned.
    """
    if store.known(cell.digest, report.note) is not None:
        return "done"
    with store.claimed(cell.digest, store.run(cell.training)) as ours:
        if not ours:
            return "busy"
        if store.has(cell):  # finished since the first check
            return "done"
        check_unchanged(cell)
        try:
            return _run(store, cell, report)
        except UserError as error:
            report.note(f"{cell}: {error}")
            _write(store, cell, _outcome({}, dict.fromkeys(cell.tasks, error)) | {"seconds": 0.0})
            return "done"


def _run(store: Store, cell: Cell, report: Reporter) -> Outcome:
    begun = time.monotonic()
    run = replace(store.run(cell.training), title=str(cell))
    if not checkpoint.newest(run.checkpoints) and run.state()[0] != "finished":
        _check_maps(cell)
        outcome = _begin(store, cell, run, report)
        if outcome != "done":
            return outcome
    if fit(cell.config, run, report) == "stopped":
        return "stopped"
    scores, failures = _transfers(cell, run, report)
    for task, error in failures.items():
        report.note(f"{cell}: {task}: {error}")
    _write(store, cell, _outcome(scores, failures) | {"seconds": round(time.monotonic() - begun, 1)})
    for ended in (run, *map(store.run, cell.prefixes)):
        if cell.whole or ended != run:  # a longer training starts from the checkpoint of a shorter one
            shutil.rmtree(ended.checkpoints, ignore_errors=True)  # the weights are kept
    return "done"


def _check_maps(cell: Cell) -> None:
    """Raises:
    UsageError: the score needs maps inside the network, which it does not give. Told before it is trained.
    """
    if cell.transfer.mode == "dense":
        config = cell.config
        network = shared_network(
            catalog.described(config.backbone, config.backbone_options) or config.backbone, "random"
        )
        levels_of(network.body, config.size, config.backbone)


def _outcome(scores: Mapping[str, Any], failures: Mapping[str, UserError]) -> dict[str, Any]:
    """Return the state of a cell, its scores by task, and the reasons why other tasks have none."""
    state = "failed" if failures else "scored"
    if any(isinstance(error, DivergedError) for error in failures.values()):
        state = "diverged"
    return {"state": state, "scores": scores, "failures": {task: str(error) for task, error in failures.items()}}


def warm(store: Store, cell: Cell, report: Reporter) -> Outcome:
    """Make the warm-up of the cell unless it exists; return "busy" while another process makes it."""
    assert cell.warmup is not None
    about = f"{cell.combination.backbone}, warm-up, seed {cell.config.seed}, left out: {', '.join(cell.tasks)}"
    run = replace(store.run(cell.warmup), title=about)
    if run.state()[0] == "finished":
        return "done"
    with store.claimed(cell.warmup, run) as ours:
        if not ours:
            return "busy"
        return "stopped" if fit(warmup_config(cell.config), run, report) == "stopped" else "done"


def _begin(store: Store, cell: Cell, run: Run, report: Reporter) -> Outcome:
    """Let a training start from the end of its longest prefix, else of its warm-up, else from the beginning."""
    if any(_start_from(store.run(prefix), run, report) for prefix in cell.prefixes):
        return "done"
    if cell.warmup is not None:
        outcome = warm(store, cell, report)
        if outcome != "done":
            return outcome
        _start_from(store.run(cell.warmup), run, report)
    return "done"


def _start_from(begun: Run, run: Run, report: Reporter) -> bool:
    """Copy the newest checkpoint of a training's prefix, so that the training resumes from it as from its own.

    Returns False if the checkpoint is damaged, or has been removed by the prefix that was resumed meanwhile; the
    training then starts without it.
    """
    for path in checkpoint.newest(begun.checkpoints)[:1]:
        try:
            checkpoint.hand_on(path, run.checkpoints)
        except RunError as error:
            report.note(f"{error}; the training starts without it")
            return False
        return True
    return False


def _transfers(cell: Cell, run: Run, report: Reporter) -> tuple[dict[str, dict[str, Any]], dict[str, UserError]]:
    """Transfer to each left-out task, train -> val; no test set is read. Return the scores and the failures by task."""
    source = source_of(run, OWN)
    options = options_of(cell.transfer, cell.config)
    found: dict[str, dict[str, Any]] = {}
    failures: dict[str, UserError] = {}
    for task in targets(run, Path(cell.config.shards), cell.tasks):
        try:
            result = transfer(source, task, options, report)
        except UserError as error:
            failures[task.name] = error
            continue
        found[task.name] = {name: result[name] for name in KEPT if name in result}
    return found, failures


def options_of(settings: Transfer, config: FitConfig) -> TransferOptions:
    """Return how a sweep scores a training, on validation sets."""
    return TransferOptions(
        mode=settings.mode,
        final=False,
        solver=settings.solver,
        workers=config.workers,
        recipe=Recipe(batch=settings.batch, seed=config.seed, device=config.device),
        steps=settings.steps,
    )


def _write(store: Store, cell: Cell, result: dict[str, Any]) -> None:
    run = store.run(cell.training)
    choice = run.choice() if run.exists else None
    about = {
        "cell": cell.digest,
        "sweep": store.name,
        "combination": asdict(cell.combination),
        "seed": cell.config.seed,
        "left_out": cell.tasks,
        "run": str(run.path.relative_to(store.path)),
        "warmup": cell.warmup,
        "choice": None if choice is None else choice.model_dump(mode="json"),
    }
    entered = {
        "config": cell.config.model_dump(mode="json"),
        "pool": cell.pool,
        "transfer": cell.transfer.determining(),
        "device": find_device(cell.config.device).type,
        "versions": versions(),
    }
    write_document(store.result_path(cell.digest), about | result | entered)
