"""Choose how many cells of a sweep run at once on this machine: by a record, by a measurement, or one on each GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dpconvert.plural import counted
from dpconvert.runtime.processes import processors
from dpconvert.runtime.progress import Reporter
from mtrain.sweep.cells import Cell
from mtrain.sweep.concurrency.capacity import COST, FASTEST, Capacity, JobLimits, kind, record, recorded
from mtrain.sweep.concurrency.cards import Cards
from mtrain.sweep.store import Store
from mtrain.sweep.sweep_cost import span

FIRST = 20.0  # seconds that the first level is expected to take
OTHERWISE = "--jobs sets another number"


@dataclass(frozen=True)
class JobChoice:
    """Cells at once on each GPU, and the line that explains it. capacities: those measured, by network."""

    at_once: int
    line: str | None = None
    capacities: tuple[Capacity, ...] = ()


def jobs(store: Store, cells: Sequence[Cell], cards: Cards, taken: Sequence[str], report: Reporter) -> int | None:
    """Return how many cells to run at once on this machine, and say why; None if a signal stopped the measurement.

    cells: those that are left. taken: lines on GPUs that another sweep uses, beside which nothing is measured.
    """
    if not cards.cards or not cells:
        return 1
    choice = _choice(store, cells, cards, taken, report)
    if choice is None:
        return None
    if choice.line is not None:
        report.note(choice.line)
    return choice.at_once * len(cards.cards)


def outlook(store: Store, cells: Sequence[Cell], cards: Cards, hours: float) -> tuple[list[str], dict[str, Any]]:
    """Return the time that the cells take on this machine, if they take `hours` one after the other on one GPU.

    It is that of the number of cells at once that was measured before, else of one on each GPU. Lines, and for JSON.
    """
    count = len(cards.cards)
    if not count or not cells:
        return [], {"jobs": 1, "hours_here": hours}
    choice = known(store, cells, cards)
    at_once = 1 if choice is None else choice.at_once
    speed_up = 1.0 if choice is None else min(one.speed_up(at_once) for one in choice.capacities)
    here = hours / (speed_up * count)
    why = "not measured yet: `mtrain sweep` does at its start" if choice is None else choice.line
    line = f"on this machine: {span(here)} with {counted(at_once, 'cell')} at once on each of {counted(count, 'GPU')}"
    return [f"{line} ({why})"], {"jobs": at_once * count, "hours_here": here}


def known(store: Store, cells: Sequence[Cell], cards: Cards) -> JobChoice | None:
    """Return the choice by the records of earlier measurements; None if there is none for some of the cells."""
    machine, limits = cards.machine(), _limits(store, cells, cards)
    found = {name: recorded(store.path, kind(cell.config), machine, limits) for name, cell in _kinds(cells).items()}
    capacities = {name: capacity for name, capacity in found.items() if capacity is not None}
    if len(capacities) < len(found) or not capacities:
        return None
    return _chosen(capacities, "measured before")


def _choice(
    store: Store, cells: Sequence[Cell], cards: Cards, taken: Sequence[str], report: Reporter
) -> JobChoice | None:
    alone = "1 cell at once on each GPU"
    if taken:
        return JobChoice(1, f"{'; '.join(taken)}: {alone}; {OTHERWISE}")
    if (before := known(store, cells, cards)) is not None:
        return before
    limits = _limits(store, cells, cards)
    if reason := _not_measured(cells, limits):
        return JobChoice(1, None if len(cells) == 1 else f"{alone}: {reason}; {OTHERWISE}")
    found = {}
    for name, cell in _kinds(cells).items():
        capacity = measured(store, cell, cards, limits, report)
        if capacity is None:
            return None
        found[name] = capacity
    return _chosen(found, "")


def measured(store: Store, cell: Cell, cards: Cards, limits: JobLimits, report: Reporter) -> Capacity | None:
    """Measure one kind of cell, and keep what was found unless other programs were using the GPU."""
    from mtrain.sweep.concurrency.probing import measure
    from mtrain.sweep.engines.local_engine import share_of_machine

    machine, first = cards.machine(), cards.cards[0]
    if first.is_busy:
        report.note(
            f"other programs use GPU {first.name} ({first.used / 1024:.1f} GiB of memory, {first.load:.0f}% of the "
            "time): measuring beside them; not recorded"
        )
    share = share_of_machine(0, min(limits.by_processors, limits.cells), cards)
    capacity = measure(cell.config, store.path / "capacity" / "none", limits, share, report)
    if capacity is not None and capacity.levels and not first.is_busy:
        record(store.path, kind(cell.config), machine, capacity)
    return capacity


def _chosen(found: dict[str, Capacity], how: str) -> JobChoice:
    """Return the smallest of the numbers that were found for several networks."""
    at_once = min(capacity.at_once for capacity in found.values())
    named = len(found) > 1
    lines = [f"{name}, {capacity}" if named else str(capacity) for name, capacity in found.items()]
    line = f"{'; '.join(lines)}: {counted(at_once, 'cell')} at once on each GPU{f' ({how})' if how else ''}"
    return JobChoice(at_once, line, tuple(found.values()))


def _kinds(cells: Sequence[Cell]) -> dict[str, Cell]:
    """Return the first cell of each kind, by its network; further settings of a kind are numbered."""
    found: dict[str, Cell] = {}
    seen: list[dict[str, object]] = []
    for cell in cells:
        settings = kind(cell.config)
        if settings in seen:
            continue
        seen.append(settings)
        name = cell.config.backbone
        found[name if name not in found else f"{name} ({len(found) + 1})"] = cell
    return found


def _limits(store: Store, cells: Sequence[Cell], cards: Cards) -> JobLimits:
    """Return the limits for one of the GPUs. Each kind of cell is taken to have an equal share of the images."""
    count = len(cards.cards)
    images = sum(
        cell.config.batch * max(cell.config.iterations - store.run(cell.training).state()[1], 0) for cell in cells
    )
    loaders = max(cell.config.workers for cell in cells)
    return JobLimits(-(-len(cells) // count), images / count / len(_kinds(cells)), processors() // count, loaders)


def _not_measured(cells: Sequence[Cell], limits: JobLimits) -> str | None:
    """Return why measuring is not worth while, or cannot change the choice; None if it is."""
    if limits.cells == 1:
        return f"{counted(len(cells), 'cell')} left"
    if limits.by_processors == 1:
        return limits.too_few_processors
    if any(cell.config.features == "cached" for cell in cells):
        return "not measured for features = cached"
    if not limits.worth(FIRST, FASTEST):
        return f"the work left is too short to measure more in {COST:.0%} of it"
    return None
