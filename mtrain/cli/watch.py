"""The command `watch`: a run or a sweep as it goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dpconvert.runtime.finite import FiniteRange
from dpconvert.runtime.terminal import JSON, answer
from mtrain.cli.options import RUNS, SWEEPS, reporter, run_of
from mtrain.cli.unused_options import note_unused


@click.command()
@RUNS
@SWEEPS
@click.argument("name", required=False)
@click.option("--run", "run", metavar="NAME", help="Run to watch.  [default: the newest]")
@click.option("--sweep", metavar="NAME", help="Sweep to watch instead of a run.")
@click.option("--once", is_flag=True, help="Print the state once and exit.")
@click.option(
    "--every",
    type=FiniteRange(0.5),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two readings.",
)
@JSON
def watch(
    runs: Path,
    sweeps: Path,
    name: str | None,
    run: str | None,
    sweep: str | None,
    once: bool,
    every: float,
    as_json: bool,
) -> None:
    """Show the progress of a run or a sweep: iterations, time left, losses, scores, and the ranks so far.

    NAME is that of a run or of a sweep, or the path of its folder. The command only reads the files of the training,
    and ends when the training ends. With --json, or if the output is not a terminal, it prints the state once.

    \b
    Example: mtrain watch demo
    """
    if name is not None:
        run, sweep = _named(runs, sweeps, name, run, sweep)
    said = reporter(as_json)
    once = once or as_json or not sys.stdout.isatty()
    if once and every != 5.0:
        note_unused(said, {"every": "the state is printed once"})
    if sweep is not None:
        note_unused(said, dict.fromkeys(("runs", "run"), "--sweep names a sweep instead of a run"))
        from mtrain.report.watch import sweep_status
        from mtrain.sweep.store import open_store

        store = open_store(sweeps, sweep)
        _show(lambda: sweep_status(store), every, once=once, as_json=as_json)
        return
    note_unused(said, {"sweeps": "it is for --sweep"})
    watched = run_of(runs, run)
    from mtrain.report.watch import run_status

    _show(lambda: run_status(watched), every, once=once, as_json=as_json)


def _named(runs: Path, sweeps: Path, name: str, run: str | None, sweep: str | None) -> tuple[str | None, str | None]:
    """The name of a run, or else that of a sweep.

    Raises:
        UsageError: neither or both have this name, or an option names another.
    """
    from mtrain.errors import UsageError
    from mtrain.runs.run_folder import Run
    from mtrain.runs.run_names import all_runs

    if run is not None or sweep is not None:
        raise UsageError("two things to watch", found=name, remedy="give NAME, --run or --sweep")
    is_run = any(one.exists for one in (Run(runs / name), Run(Path(name))))
    is_sweep = any((path / "sweep.json").is_file() for path in (sweeps / name, Path(name)))
    if is_run and is_sweep:
        raise UsageError(f"both a run and a sweep are called {name}", remedy=f"give --run {name} or --sweep {name}")
    if not is_run and not is_sweep:
        known = [run.name for run in all_runs(runs)], sorted(path.parent.name for path in sweeps.glob("*/sweep.json"))
        lists = (", ".join(names) or "none" for names in known)
        raise UsageError(f"no run and no sweep named {name!r}", remedy="runs: {}; sweeps: {}".format(*lists))
    return (None, name) if is_sweep else (name, None)


def _show(read: Callable[[], dict[str, Any]], every: float, *, once: bool, as_json: bool) -> None:
    from mtrain.report.watch import ended, lines

    if once:
        status = read()
        answer(lines(status), status, as_json=as_json)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def drawn(status: dict[str, Any]) -> Text:
        return Text("\n".join(lines(status)))

    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            status = read()
            live.update(drawn(status), refresh=True)
            if ended(status):
                return
            time.sleep(every)
