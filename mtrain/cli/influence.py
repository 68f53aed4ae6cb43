"""The command that estimates what each source task did to a target: `influence`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import JSON, QUIET, Detailed, answer
from mtrain.cli.options import CACHE, CHECK, DEVICE, FOLDER, RUNS, WORKERS, reporter, run_of
from mtrain.cli.unused_options import note_unused


@click.command(cls=Detailed, rarely=("cache", "cache_size", "check_images", "dimensions", "subsets", "matrix", "alone"))
@RUNS
@QUIET
@click.option("--run", "name", metavar="NAME", help="Run that left the target out.  [default: the newest]")
@click.option("--target", metavar="TASK", help="Task to estimate for.  [default: the one that the run left out]")
@click.option("--shards", type=FOLDER, help="Folder of the tasks.  [default: the run's]")
@CACHE
@CHECK
@click.option(
    "--layers",
    type=click.Choice(["last", "all"]),
    default="last",
    show_default=True,
    help="Weights that may move: the last stage of the network, or all.",
)
@click.option(
    "--samples",
    type=WholeRange(1),
    default=200,
    show_default=True,
    help="Maximum number of images of each source task.",
)
@click.option(
    "--dimensions",
    type=WholeRange(2),
    default=200,
    show_default=True,
    help="Number of dimensions that gradients are projected to.",
)
@click.option(
    "--subsets",
    type=WholeRange(2),
    default=200,
    show_default=True,
    help="Number of subsets to estimate; of up to 8 source tasks, all.",
)
@click.option(
    "--verify",
    type=WholeRange(1),
    help="Also train on N random subsets of the tasks, and compare the estimate with the result.",
)
@click.option(
    "--matrix",
    type=WholeRange(1),
    help="Also train a network on each single task, for N iterations, and probe each on every other task.",
)
@click.option(
    "--alone",
    multiple=True,
    metavar="RUN",
    help="Run that was trained on only one of the tasks, for the matrix; may be repeated.",
)
@click.option("--seed", type=WholeRange(0), default=0, show_default=True, help="Random seed.")
@DEVICE
@WORKERS
@JSON
def influence(
    runs: Path,
    quiet: bool,
    name: str | None,
    target: str | None,
    shards: Path | None,
    verify: int | None,
    matrix: int | None,
    alone: tuple[str, ...],
    device: str,
    workers: int,
    as_json: bool,
    **how: Any,
) -> None:
    """Estimate what each task of a run did to a target that the run left out, without training again.

    theta is by how much a source task lowers the target's loss: above 0 the task helps, below 0 it harms. `mtrain fit
    --drop FILE` leaves out the tasks that harm. The test set of the target is not read.

    \b
    Example: mtrain influence --run RUN --target Lung
    """
    from mtrain.errors import UsageError
    from mtrain.runs.run_names import open_run
    from mtrain.transfers.request import targets

    run, singles = run_of(runs, name, to_score=True), [open_run(runs, one) for one in alone]
    run.check_finished()
    found = targets(run, shards, [target] if target else [])
    if len(found) != 1:
        names = ", ".join(task.name for task in found)
        raise UsageError("this run left several tasks out", found=names, remedy="name one with --target")
    (task,) = found
    if verify is not None and verify < 3:
        raise UsageError(f"--verify {verify} is too few", expected="3 or more")
    from mtrain.disk.documents import write_document
    from mtrain.influence.estimator import InfluenceOptions
    from mtrain.influence.matrix import matrix as transfer_matrix
    from mtrain.influence.retraining import verify as compare
    from mtrain.influence.subsets import ALL_UP_TO
    from mtrain.influence.task_effects import influence as estimate
    from mtrain.influence.task_effects import path_of
    from mtrain.report.pages.influence_page import lines, write_page

    report = reporter(quiet or as_json)
    if len(run.about().get("pool", {})) <= ALL_UP_TO:
        note_unused(report, {"subsets": f"all subsets of up to {ALL_UP_TO} source tasks are estimated"})
    options, folder = InfluenceOptions(**how, workers=workers, device=device), shards or run.config().shards
    content, estimator = estimate(run, task, folder, options, report)
    path = path_of(run, task.name, options.layers)
    if verify is not None:
        content["verification"] = compare(
            run, task, folder, estimator(), verify, options.seed, report, workers=workers, device=device
        )
        write_document(path, content)
    if matrix is not None or singles:
        content["matrix"] = transfer_matrix(run, task, folder, singles, matrix, report, workers=workers, device=device)
        write_document(path, content)
    page = write_page(run)
    answer([*lines(content), *_files(path, page)], content | {"file": str(path), "page": str(page)}, as_json=as_json)


def _files(path: Path, page: Path) -> Iterator[str]:
    yield f"{path} (for mtrain fit --drop)"
    yield str(page)
