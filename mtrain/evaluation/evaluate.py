"""The final evaluation: pre-trained networks and a target in, scores on its test set out (PROTOCOL 6, Final).

<out>/<target>/<digest>.json    one transfer of one network; <digest>.npz has its prediction for each sample

No choice is made after it. `mtrain.data.task.Permit` lists all steps that read test sets.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dpconvert.runtime.progress import Reporter
from mtrain.backbones.card import BackboneCard
from mtrain.data.task import Permit, Task, with_test
from mtrain.disk.atomic import replacing
from mtrain.disk.documents import short_digest, write_document
from mtrain.errors import RunError, UsageError
from mtrain.evaluation.comparing.comparisons import IMAGENET, START
from mtrain.evaluation.paper_tables import training_of
from mtrain.runs.run_folder import Run
from mtrain.sweep.store import SELECTED, Store
from mtrain.transfers.modes import SEEDED
from mtrain.transfers.request import OWN
from mtrain.transfers.transfer import TransferOptions, result_path, source_of, transfer

MULTITASK, RANDOM = "multitask", "random"
SEEDS = 5  # seeds of the baselines that depend on one
SETTINGS = ("C", "k", "lr", "epoch", "val_score", "steps", "tune", "moved", "layer_decay")  # entries of a result
WEIGHTS = {IMAGENET: IMAGENET, MULTITASK: OWN, RANDOM: "random"}


@dataclass(frozen=True)
class EvaluateRequest:
    """What to evaluate: the modes, the number of seeds of the baseline, the options, and the output folder."""

    modes: tuple[str, ...] = ("svm", "finetune")
    baseline: bool = True
    seeds: int = SEEDS
    options: TransferOptions = field(default_factory=TransferOptions)
    out: Path = Path("evaluations")


@dataclass(frozen=True)
class TransferJob:
    """One transfer of one network. For sources other than runs, `run` gives backbone and size."""

    mode: str
    source: str
    run: Run
    seed: int


def opened(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with their test sets."""
    return [with_test(task, Permit.EVALUATE) for task in tasks]


def evaluate(runs: Sequence[Run], task: Task, request: EvaluateRequest, report: Reporter) -> list[dict[str, Any]]:
    """Run every job of one target. Existing results are not computed again.

    The baselines come first: their weights may be unavailable, which is better known before the runs take their time.

    Raises:
        UsageError: no run is suitable for one of the modes.
        RunError: a run has not finished or cannot be read, or weights are not available.
    """
    (target,) = opened([task])
    planned = list(jobs(runs, task, request))
    baselines_first = sorted(range(len(planned)), key=lambda place: planned[place].source == MULTITASK)
    found = {place: _evaluated(planned[place], target, request, report) for place in baselines_first}
    return [found[place] for place in range(len(planned))]


def jobs(runs: Sequence[Run], task: Task, request: EvaluateRequest) -> Iterator[TransferJob]:
    """The jobs that the runs allow: runs that left the task out are transferred, those trained on it serve `joint`.

    Raises:
        UsageError: there is no run for one of the modes.
    """
    joint = [run for run in runs if task.name in run.about().get("pool", {})]
    apart = [run for run in runs if run not in joint]
    for mode in request.modes:
        usable = joint if mode == "joint" else runs if mode == "scratch" else apart
        if not usable:
            how = "trained on" if mode == "joint" else "left out"
            remedy = "name one with --run" if mode == "joint" else "name one with --run, or ask for --mode joint"
            raise UsageError(f"{mode}: no run given has {how} {task.name}", remedy=remedy)
        if mode != "scratch":
            yield from (TransferJob(mode, MULTITASK, run, run.config().seed) for run in usable)
        for run in _networks(usable):
            if mode == "scratch":
                yield from (TransferJob(mode, RANDOM, run, seed) for seed in range(request.seeds))
            elif mode != "joint" and request.baseline:
                own = isinstance(run.network(), BackboneCard) and run.config().weights != RANDOM
                baseline = START if own else IMAGENET
                yield from (
                    TransferJob(mode, baseline, run, seed) for seed in range(request.seeds if mode in SEEDED else 1)
                )


def winners(sweep: Path, target: str) -> list[Run]:
    """The runs that `mtrain select` chose for a target, for every network.

    Raises:
        RunError: there is no selection, or none for this target.
    """
    path, chosen = sweep / SELECTED, Store(sweep).selection()
    try:
        by_backbone = chosen["targets"][target]["by_backbone"]
        found = [sweep / model["run"] for choice in by_backbone.values() if choice for model in choice["models"]]
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(f"no selection for {target}: {reason}", where=path, remedy="run `mtrain select`") from None
    if not found:
        raise RunError(f"no model is chosen for {target}", where=path, remedy="run the sweep with other tasks too")
    return [Run(run) for run in found]


def selected_targets(sweep: Path) -> list[str]:
    """The targets of a selection.

    Raises:
        RunError: there is no selection.
    """
    chosen = Store(sweep).selection()
    try:
        return sorted(chosen["targets"])
    except (KeyError, TypeError) as error:
        raise RunError(f"no selection: {error}", where=sweep / SELECTED, remedy="run `mtrain select` first") from None


def _networks(runs: Sequence[Run]) -> list[Run]:
    """The first run of each combination of backbone and size."""
    first: dict[tuple[str, int], Run] = {}
    for run in runs:
        first.setdefault((run.config().backbone, run.config().size), run)
    return list(first.values())


def _evaluated(job: TransferJob, task: Task, request: EvaluateRequest, report: Reporter) -> dict[str, Any]:
    """Run one job: the final transfer, whose result is then stored among the evaluations."""
    options = replace(request.options, mode=job.mode, final=True, recipe=replace(request.options.recipe, seed=job.seed))
    weights = job.run.config().weights if job.source == START else WEIGHTS[job.source]
    source = source_of(job.run, weights, job.seed)
    found = transfer(source, task, options, report)
    known = json.dumps([found["identity"], job.source, job.seed], sort_keys=True)
    path = request.out / task.name / f"{short_digest(known)}.json"
    content = {
        "task": task.name,
        "metric": found["metric"],
        "mode": job.mode,
        "source": job.source,
        "backbone": job.run.config().backbone,
        "seed": job.seed,
        "set": found["set"],
        "score": found["score"],
        "scores": found["scores"],
        "intervals": found["intervals"],
        "groups": found.get("groups"),
        "samples": found.get("samples"),
        "objects": found.get("objects", {}),
        "n_train": sum(found["trained_on"].values()),
        "train_val": len(task.rows["train"]) + len(task.rows["val"]),
        "run": str(job.run.path),
        "training": training_of(job.run) if job.source == MULTITASK else {},
        "notes": found["notes"],
        "predictions": found.get("predictions"),
        "settings": {name: found[name] for name in SETTINGS if name in found},
        "identity": found["identity"],
    }
    predictions = result_path(source, task, options).with_suffix(".npz")
    if predictions.is_file():
        with replacing(path.with_suffix(".npz")) as partial:
            shutil.copyfile(predictions, partial)
    write_document(path, content)
    return content
