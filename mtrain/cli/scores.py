"""The commands that score a network on a task: `transfer`; and `features`, which writes its features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import JSON, QUIET, Detailed, answer
from mtrain.cli.options import (
    CACHE,
    CHECK,
    DEVICE,
    FEATURES_OF,
    FOLDER,
    RARELY,
    RUNS,
    SOLVER,
    STEPS,
    TASKS,
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

MODES = ["svm", "logistic", "knn", "eva", "fewshot", "finetune", "scratch", "joint", "dense"]


@click.command(cls=Detailed, rarely=RARELY)
@RUNS
@QUIET
@click.option(
    "--mode",
    type=click.Choice(MODES),
    metavar="MODE",
    default="svm",
    show_default=True,
    help="Transfer mode, see above.",
)
@click.option("--run", "name", metavar="NAME", help="Run to score.  [default: the newest]")
@UNTRAINED
@click.option("--shards", type=FOLDER, help="Folder of the tasks.  [default: the run's]")
@CACHE
@CHECK
@click.option(
    "--target", multiple=True, metavar="TASK", help="Task or folder; may be repeated.  [default: all left out]"
)
@WEIGHTS
@WEIGHTS_KEY
@click.option("--final", is_flag=True, help="Score the test set: once, at the end.")
@SOLVER
@TUNING
@STEPS
@click.option("--seed", type=WholeRange(0), default=0, show_default=True, help="Random seed.")
@DEVICE
@WORKERS
@JSON
def transfer(
    runs: Path,
    quiet: bool,
    mode: str,
    name: str | None,
    backbone: str | None,
    backbone_options: dict[str, Any] | None,
    size: int | None,
    shards: Path | None,
    target: tuple[str, ...],
    weights: str,
    weights_key: str | None,
    final: bool,
    solver: str,
    steps: int,
    seed: int,
    device: str,
    workers: int,
    as_json: bool,
    **tuning: Any,
) -> None:
    """Score a pre-trained network on tasks that it was not trained on.

    \b
    svm        linear SVM on frozen features; C by cross-validation over groups
    logistic   logistic regression on frozen features
    knn        nearest neighbours among frozen features
    eva        linear layer by the recipe of kaiko-eva; five runs
    fewshot    scores by number of training images per class
    finetune   fine-tuning; the validation set chooses rate and epoch
    scratch    the same training from random weights
    joint      the run's own head, for a task that it trained on
    dense      a small decoder of masks and points; --tune trains the network too

    \b
    Example: mtrain transfer --mode svm
    """
    from mtrain.transfers.request import places, targets, unread, weights_of, with_set

    run = network_of(runs, name, weights, backbone, backbone_options, size)
    tasks, weights, report = (
        targets(run, shards, target, mode),
        weights_of(run, weights, mode, weights_key),
        reporter(quiet or as_json),
    )
    note_unused(report, unread([mode], weights) | places(target))
    if mode == "joint" and not target:  # the tasks are those of the run, which nobody chose to be scored
        tasks, passed_over = with_set(tasks, "test" if final else "val")
        for note in passed_over:
            report.note(note)
    from mtrain.cli import transfer_lines, transfer_work
    from mtrain.transfers.dense.dense_tuned import Moving
    from mtrain.transfers.transfer import TransferOptions

    recipe = transfer_work.recipe(**tuning, seed=seed, device=device)
    moving = transfer_work.moving(*transfer_work.moved(tuning)) if mode == "dense" else Moving()
    note_unused(report, transfer_work.unmoved([mode], tuning["tune"]))
    options = TransferOptions(mode, final, solver, workers, recipe, steps, moving)
    drawn = seed if mode == "scratch" or is_given("seed") else None
    results, failures = transfer_work.transfers(run, tasks, weights, options, report, weights_key, drawn)
    answer(transfer_lines.transfer_lines(results, run), results, as_json=as_json)
    end(failures)


@click.command(cls=Detailed, rarely=RARELY)
@FEATURES_OF
@TASKS
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True, help="Data type."
)
@click.option("--out", type=FOLDER, default=Path("features"), show_default=True, help="Output folder.")
@DEVICE
@WORKERS
@JSON
def features(
    runs: Path,
    quiet: bool,
    name: str | None,
    backbone: str | None,
    backbone_options: dict[str, Any] | None,
    size: int | None,
    weights: str,
    weights_key: str | None,
    shards: Path | None,
    tasks: tuple[str, ...],
    dtype: str,
    out: Path,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Write a frozen network's features: <Task>-train.npy and <Task>-val.npy, each with a .csv that describes its rows.

    \b
    Example: mtrain features --task Lung --dtype float16
    """
    from mtrain.transfers.request import places, targets, weights_of

    run = network_of(runs, name, weights, backbone, backbone_options, size)
    chosen, weights, report = (
        targets(run, shards, tasks, option="--task"),
        weights_of(run, weights, key=weights_key),
        reporter(quiet or as_json),
    )
    note_unused(report, places(tasks))
    from mtrain.cli import transfer_work
    from mtrain.transfers.transfer import source_of

    source = source_of(run, weights, key=weights_key)
    files, failures = transfer_work.feature_files(source, chosen, out, dtype, workers, device, report)
    paths = [str(path) for path in files]
    answer(paths, paths, as_json=as_json)
    end(failures)
