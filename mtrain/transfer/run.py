"""A run and a target task in, a scored transfer on disk out: <run>/transfer/<Task>-<mode>-<weights>.json."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dpconvert.progress import Reporter
from mtrain import __version__
from mtrain.atomic import write_json
from mtrain.errors import RunError, UsageError
from mtrain.features import weights_digest
from mtrain.network import check_size, shared_network
from mtrain.pool import Task, fetch_shards, find_task, open_pool, open_task
from mtrain.runs import Run
from mtrain.storage import url_of
from mtrain.transfer.modes import MODES, SEEDED, Found, Options, Source, check_sets
from mtrain.transfer.scores import scores_of, without_nan, write_predictions
from mtrain.transfer.tuning import INCIDENTAL

__all__ = ["OWN", "Options", "Source", "read_result", "result_path", "results", "source_of", "targets", "transfer"]

RESULT = {"identity", "task", "mode", "weights", "metric", "set", "score", "notes"}
OWN, NAMED = "run", ("run", "imagenet", "random")


def targets(run: Run, shards: Path | None, names: Sequence[str], mode: str = "svm") -> list[Task]:
    """The named tasks, or those that the run left out, for `joint` those that it trained on.

    A name may be the path or the URL of a task folder.

    Raises:
        UsageError: the run left nothing out and no target is named, or no such task.
    """
    names = names or (sorted(run.about().get("pool", {})) if mode == "joint" else run.left_out())
    if not names:
        raise UsageError("this run left no task out", where=run.path, remedy="name a target with --target TASK")
    pool = None
    found = []
    for name in names:
        if url_of(name) or (Path(name) / "task.json").is_file():
            found.append(open_task(name))
            continue
        pool = pool or open_pool(shards or Path(run.config().shards))
        found.append(find_task(pool, name))
    return found


def source_of(run: Run, weights: str, seed: int | None = None) -> Source:
    """The run's own network, or its backbone with other weights ("imagenet" for the baseline, "random", a file).

    Random weights are those of `seed`, without one of the run's.

    Raises:
        RunError: the run has not finished, or weights that cannot be had or do not fit.
    """
    config = run.config()
    if weights == OWN and (run.state()[0] != "finished" or not run.weights.is_file()):
        raise RunError(
            "this run has not finished",
            where=run.path,
            remedy=f"go on with it: mtrain fit --runs {run.path.parent} --run {run.name}",
        )
    torch.manual_seed(config.seed if seed is None else seed)
    network = shared_network(config.backbone, run.weights if weights == OWN else weights)
    check_size(network, config.size)
    return Source(run, weights, network, weights_digest(network))


def transfer(source: Source, task: Task, options: Options, report: Reporter) -> dict[str, Any]:
    """Transfer by `options.mode` and score; the result is written to the run's folder and recognised there.

    Predictions are kept beside it, one a sample.

    Raises:
        UsageError: the task lacks the sets that this needs.
    """
    path, identity = result_path(source, task, options), _identity(source, task, options)
    known = read_result(path)
    if known is not None and known["identity"] == identity:
        report.note(f"{task.name}: known already, from {path}")
        return known
    check_sets(task, options)
    fetch_shards([task], list(task.rows), report)
    begun = time.monotonic()
    found = MODES[options.mode](source, task, options, report)
    if found.answered is not None:
        write_predictions(path.with_suffix(".npz"), *found.answered)
    result = {
        "identity": identity,
        "task": task.name,
        "mode": options.mode,
        "weights": source.weights,
        "metric": task.metric,
        **_scores(task, found),
        **found.settings,
        "trained_on": found.trained_on,
        "seconds": round(time.monotonic() - begun, 2),
    }
    plain: dict[str, Any] = without_nan(result)
    write_json(path, plain)
    return plain


def _scores(task: Task, found: Found) -> dict[str, Any]:
    if found.answered is None:
        return {"set": found.set, "score": found.score, "scores": {}, "intervals": {}, "notes": list(found.notes)}
    scored = scores_of(task, found.set, *found.answered)
    return scored | {"notes": [*found.notes, *scored["notes"]]}


def _identity(source: Source, task: Task, options: Options) -> dict[str, Any]:
    """All that determines the result."""
    found: dict[str, Any] = {
        "mode": options.mode,
        "weights_digest": source.digest,
        "task_digest": task.card.digest,
        "size": source.run.config().size,
        "final": options.final,
        "mtrain": __version__,
    }
    if options.mode == "svm":
        found["solver"] = options.solver
    elif options.mode == "fewshot":
        found["seed"] = options.recipe.seed
    elif options.mode in ("finetune", "scratch"):
        recipe = asdict(options.recipe) | {"size": found["size"], "rates": list(options.recipe.rates)}
        found |= {name: value for name, value in recipe.items() if name not in INCIDENTAL}
    return found


def result_path(source: Source, task: Task, options: Options) -> Path:
    """Where the result of a transfer lies; files of one name are told apart by what they hold."""
    named = source.weights in NAMED
    name = source.weights if named else f"{Path(source.weights).stem}-{source.digest[:8]}"
    seed = f"-seed{options.recipe.seed}" if options.mode in SEEDED else ""
    final = "-final" if options.final else ""
    return source.run.path / "transfer" / f"{task.name}-{options.mode}-{name}{seed}{final}.json"


def read_result(path: Path) -> dict[str, Any] | None:
    """A result, or None where there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.keys() >= RESULT else None


def results(run: Run) -> list[dict[str, Any]]:
    """All results of a run, by task and weights."""
    found = [read_result(path) for path in sorted((run.path / "transfer").glob("*.json"))]
    return sorted(
        (r for r in found if r is not None), key=lambda r: (r["task"], r["identity"].get("final", False), r["weights"])
    )
