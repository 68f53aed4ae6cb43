"""The commands of a sweep: `sweep` runs its cells, `select` ranks the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.runtime.finite import WholeRange
from dpconvert.runtime.terminal import INTERRUPTED, JSON, QUIET, Detailed, answer, say
from mtrain.cli.options import CACHE, CHECK, DEVICE, FOLDER, OUT, SWEEPS, WORKERS, reporter
from mtrain.cli.unused_options import note_unused

if TYPE_CHECKING:
    from mtrain.sweep.command import SweepRequest


@click.command(
    cls=Detailed, rarely=("sweeps", "cache", "cache_size", "check_images", "address", "cpus", "part", "parts")
)
@SWEEPS
@QUIET
@click.argument("file")
@click.option("--shards", type=FOLDER, help="Folder of the tasks.  [default: that in FILE]")
@CACHE
@CHECK
@click.option(
    "--plan", "only_plan", is_flag=True, help="Print what remains to be done and estimate the time; run nothing."
)
@click.option("--jobs", type=WholeRange(1), help="Cells to run in parallel.  [default: measured on a GPU, else 1]")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Run on this machine, or on a Ray cluster that shares the folders.",
)
@click.option(
    "--address", metavar="ADDRESS", help="Address of the Ray cluster.  [default: $RAY_ADDRESS, a running or a new one]"
)
@click.option("--cpus", type=WholeRange(1), help="Processors that each cell requests from the cluster.  [default: 1]")
@click.option("--part", metavar="I/N", help="Run only the I-th of N parts of the cells.")
@click.option("--sbatch", type=OUT, help="Write a SLURM script that runs the parts, and exit.")
@click.option("--retry-failed", is_flag=True, help="Run failed cells again.")
@click.option(
    "--parts",
    type=WholeRange(1),
    help="Number of parts, or of jobs of a race.  [default: one per seed, left-out set and network; race: one per set]",
)
@click.option("--race", is_flag=True, help="Drop combinations as soon as they cannot win for any target.")
@click.option("--status", is_flag=True, help="Print the state of the race without running anything.")
@JSON
def sweep(file: str, quiet: bool, as_json: bool, **options: Any) -> None:
    """Train and score every cell of a sweep: left-out sets x combinations x seeds.

    Finished cells are kept: run the command again to resume, or after adding a seed, a value or a task. With --race,
    most cells are not needed; a later run without it completes the grid. FILE is a TOML file, or the name of one that
    comes with the program: paper, workstation, real-small.

    \b
    Example: mtrain sweep manifests/sweeps/workstation.toml --plan
    """
    from mtrain.sweep.command import SweepRequest, run_sweep

    report = reporter(quiet or as_json)
    note_unused(report, unused_in_sweep(options))
    request = SweepRequest(file=file, **options)
    if request.race or request.status:
        from mtrain.race.command import run_race

        done = run_race(request, report)
    else:
        done = run_sweep(request, report)
    answer([*done.lines, *_judged(request, done.found)], done.found, as_json=as_json)
    if done.stopped:
        say("mtrain: stopped; checkpoints are saved: run the same command again to resume")
        sys.exit(INTERRUPTED)
    if done.failures:
        for failure in done.failures:
            say(failure, bold=True)
        say("mtrain: error: cells failed; resolve the errors above, then run the command again with --retry-failed")
        sys.exit(1)


def _judged(request: SweepRequest, found: Mapping[str, Any]) -> list[str]:
    """Whether a race was right, once a run without it has completed the grid."""
    if request.race or request.status or request.only_plan:
        return []
    if "scored" not in found or found["scored"] != found["cells"]:
        return []
    from mtrain.race.verdict import verdict
    from mtrain.sweep.store import Store

    return verdict(Store(Path(found["folder"])))


def unused_in_sweep(options: Mapping[str, Any]) -> dict[str, str]:
    """Options that have no effect beside the others -> why."""
    unused = {} if options["sbatch"] else {"parts": "it is for --sbatch"}
    if options["sbatch"] or options["only_plan"] or options["status"]:
        running = "--sbatch" if options["sbatch"] else "--plan" if options["only_plan"] else "--status"
        running += " runs nothing"
        unused |= dict.fromkeys(("jobs", "engine", "address", "cpus", "retry_failed"), running)
    if options["status"]:
        unused |= dict.fromkeys(("shards", "race"), "--status reads the race that was run")
    if options["sbatch"]:
        unused |= dict.fromkeys(("only_plan", "part"), "--sbatch writes a script for all parts")
    return unused


@click.command()
@SWEEPS
@QUIET
@click.option("--sweep", "name", metavar="NAME", help="Sweep to rank.  [default: the newest]")
@click.option("--incomplete", is_flag=True, help="Rank the existing results even if some are missing.")
@click.option("--soup", is_flag=True, help="Also average the weights of each choice's seeds, and score the average.")
@click.option("--shards", type=FOLDER, help="With --soup, folder of the tasks.  [default: that of the sweep]")
@CHECK
@DEVICE
@WORKERS
@JSON
def select(
    sweeps: Path,
    quiet: bool,
    name: str | None,
    incomplete: bool,
    soup: bool,
    shards: Path | None,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Rank the combinations of a sweep, and choose one for each target.

    The scores on a target do not influence the choice for it. Writes selected.json to the sweep's folder; with --soup,
    also soups/, with a run for each average, scored on validation sets as the sweep scores its cells.

    \b
    Example: mtrain select --sweep workstation
    """
    from mtrain.sweep.store import open_store

    store = open_store(sweeps, name)
    from mtrain.evaluation.selecting import selected, selection, selection_lines
    from mtrain.race.verdict import verdict

    found, report = selection.select(store, incomplete=incomplete), reporter(quiet or as_json)
    if incomplete and not found.missing:
        note_unused(report, {"incomplete": "no score is missing for this choice"})
    content, soups = selected.content(found, store), list[str]()
    store.write_selection(content)
    if soup:
        from mtrain.evaluation.selecting import selection_soups

        content = selection_soups.with_soups(content, store, shards, device, workers, report)
        store.write_selection(content)
        soups = ["", *selection_soups.lines(content)]
    else:
        note_unused(report, dict.fromkeys(("shards", "device", "workers"), "only --soup uses it"))
    answer([*selection_lines.lines(found), *soups, *verdict(store)], content, as_json=as_json)
