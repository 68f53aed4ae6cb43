"""Transfers a run to a target task. The scored result is <run>/transfer/<Task>-<mode>-<weights>.json.

With other settings than the usual ones of a mode, the name ends in a digest of them, so that results of different
settings stay beside each other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpconvert.names import plain as plain_name
from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain import __version__
from mtrain.data.task import Task, fetch_shards
from mtrain.disk.checksums import file_digest
from mtrain.disk.documents import short_digest, without_nan, write_document
from mtrain.errors import RunError
from mtrain.model.devices import device_failures_reported
from mtrain.model.frozen import weights_digest
from mtrain.model.network import check_size, shared_network
from mtrain.model.weight_files.tensor_file import fault_of
from mtrain.model.weight_files.weights import state_digest
from mtrain.runs.belonging import check_weights
from mtrain.runs.run_folder import Run
from mtrain.scoring.dense_counts import write_counts
from mtrain.scoring.predictions import scores_of, write_predictions
from mtrain.transfers import eva
from mtrain.transfers.dense.dense_tuned import Moving
from mtrain.transfers.finetune import held_out
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.modes import MODES, SEEDED, own_head
from mtrain.transfers.pretrained import (
    Pretrained,
    TransferOptions,
    Transferred,
    check_sets,
    check_unseen,
    scored_rows,
)
from mtrain.transfers.request import FROZEN_NETWORK, NAMED, OWN
from mtrain.transfers.results import read_result

# not settings of a mode
GENERAL = ("mode", "weights_digest", "task_digest", "size", "final", "mtrain", "head_digest", "fold")
SETTINGS_DIGITS = 8

__all__ = ["Pretrained", "TransferOptions", "result_path", "source_of", "transfer", "transfer_runs"]


def source_of(run: Run, weights: str, seed: int | None = None, key: str | None = None) -> Pretrained:
    """The run's own network, or its backbone with other weights ("imagenet" for the baseline, "random", a file).

    Random weights are drawn with `seed`, or with the run's seed if None. key: the part of a weights file to load; None:
    the part that the run began from if the file is the one that it began from.

    Raises:
        RunError: the run has not finished, or the weights cannot be downloaded or do not fit.
    """
    config = run.config()
    if weights == OWN:
        run.check_finished()
        check_weights(run)
    if key is None and weights not in NAMED and config.weights not in NAMED:
        key = config.weights_key if Path(weights).resolve() == Path(config.weights).resolve() else None
    torch.manual_seed(config.seed if seed is None else seed)
    network = shared_network(run.network(), run.weights if weights == OWN else weights, key)
    check_size(network, config.size)
    source = Pretrained(run, weights, network, weights_digest(network))
    if fault := fault_of(network.body.state_dict()):
        remedy = "train another run with a lower --lr" if weights == OWN else "give others with --weights"
        raise RunError(fault, where=source.origin, remedy=remedy)
    return source


@device_failures_reported()
def transfer(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> dict[str, Any]:
    """Transfer in the way of `options.mode`, and score. An existing result in the run's folder is returned as it is.

    The prediction for each sample is stored beside the result.

    Raises:
        UsageError: the task lacks a set that the mode needs, or the run was trained on the set to be scored.
    """
    if options.mode == "joint":
        scored_rows(task, options)  # without it, folds of the training set take its place in other modes
    check_unseen(source, task, [options.scored if options.final or len(task.rows["val"]) else "train"])
    path, identity = result_path(source, task, options), _identity(source, task, options)
    _take_over(result_path(source, task, options, usual=True), path, _settings(options))
    known = read_result(path, report.note)
    if known is not None and known["identity"] == identity:
        report.note(f"{task.name}: existing result reused: {path}")
        return known | {"weights": source.weights}  # the same weights may have been read from another file
    check_sets(task, options)
    fetch_shards([task], list(task.rows), report)
    begun = time.monotonic()
    found = MODES[options.mode](source, task, options, report)
    answers, predictions = path.with_suffix(".npz"), None
    if found.answered is not None:
        write_predictions(answers, *found.answered)
    if found.counts is not None:
        write_counts(answers, found.counts)
    if found.answered is not None or found.counts is not None:
        predictions = file_digest(answers)
    result = {
        "identity": identity,
        "task": task.name,
        "mode": options.mode,
        "weights": source.weights,
        "backbone": source.run.config().backbone,
        "metric": found.metric or task.metric,
        **_scores(task, found),
        **found.settings,
        "trained_on": found.trained_on,
        "predictions": predictions,
        "seconds": round(time.monotonic() - begun, 2),
    }
    result["notes"] = [
        *result["notes"],
        *_not_learnt(task, options, found),
        *_chosen_on(source, task, str(result["set"])),
    ]
    plain: dict[str, Any] = without_nan(result)
    write_document(path, plain)
    return plain


def transfer_runs(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> list[dict[str, Any]]:
    """The results of all runs of a mode: of `eva` five, with consecutive seeds, else one.

    Raises:
        UsageError: as `transfer`.
    """
    seeds = range(options.recipe.seed, options.recipe.seed + (eva.RUNS if options.mode == "eva" else 1))
    return [
        transfer(source, task, replace(options, recipe=replace(options.recipe, seed=seed)), report) for seed in seeds
    ]


def _chosen_on(source: Pretrained, task: Task, scored: str) -> Iterator[str]:
    """A note if the tasks of the run were chosen for this target on the set that is scored."""
    choice = source.run.choice() if source.weights == OWN else None
    if choice is None or choice.target is None or plain_name(choice.target) != plain_name(task.name):
        return
    if scored in choice.saw.get(choice.target, ()):
        yield f"the tasks of this run were chosen on the {scored} set of {task.name}: this score is optimistic"


def _not_learnt(task: Task, options: TransferOptions, found: Transferred) -> Iterator[str]:
    """A note if samples are scored of classes that none of the samples trained on has."""
    if task.target != "class" or (found.answered is None and options.mode != "fewshot"):
        return
    scored = (task.rows[found.set] if found.answered is None else found.answered[0]).label
    learnt = np.concatenate([task.rows[split].label for split in found.trained_on])
    if not np.isin(scored, learnt).all():
        missing = np.setdiff1d(scored, learnt)
        names = ", ".join(repr(task.classes[number]) for number in missing)
        count = counted(int(np.isin(scored, missing).sum()), "sample")
        yield f"{task.name} has no training sample of {names}: {count} of the {found.set} set cannot be right"


def _scores(task: Task, found: Transferred) -> dict[str, Any]:
    if found.answered is None:
        return {
            "set": found.set,
            "score": found.score,
            "scores": {},
            "intervals": {},
            "notes": list(found.notes),
            **found.scored,
        }
    scored = scores_of(task, found.set, *found.answered, found.metric)
    return scored | {"notes": [*found.notes, *scored["notes"]]}


def _identity(source: Pretrained, task: Task, options: TransferOptions) -> dict[str, Any]:
    """Everything that the result depends on."""
    found: dict[str, Any] = {
        "mode": options.mode,
        "weights_digest": source.digest,
        "task_digest": task.card.digest,
        "size": source.run.config().size,
        "final": options.final,
        "mtrain": __version__,
    }
    if options.mode == "joint":
        head = own_head(source.run, task)
        found["head_digest"] = state_digest({"weight": head.weight, "bias": head.bias})
    if options.mode in ("finetune", "scratch") and (fold := held_out(task, task.rows["train"], task.rows["val"])):
        found["fold"] = fold  # left out where it is the first, which earlier versions always held out
    return found | _settings(options)


def _settings(options: TransferOptions) -> dict[str, Any]:
    """The settings that the result of a mode depends on."""
    if options.mode == "svm":
        return {"solver": options.solver}
    if options.mode == "fewshot":
        return {"seed": options.recipe.seed}
    if options.mode == "eva":
        return {"seed": options.recipe.seed, "recipe": asdict(eva.RECIPE)}
    if options.mode == "dense":
        found = {"steps": options.steps, "batch": options.recipe.batch, "seed": options.recipe.seed}
        return found | options.moving.determining()
    if options.mode in ("finetune", "scratch"):
        found = options.recipe.determining() | {"rates": list(options.recipe.rates)}
        return {name: value for name, value in found.items() if name != "size"}  # which is that of the run
    return {}


def result_path(source: Pretrained, task: Task, options: TransferOptions, *, usual: bool = False) -> Path:
    """The path of a transfer's result. usual: as if all settings of the mode were the usual ones."""
    seed = f"-seed{options.recipe.seed}" if options.mode in SEEDED else ""
    final = "-final" if options.final else ""
    moved = options.mode == "dense" and options.moving.tune != FROZEN_NETWORK
    tune = f"-tune-{options.moving.tune.replace(':', '-')}" if moved else ""
    apart = "" if usual else _apart(options)
    return source.run.path / "transfer" / f"{task.name}-{options.mode}-{source.label}{seed}{tune}{apart}{final}.json"


def _apart(options: TransferOptions) -> str:
    """A digest of the settings that the name of a result does not state otherwise; "" for the usual ones."""
    own, recipe = _settings(options), Recipe(seed=options.recipe.seed)
    if own == _settings(TransferOptions(options.mode, recipe=recipe, moving=Moving(options.moving.tune))):
        return ""
    own.pop("seed", None)
    return f"-{short_digest(json.dumps(own, sort_keys=True))[:SETTINGS_DIGITS]}"


def _take_over(usual: Path, path: Path, settings: Mapping[str, Any]) -> None:
    """Move a result of these settings, and its predictions, from the usual name to their own, which earlier versions
    did not give to them.
    """
    known = read_result(usual) if usual != path and usual.is_file() and not path.exists() else None
    if known is not None and {key: of for key, of in known["identity"].items() if key not in GENERAL} == settings:
        for suffix in (".npz", ".json"):
            if usual.with_suffix(suffix).is_file():
                usual.with_suffix(suffix).replace(path.with_suffix(suffix))
