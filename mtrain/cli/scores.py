"""The commands that score networks: `transfer`, `evaluate`, `breakhis`; and `features`, what scores are made from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dpconvert.runtime.terminal import JSON, QUIET, Detailed, answer, say
from mtrain.cli.options import (
    CACHE,
    CHECK,
    DEVICE,
    EVALUATIONS,
    FOLDER,
    RUNS,
    SOLVER,
    SWEEPS,
    TUNING,
    UNTRAINED,
    WEIGHTS_KEY,
    WORKERS,
    network_of,
    reporter,
)

MODES = ["svm", "logistic", "knn", "fewshot", "finetune", "scratch", "joint"]
RARELY = (
    "cache", "cache_size", "check_images", "sweeps", "evaluations", "solver", "epochs", "rates", "batch", "early_stop",
    "seed", "dtype", "weights_key", "backbone_options", "size",
)  # fmt: skip


def _end(failures: Sequence[str]) -> None:
    """Exit status 1 if a target failed, whatever the others came to."""
    for failure in failures:
        say(f"mtrain: error: {failure}", bold=True)
    if failures:
        sys.exit(1)


@click.command(cls=Detailed, rarely=RARELY)
@RUNS
@QUIET
@click.option("--mode", type=click.Choice(MODES), default="svm", show_default=True, help="How to transfer.")
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@UNTRAINED
@click.option("--shards", type=FOLDER, help="[default: those of the run]")
@CACHE
@CHECK
@click.option("--target", multiple=True, metavar="TASK", help="Task or its folder.  [default: what the run left out]")
@click.option("--weights", default="run", show_default=True, help="run, imagenet, random, file.")
@WEIGHTS_KEY
@click.option("--final", is_flag=True, help="Train on train and val, score the test set: once, at the end.")
@SOLVER
@TUNING
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of new layers, epochs and draws.")
@DEVICE
@WORKERS
@JSON
def transfer(
    runs: Path, quiet: bool, mode: str, name: str | None, backbone: str | None, backbone_options: dict[str, Any] | None,
    size: int | None, shards: Path | None, target: tuple[str, ...], weights: str, weights_key: str | None, final: bool,
    solver: str, seed: int, device: str, workers: int, as_json: bool, **tuning: Any,
) -> None:  # fmt: skip
    """Score a pre-trained network on tasks that it was not trained on.

    \b
    svm        a linear SVM on frozen features, C by cross-validation over groups
    logistic   logistic regression on them
    knn        nearest neighbours among them
    fewshot    scores by number of training pictures a class
    finetune   everything trained; the validation set chooses rate and epoch
    scratch    the same from random weights
    joint      the run's own head of a task that it has trained on

    \b
    Example: mtrain transfer --mode svm
    """
    from mtrain.transfers.request import targets, weights_of

    run = network_of(runs, name, weights, backbone, backbone_options, size)
    tasks, weights = targets(run, shards, target, mode), weights_of(run, weights, mode, weights_key)
    from mtrain.cli import transfer_lines
    from mtrain.transfers.transfer import Options

    options = Options(mode, final, solver, workers, transfer_lines.recipe(**tuning, seed=seed, device=device))
    found, failures = transfer_lines.transfers(run, tasks, weights, options, reporter(quiet or as_json), weights_key)
    answer(transfer_lines.transfer_lines(found, run), found, as_json=as_json)
    _end(failures)


@click.command(cls=Detailed, rarely=RARELY)
@RUNS
@QUIET
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@UNTRAINED
@click.option("--weights", default="run", show_default=True, help="run, imagenet, random, file.")
@WEIGHTS_KEY
@click.option("--shards", type=FOLDER, help="[default: those of the run]")
@CACHE
@CHECK
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Task or its folder.  [default: those left out]")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True, help="Of the numbers."
)
@click.option("--out", type=FOLDER, default=Path("features"), show_default=True, help="Folder of the arrays.")
@DEVICE
@WORKERS
@JSON
def features(
    runs: Path, quiet: bool, name: str | None, backbone: str | None, backbone_options: dict[str, Any] | None,
    size: int | None, weights: str, weights_key: str | None, shards: Path | None, tasks: tuple[str, ...], dtype: str,
    out: Path, device: str, workers: int, as_json: bool,
) -> None:  # fmt: skip
    """Write a frozen network's features: <Task>-train.npy, <Task>-val.npy, and a .csv of their rows beside each.

    \b
    Example: mtrain features --task Lung --dtype float16
    """
    from mtrain.transfers.request import targets, weights_of

    run = network_of(runs, name, weights, backbone, backbone_options, size)
    chosen, weights, report = (
        targets(run, shards, tasks),
        weights_of(run, weights, key=weights_key),
        reporter(quiet or as_json),
    )
    from mtrain.cli import transfer_lines
    from mtrain.transfers.transfer import source_of

    source = source_of(run, weights, key=weights_key)
    found, failures = transfer_lines.feature_files(source, chosen, out, dtype, workers, device, report)
    paths = [str(path) for path in found]
    answer(paths, paths, as_json=as_json)
    _end(failures)


@click.command(cls=Detailed, rarely=RARELY)
@RUNS
@SWEEPS
@QUIET
@click.option("--run", "names", multiple=True, metavar="NAME", help="A run to evaluate; one a seed.")
@click.option("--sweep", metavar="NAME", help="The models that `mtrain select` chose in a sweep, instead of runs.")
@click.option("--shards", type=FOLDER, help="[default: those of the runs]")
@CACHE
@CHECK
@click.option(
    "--target", multiple=True, metavar="TASK", help="[default: what the first run left out; all of the sweep]"
)
@click.option("--mode", "modes", multiple=True, type=click.Choice(["svm", "finetune", "scratch", "joint"]),
    default=("svm", "finetune"), show_default=True, help="May be repeated.",
)  # fmt: skip
@click.option("--baseline/--no-baseline", default=True, show_default=True, help="The ImageNet weights beside them.")
@click.option(
    "--seeds", type=click.IntRange(1), default=5, show_default=True, help="Of that by finetune, and of scratch."
)
@SOLVER
@TUNING
@DEVICE
@WORKERS
@EVALUATIONS
@JSON
def evaluate(
    runs: Path, sweeps: Path, quiet: bool, names: tuple[str, ...], sweep: str | None, shards: Path | None,
    target: tuple[str, ...], modes: tuple[str, ...], baseline: bool, seeds: int, solver: str, device: str, workers: int,
    evaluations: Path, as_json: bool, **tuning: Any,
) -> None:  # fmt: skip
    """Score chosen networks, and the baseline, on the test sets of their targets: once, at the end.

    Runs that left a target out are transferred to it; runs that trained on it are for --mode joint.

    \b
    Example: mtrain evaluate --sweep paper
    """
    from mtrain.errors import UsageError
    from mtrain.runs import open_run
    from mtrain.sweep.store import open_store
    from mtrain.transfers.request import targets

    if bool(names) == bool(sweep):
        raise UsageError("what to evaluate?", remedy="name runs with --run, or a sweep with --sweep")
    given = [open_run(runs, name) for name in names]
    store = open_store(sweeps, sweep).path if sweep else None
    tasks = targets(given[0], shards, target, "joint" if set(modes) == {"joint"} else "svm") if given else []
    from mtrain.cli import transfer_lines
    from mtrain.evaluation.evaluate import Asked
    from mtrain.transfers.transfer import Options

    options = Options(solver=solver, workers=workers, recipe=transfer_lines.recipe(**tuning, seed=0, device=device))
    asked = Asked(tuple(dict.fromkeys(modes)), baseline, seeds, options, evaluations)
    report = reporter(quiet or as_json)
    if store:
        found, failures = transfer_lines.sweep_evaluations(store, target, shards, asked, report)
    else:
        found, failures = transfer_lines.evaluations(given, tasks, asked, report)
    answer(transfer_lines.evaluation_lines(found), found, as_json=as_json)
    _end(failures)


@click.command(cls=Detailed, rarely=RARELY)
@RUNS
@QUIET
@click.option("--shards", type=FOLDER, default=Path("shards/BreakHis"), show_default=True, help="The task's folder.")
@CACHE
@CHECK
@click.option("--run", "name", metavar="NAME", help="[default: the newest]")
@UNTRAINED
@click.option("--weights", default="run", show_default=True, help="run, imagenet, random, file.")
@WEIGHTS_KEY
@click.option(
    "--mode", type=click.Choice(["svm", "finetune"]), default="svm", show_default=True, help="How to transfer."
)
@SOLVER
@TUNING
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of new layers and epochs.")
@DEVICE
@WORKERS
@EVALUATIONS
@JSON
def breakhis(
    runs: Path, quiet: bool, shards: Path, name: str | None, backbone: str | None,
    backbone_options: dict[str, Any] | None, size: int | None, weights: str, weights_key: str | None, mode: str,
    solver: str, seed: int, device: str, workers: int, evaluations: Path, as_json: bool, **tuning: Any,
) -> None:  # fmt: skip
    """Score a network on BreaKHis: its five official folds, at each magnification, by patient.

    \b
    Example: mtrain breakhis --shards shards/BreakHis --weights imagenet
    """
    from mtrain.data.pool import open_task
    from mtrain.transfers.request import weights_of

    run = network_of(runs, name, weights, backbone, backbone_options, size)
    task, weights = open_task(shards), weights_of(run, weights, key=weights_key)
    from mtrain.cli import transfer_lines
    from mtrain.evaluation.breakhis import breakhis as score
    from mtrain.transfers.transfer import Options, source_of

    options = Options(mode, False, solver, workers, transfer_lines.recipe(**tuning, seed=seed, device=device))
    source = source_of(run, weights, key=weights_key)
    found = score(source, task, options, evaluations, reporter(quiet or as_json))
    answer(transfer_lines.breakhis_lines(found), found, as_json=as_json)
