"""The commands that score chosen networks once, at the end: `evaluate`, and `breakhis` on the folds of BreaKHis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import JSON, QUIET, Detailed, answer
from mtrain.cli.options import (
    CACHE,
    CHECK,
    DEVICE,
    EVALUATIONS,
    FOLDER,
    RARELY,
    RUNS,
    SOLVER,
    STEPS,
    SWEEPS,
    TUNING,
    UNTRAINED,
    WEIGHTS,
    WEIGHTS_KEY,
    WORKERS,
    end,
    network_of,
    reporter,
)
from mtrain.cli.unused_options import is_given, note_unused


def unused_in_evaluation(modes: Sequence[str], *, baseline: bool, of_sweep: bool) -> dict[str, str]:
    """Options that have no effect on what is evaluated -> why."""
    unused = {"runs": "--sweep names the runs"} if of_sweep else {"sweeps": "no --sweep is named"}
    if "scratch" not in modes and not (baseline and {"finetune", "dense"} & set(modes)):
        unused["seeds"] = "nothing here depends on a seed but the runs"
    if not {"svm", "finetune", "dense"} & set(modes):
        unused["baseline"] = f"--mode {' and '.join(modes)} has none"
    return unused


@click.command(cls=Detailed, rarely=RARELY)
@RUNS
@SWEEPS
@QUIET
@click.option("--run", "names", multiple=True, metavar="NAME", help="Run to evaluate; may be repeated.")
@click.option("--sweep", metavar="NAME", help="Evaluate the runs that `mtrain select` chose in this sweep.")
@click.option("--shards", type=FOLDER, help="Folder of the tasks.  [default: that of the runs]")
@CACHE
@CHECK
@click.option(
    "--target", multiple=True, metavar="TASK", help="Task to score; may be repeated.  [default: all left out]"
)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice(["svm", "finetune", "scratch", "joint", "dense"]),
    default=("svm", "finetune"),
    show_default=True,
    help="Transfer mode; may be repeated.",
)
@click.option("--baseline/--no-baseline", default=True, show_default=True, help="Also score the ImageNet weights.")
@click.option(
    "--seeds",
    type=WholeRange(1),
    default=5,
    show_default=True,
    help="Seeds of the baseline of finetune and dense, and of scratch.",
)
@SOLVER
@TUNING
@STEPS
@DEVICE
@WORKERS
@EVALUATIONS
@JSON
def evaluate(
    runs: Path,
    sweeps: Path,
    quiet: bool,
    names: tuple[str, ...],
    sweep: str | None,
    shards: Path | None,
    target: tuple[str, ...],
    modes: tuple[str, ...],
    baseline: bool,
    seeds: int,
    solver: str,
    steps: int,
    device: str,
    workers: int,
    evaluations: Path,
    as_json: bool,
    **tuning: Any,
) -> None:
    """Score chosen runs, and the baseline, on the test sets of their targets: do this once, at the end.

    Runs that left a target out are transferred to it; --mode joint scores runs that trained on it; --mode dense scores
    masks and points.

    \b
    Example: mtrain evaluate --sweep paper
    """
    from mtrain.errors import UsageError
    from mtrain.runs.run_names import open_run
    from mtrain.sweep.store import open_store
    from mtrain.transfers.request import places, targets, unread, with_set

    if bool(names) == bool(sweep):
        raise UsageError("nothing to evaluate", remedy="give either --run NAME (repeatable) or --sweep NAME")
    chosen = [open_run(runs, name) for name in names]
    swept = open_store(sweeps, sweep) if sweep else None
    store = swept.path if swept else None
    joint = set(modes) == {"joint"}
    tasks = targets(chosen[0], shards, target, "joint" if joint else "svm") if chosen else []
    tasks, passed_over = with_set(tasks, "test") if joint and not target else (tasks, [])
    from mtrain.cli import transfer_lines, transfer_work
    from mtrain.evaluation.evaluate import EvaluateRequest
    from mtrain.transfers.dense.dense_tuned import Moving
    from mtrain.transfers.transfer import TransferOptions

    recipe = transfer_work.recipe(**tuning, seed=0, device=device)
    moving = transfer_work.moving(*transfer_work.moved(tuning)) if "dense" in modes else Moving()
    options = TransferOptions(solver=solver, workers=workers, recipe=recipe, steps=steps, moving=moving)
    request = EvaluateRequest(tuple(dict.fromkeys(modes)), baseline, seeds, options, evaluations)
    report = reporter(quiet or as_json)
    unused = unread(modes) | transfer_work.unmoved(modes, tuning["tune"])
    unused |= unused_in_evaluation(modes, baseline=baseline, of_sweep=store is not None)
    note_unused(report, unused | ({} if store else places(target)))
    for warning in [*passed_over, *(swept.notes() if swept else ())]:
        report.note(warning)
    if store and (note := transfer_work.other_decoder(store, modes, options)):
        report.note(note)
    if store:
        results, failures = transfer_work.sweep_evaluations(store, target, shards, request, report)
    else:
        results, failures = transfer_work.evaluations(chosen, tasks, request, report)
    answer(transfer_lines.evaluation_lines(results), results, as_json=as_json)
    end(failures)


@click.command(cls=Detailed, rarely=RARELY)
@RUNS
@QUIET
@click.option("--shards", type=FOLDER, default=Path("shards/BreakHis"), show_default=True, help="The task's folder.")
@CACHE
@CHECK
@click.option("--run", "name", metavar="NAME", help="Run to score.  [default: the newest]")
@UNTRAINED
@WEIGHTS
@WEIGHTS_KEY
@click.option("--mode", type=click.Choice(["svm", "finetune"]), default="svm", show_default=True, help="Transfer mode.")
@SOLVER
@TUNING
@click.option("--seed", type=WholeRange(0), default=0, show_default=True, help="Random seed.")
@DEVICE
@WORKERS
@EVALUATIONS
@JSON
def breakhis(
    runs: Path,
    quiet: bool,
    shards: Path,
    name: str | None,
    backbone: str | None,
    backbone_options: dict[str, Any] | None,
    size: int | None,
    weights: str,
    weights_key: str | None,
    mode: str,
    solver: str,
    seed: int,
    device: str,
    workers: int,
    evaluations: Path,
    as_json: bool,
    **tuning: Any,
) -> None:
    """Score a network on BreaKHis: accuracy per patient, in its five official folds, at each magnification.

    \b
    Example: mtrain breakhis --shards shards/BreakHis --weights imagenet
    """
    from mtrain.data.task import open_task
    from mtrain.transfers.request import unread, weights_of

    run = network_of(runs, name, weights, backbone, backbone_options, size)
    task, weights = open_task(shards), weights_of(run, weights, key=weights_key)
    report = reporter(quiet or as_json)
    note_unused(report, unread([mode], weights))
    from mtrain.cli import transfer_lines, transfer_work
    from mtrain.evaluation.breakhis import breakhis as score
    from mtrain.transfers.transfer import TransferOptions, source_of

    options = TransferOptions(mode, False, solver, workers, transfer_work.recipe(**tuning, seed=seed, device=device))
    source = source_of(run, weights, seed if is_given("seed") else None, weights_key)
    result = score(source, task, options, evaluations, report)
    answer(transfer_lines.breakhis_lines(result), result, as_json=as_json)
