"""The commands of a sweep: `sweep` runs its cells, `select` ranks what came out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dpconvert.runtime.terminal import INTERRUPTED, JSON, QUIET, Detailed, answer, say
from mtrain.cli.options import CACHE, CHECK, FOLDER, OUT, SWEEPS, note_unused, reporter


@click.command(
    cls=Detailed, rarely=("sweeps", "cache", "cache_size", "check_images", "address", "cpus", "part", "parts")
)
@SWEEPS
@QUIET
@click.argument("file")
@click.option("--shards", type=FOLDER, help="[default: what the file says]")
@CACHE
@CHECK
@click.option("--plan", "only_plan", is_flag=True, help="Say what there is to do and how long it takes; run nothing.")
@click.option("--jobs", type=click.IntRange(1), help="Processes at once.  [default: one a GPU, else 1]")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Processes of this machine, or a Ray cluster that shares the folders.",
)  # fmt: skip
@click.option("--address", help="Of the Ray cluster.  [default: $RAY_ADDRESS, one that runs here, a new one]")
@click.option("--cpus", type=click.IntRange(1), help="Processors a cell on the cluster asks for.  [default: 1]")
@click.option("--part", metavar="I/N", help="Only the I-th of N parts of the cells.")
@click.option("--sbatch", type=OUT, help="Write a SLURM script that runs the parts; run nothing.")
@click.option("--retry-failed", is_flag=True, help="Run the cells that failed again.")
@click.option("--parts", type=click.IntRange(1), help="[default: one a seed, left-out set and network]")
@JSON
def sweep(file: str, quiet: bool, as_json: bool, **options: Any) -> None:
    """Train and score every cell of a sweep: left-out sets x combinations x seeds.

    What is there is kept: run it again to go on, or after adding a seed, a value or a task. FILE is TOML, or the name
    of one that comes with the program: paper, workstation, real-small.

    \b
    Example: mtrain sweep manifests/sweeps/workstation.toml --plan
    """
    from mtrain.sweep.command import Asked, run_sweep

    report = reporter(quiet or as_json)
    note_unused(report, _unused(options))
    done = run_sweep(Asked(file=file, **options), report)
    answer(done.lines, done.found, as_json=as_json)
    if done.stopped:
        say("mtrain: stopped with checkpoints; the same command goes on")
        sys.exit(INTERRUPTED)
    if done.failures:
        for failure in done.failures:
            say(failure, bold=True)
        say("mtrain: error: cells failed; mend what is told above, and run the command again with --retry-failed")
        sys.exit(1)


def _unused(options: Mapping[str, Any]) -> dict[str, str]:
    """Options that have no effect beside the others -> why."""
    unused = {} if options["sbatch"] else {"parts": "it is for --sbatch"}
    if options["sbatch"] or options["only_plan"]:
        running = "--sbatch runs nothing" if options["sbatch"] else "--plan runs nothing"
        unused |= dict.fromkeys(("jobs", "engine", "address", "cpus", "retry_failed"), running)
    if options["sbatch"]:
        unused |= dict.fromkeys(("only_plan", "part"), "--sbatch writes a script for all parts")
    return unused


@click.command()
@SWEEPS
@click.option("--sweep", "name", metavar="NAME", help="[default: the newest]")
@click.option("--incomplete", is_flag=True, help="Compare what is there, though results are missing.")
@JSON
def select(sweeps: Path, name: str | None, incomplete: bool, as_json: bool) -> None:
    """Rank the combinations of a sweep, and choose one for each target.

    The target's own rank does not count. Written to selected.json in the sweep's folder.

    \b
    Example: mtrain select --sweep workstation
    """
    from mtrain.sweep.store import open_store

    store = open_store(sweeps, name)
    from mtrain.evaluation import selection

    found = selection.select(store, incomplete=incomplete)
    content = selection.content(found, store)
    store.write_selection(content)
    answer(selection.lines(found), content, as_json=as_json)
