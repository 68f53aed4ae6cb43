"""The transfer matrix: a network trained on each task alone, probed on every other task and on the target.

After Zamir et al., "Taskonomy", CVPR 2018, without its normalization. A probe is a logistic regression on frozen
features, trained on the training set of a task and scored on its validation set; no test set is read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.data.pool import find_task, open_pool
from mtrain.data.task import Task
from mtrain.errors import DivergedError, RunError, UsageError
from mtrain.influence.subsets import retraining
from mtrain.runs.run_folder import Run
from mtrain.runs.untrained import start_of
from mtrain.train.fit import fit
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.request import OWN
from mtrain.transfers.transfer import Pretrained, TransferOptions, source_of, transfer

MODE = "logistic"
QUIET = Reporter(quiet=True)


def matrix(
    run: Run,
    target: Task,
    shards: Path | str,
    alone: Sequence[Run],
    iterations: int | None,
    report: Reporter,
    *,
    workers: int,
    device: str,
) -> dict[str, Any]:
    """Probe the networks of single tasks. alone: runs that were trained on one task of `run` each. iterations: of the
    training on each other task, with the other settings of `run`; None to leave those tasks out. Finished runs and
    probes are reused.

    Raises:
        UsageError: a run in `alone` was trained on several tasks, or is of another network.
        RunError: a training was interrupted.
    """
    begun, found = time.monotonic(), _by_task(run, alone)
    sources, trained = sorted(run.trained_on()), 0
    pool, config = open_pool(shards), run.config()
    tasks = [*(find_task(pool, name) for name in sources), target]
    options = TransferOptions(MODE, False, workers=workers, recipe=Recipe(device=device))
    rows = []
    with report.bar("transfer matrix", 1 + len(sources), unit="networks") as advance:
        start = start_of(run.path.parent, config)
        rows.append(_row(None, source_of(start, config.weights, key=config.weights_key), tasks, options))
        advance()
        for name in sources:
            other = found.get(name)
            if other is None and iterations is not None:
                other, settings = retraining(run, (name,), shards, iterations)
                try:
                    trained += _trained(other, settings, workers, device)
                except DivergedError as error:  # the networks of the other tasks are of use without this one
                    cells = {task.name: {"why": error.what} for task in tasks if task.name != name}
                    rows.append({"source": name, "run": other.name, "iterations": iterations, "cells": cells})
                    report.note(f"no network of {name} alone: {error.what}")
                    other = None
            if other is not None:
                rows.append(_row(name, source_of(other, OWN), tasks, options))
            advance()
    return {
        "mode": MODE,
        "targets": [{"task": task.name, "metric": task.metric} for task in tasks],
        "rows": rows,
        "cost": {
            "trainings": trained,
            "probes": sum("score" in cell for row in rows for cell in row["cells"].values()),
            "seconds": round(time.monotonic() - begun, 2),
        },
    }


def _by_task(run: Run, alone: Sequence[Run]) -> dict[str, Run]:
    """The given runs by the task that each was trained on."""
    found: dict[str, Run] = {}
    for other in alone:
        other.check_finished()
        pool = sorted(other.about().get("pool", {}))
        if len(pool) != 1 or pool[0] not in run.trained_on():
            raise UsageError(
                f"--alone {other.name} was not trained on a single task of {run.name}",
                found=", ".join(pool),
                expected=f"one of {', '.join(sorted(run.trained_on()))}",
            )
        if _kind(other) != _kind(run):
            what = f"--alone {other.name} has another network, size or start than {run.name}"
            raise UsageError(what, found=_kind(other), expected=_kind(run))
        if pool[0] in found:
            raise UsageError(f"two runs were trained on only {pool[0]}", found=f"{found[pool[0]].name}, {other.name}")
        found[pool[0]] = other
    return found


def _kind(run: Run) -> str:
    network, config = run.network(), run.config()
    name = network if isinstance(network, str) else f"{network.name} {network.digest[:8]}"
    return " ".join(filter(None, (name, f"{config.size} px from {config.weights}", config.weights_key)))


def _trained(other: Run, config: FitConfig, workers: int, device: str) -> bool:
    """Train on one task. Returns whether there was anything to do."""
    done = other.exists and other.state()[0] == "finished"
    if fit(config.model_copy(update={"workers": workers, "device": device}), other, QUIET) == "stopped":
        raise RunError("interrupted; finished training runs are kept", where=other.path, remedy="run the command again")
    return not done


def _row(name: str | None, source: Pretrained, tasks: Sequence[Task], options: TransferOptions) -> dict[str, Any]:
    """The probes of one network. name: the task that it was trained on, None for the initial weights."""
    iterations = 0 if name is None else source.run.config().iterations
    cells = {task.name: _cell(source, task, options) for task in tasks if task.name != name}
    return {"source": name, "run": source.run.name, "iterations": iterations, "cells": cells}


def _cell(source: Pretrained, task: Task, options: TransferOptions) -> dict[str, Any]:
    """A score with its interval, or why there is none."""
    try:
        result = transfer(source, task, options, QUIET)
    except UsageError as error:
        return {"why": error.what}
    return {"score": result["score"], "interval": result["intervals"].get(result["metric"]), "set": result["set"]}
