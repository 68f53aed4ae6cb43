"""The command that combines the weights of runs: `soup`."""

from __future__ import annotations

from pathlib import Path

import click

from dpconvert.runtime.finite import FiniteRange
from dpconvert.runtime.terminal import JSON, QUIET, Detailed, answer
from mtrain.cli.options import CACHE, CHECK, DEVICE, FOLDER, RUNS, WORKERS, reporter
from mtrain.cli.unused_options import note_unused


@click.command(cls=Detailed, rarely=("cache", "cache_size", "check_images"))
@RUNS
@QUIET
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@click.option("--name", required=True, metavar="NAME", help="Name of the new run.")
@click.option(
    "--remove",
    "removed",
    multiple=True,
    metavar="RUN",
    help="Subtract what this run has learnt; may be repeated.",
)
@click.option(
    "--factor",
    type=FiniteRange(0, min_open=True),
    metavar="F",
    help="Add what each run has learnt, times F, to the weights that all began from.  [default: average them; with "
    "--remove: 1]",
)
@click.option("--shards", type=FOLDER, help="Folder of the tasks.  [default: that of the first run]")
@CACHE
@CHECK
@DEVICE
@WORKERS
@JSON
def soup(
    runs: Path,
    quiet: bool,
    names: tuple[str, ...],
    name: str,
    removed: tuple[str, ...],
    factor: float | None,
    shards: Path | None,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Average the weights of runs that began from the same weights, or add and remove what runs have learnt.

    The new run can be transferred, exported and used for predictions; no training resumes it. In an average, the
    statistics of batch normalization are measured on training images. Sums need a network without batch normalization.

    \b
    Example: mtrain soup seed0 seed1 seed2 --name average
    Sum: mtrain soup lung colon skin --factor 1 --name sum
    """
    from mtrain.runs.run_names import named_run, open_run

    into = named_run(runs, name)
    added, gone = (tuple(open_run(runs, one) for one in given) for given in (names, removed))
    from mtrain.soups.making import make
    from mtrain.soups.weight_arithmetic import SoupRecipe

    report = reporter(quiet or as_json)
    found = make(SoupRecipe(added, gone, factor), into, report, shards=shards, device=device, workers=workers)
    note_unused(report, {} if found["images"] else {"shards": "no images were needed"})
    answer([f"{into.name}: {found['text']} -> {into.path}"], found | {"folder": str(into.path)}, as_json=as_json)
