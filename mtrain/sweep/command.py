"""`mtrain sweep`: plan a sweep, write a SLURM script for it, or run it.

The modules that run cells are imported where they are used, so wrong arguments are reported before torch is loaded.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from dpconvert.runtime.ray_cluster import Cluster
from mtrain.data.addresses import absolute
from mtrain.disk.atomic import write_text
from mtrain.errors import UsageError
from mtrain.sweep.cells import Cell, cells_of, part_of
from mtrain.sweep.concurrency.cards import in_use
from mtrain.sweep.engines import slurm
from mtrain.sweep.engines.agenda import Agenda, agenda_of
from mtrain.sweep.left_out import LeftOut, left_out_sets
from mtrain.sweep.spec import Sweep, load_sweep
from mtrain.sweep.store import Store
from mtrain.used import mark

if TYPE_CHECKING:
    from mtrain.sweep.engines.local_engine import SweepState


@dataclass(frozen=True)
class SweepRequest:
    """The command's options."""

    file: str
    sweeps: Path
    shards: Path | None = None
    only_plan: bool = False
    jobs: int | None = None
    engine: str = "local"
    address: str | None = None
    cpus: int | None = None
    part: str | None = None
    sbatch: Path | None = None
    parts: int | None = None
    retry_failed: bool = False
    race: bool = False
    status: bool = False


@dataclass(frozen=True)
class SweepResult:
    """The output for people and for programs, whether a signal stopped the work, and lines on failed cells."""

    lines: list[str]
    found: dict[str, Any]
    stopped: bool = False
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A sweep on the available shards: its left-out sets, all its cells, and the folder that lists them."""

    sweep: Sweep
    sets: dict[tuple[str, ...], LeftOut]
    cells: list[Cell]
    store: Store


def open_sweep(request: SweepRequest, report: Reporter) -> Opened:
    """Return the requested sweep.

    Raises:
        UserError: the file or the shards cannot be used.
    """
    sweep = load_sweep(request.file)
    shards = absolute(request.shards or sweep.shards)
    sweep = sweep.model_copy(update={"shards": shards})
    sets = left_out_sets(sweep)
    for note in dict.fromkeys(note for left in sets.values() for note in (*left.pool.notes, *left.notes)):
        report.note(note)
    cells = cells_of(sweep, sets)
    for note in _idle(sweep, cells):
        report.note(note)
    store = Store(request.sweeps / sweep.name)
    store.write_plan(sweep, cells)
    return Opened(sweep, sets, cells, store)


def run_sweep(request: SweepRequest, report: Reporter) -> SweepResult:
    """Run the command.

    Raises:
        UserError: a file, an option or the shards cannot be used.
    """
    part = _part(request.part)
    planned = open_sweep(request, report)
    sweep, cells, store = planned.sweep, planned.cells, planned.store
    chosen = part_of(cells, part)
    if request.sbatch is not None:
        return script(request, request.sbatch, sweep, cells)
    if request.only_plan:
        return _plan(store, chosen, list(planned.sets.values()), report)
    if request.retry_failed:
        forget_failed(store, chosen, report)
    stopped = run_cells(request, store, chosen, report) == "stopped"
    scored, failed = sum(store.has(cell) for cell in cells), store.failed(cells)
    found = {"sweep": sweep.name, "folder": str(store.path), "cells": len(cells), "scored": scored, "failed": failed}
    failures = f", {len(failed)} of them failed" if failed else ""
    lines = [f"{sweep.name}: {scored} of {counted(len(cells), 'cell')}{failures} -> {store.path}"]
    return SweepResult(lines, found, stopped, reasons(store.failed(chosen)))  # a part answers for its own cells


def _idle(sweep: Sweep, cells: Sequence[Cell]) -> list[str]:
    """Return notes on settings of [fit] and [transfer] that have no effect in any cell."""
    every = [cell.config.idle() for cell in cells]
    unread = [f"transfer.{name} is not used: {why}" for name, why in sweep.transfer.idle().items()]
    return unread + [
        f"fit.{name} is not used: {every[0][name]}" for name in sweep.fit if all(name in one for one in every)
    ]


def reasons(failed: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Return one line per task and reason, with the number of cells."""
    counts = Counter((task, reason) for failures in failed.values() for task, reason in failures.items())
    return tuple(f"{task} in {counted(count, 'cell')}: {reason}" for (task, reason), count in sorted(counts.items()))


def forget_failed(store: Store, cells: Sequence[Cell], report: Reporter) -> None:
    """Have failed cells run again, with a note if there are none."""
    if not store.forget_failed(cells):
        report.note("--retry-failed is not used: no cell has failed")


def run_cells(request: SweepRequest, store: Store, cells: Sequence[Cell] | Agenda, report: Reporter) -> SweepState:
    """Run the cells that are due, with the requested engine.

    Raises:
        UserError: the options cannot be combined, or a cell failed with this error.
    """
    if request.engine == "ray":
        if request.jobs is not None:
            raise UsageError("--jobs is for --engine local; a cluster runs as many cells as it has room for")
        from mtrain.sweep.engines import ray_engine

        return ray_engine.run(store, cells, Cluster(request.address), ray_engine.Resources(request.cpus or 1), report)
    if request.address is not None or request.cpus is not None:
        raise UsageError("--address and --cpus are for --engine ray")
    from mtrain.sweep import at_once
    from mtrain.sweep.engines import local_engine

    agenda = agenda_of(cells)
    cards = local_engine.cards_of(agenda.cells)
    with in_use(cards) as taken:
        jobs = request.jobs
        if jobs is None:
            jobs = at_once.jobs(store, agenda.due(store, report), cards, taken, report)
        return "stopped" if jobs is None else local_engine.run(store, agenda, jobs, report)


def _plan(store: Store, cells: Sequence[Cell], sets: Sequence[LeftOut], report: Reporter) -> SweepResult:
    from mtrain.sweep.at_once import outlook
    from mtrain.sweep.engines.local_engine import cards_of
    from mtrain.sweep.sweep_cost import measured, plan

    paces = measured((cell for cell in cells if not store.has(cell)), sets, report)
    found = plan(store, cells, sets, paces)
    lines, here = outlook(store, [cell for cell in cells if not store.has(cell)], cards_of(cells), found.hours)
    failed = len(store.failed(cells))
    failures = [f"{counted(failed, 'cell')} of these failed; --retry-failed runs failed cells again"] if failed else []
    return SweepResult([*found.lines(store.name), *failures, *lines], found.json() | {"failed": failed} | here)


def script(request: SweepRequest, path: Path, sweep: Sweep, cells: Sequence[Cell]) -> SweepResult:
    """Write a SLURM script, by default with one part per seed, left-out set and network, so that warm-ups are shared.

    The jobs of a race are all identical.
    """
    groups = {(cell.config.seed, cell.tasks, cell.config.backbone) for cell in cells}
    file = str(Path(request.file).absolute()) if Path(request.file).is_file() else request.file
    options = ["--sweeps", str(request.sweeps.absolute()), "--shards", sweep.shards]
    alike = len({cell.tasks for cell in cells})
    parts = min(request.parts or (alike if request.race else len(groups)), len(cells))
    options += list(_inherited())
    if request.race:
        options.append("--race")
    write_text(path, slurm.sbatch(file, options, sweep.name, parts, by_part=not request.race))
    line = f"{path}: {counted(parts, 'job' if request.race else 'part')}; submit it with: sbatch {path}"
    return SweepResult([line], {"script": str(path), "parts": parts})


def _inherited() -> Iterator[str]:
    """The options for reading shards that this command was given, which reach its modules as variables."""
    for variable, option in (("MTRAIN_CACHE", "--cache"), ("MTRAIN_CACHE_SIZE", "--cache-size")):
        if variable in os.environ:
            value = os.environ[variable]
            yield from (option, str(Path(value).absolute()) if option == "--cache" else value)
    if os.environ.get("MTRAIN_CHECK_IMAGES", "1") == "0":
        yield "--no-check-images"
    mark("cache", "cache_size", "check_images")


def _part(given: str | None) -> tuple[int, int]:
    if given is None:
        return 1, 1
    found = re.fullmatch(r"(\d+)/(\d+)", given)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError("--part is I/N with I from 1 to N", found=given, remedy="for example --part 1/8")
    return int(found[1]), int(found[2])
