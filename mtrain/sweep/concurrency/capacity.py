"""How many cells of a sweep one GPU and its share of the processors carry at once: decided from measured rates.

1 cell is measured, then 2, 4, 8 at once. The number is doubled while the images per second of all together grow by a
tenth or more, and while processors, memory and the cells that are left allow it.

sweeps/<name>/capacity/<digest>.json   one record for each kind of cell on each kind of machine
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpconvert.plural import counted
from mtrain.config import FitConfig
from mtrain.disk.documents import known_document, short_digest, write_document

GROWTH = 1.1  # of the rate, for which the number of cells at once is doubled
COST = 0.05  # share of the work that a measurement may take at most
RESERVE = 0.1  # share of the memory that stays free, for what a cell does besides its iterations
FASTEST = 3000  # images per second that are assumed before anything is measured
# settings of a cell that hardly change its speed
ALIKE = (
    "shards",
    "leave_out",
    "seed",
    "lr",
    "tau",
    "warmup",
    "warmup_lr",
    "iterations",
    "weights",
    "weights_key",
    "adapt_batches",
    "checkpoint_every",
    "validate_every",
    "log_every",
    "log_cosines",
    "momentum",
    "layer_decay",
    "skip_corrupt",
)


class JobLevel(BaseModel):
    """So many cells at once, and their images per second together."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at_once: Annotated[int, Field(ge=1)]
    images_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Capacity(BaseModel):
    """The levels that were measured, from 1 cell on, and why no further one was; "" if the rate no longer grew.

    settled: whether the reason is independent of the work that was left then, of so many cells and images on each GPU.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    levels: tuple[JobLevel, ...]
    reason: str = ""
    settled: bool = True
    cells: int = 0
    images: float = 0.0

    @property
    def at_once(self) -> int:
        """Number of cells to run at once."""
        return best_of(self.levels).at_once if self.levels else 1

    def speed_up(self, at_once: int) -> float:
        """Return the rate of so many cells at once, which was measured, relative to that of one."""
        rates = {level.at_once: level.images_per_s for level in self.levels}
        return rates[at_once] / rates[1]

    def holds(self, limits: JobLimits) -> bool:
        """Whether a new measurement could not find more: nothing is left that was not left then."""
        return self.settled or (limits.cells <= self.cells and limits.images <= self.images)

    def __str__(self) -> str:
        first, *further = [f"{level.at_once}: {grouped(level.images_per_s)}" for level in self.levels] or [""]
        rates = ", ".join([first.replace(":", " at once:") + " images/s", *further]) if first else "not measured"
        return f"{rates}{f'; {self.reason}' if self.reason else ''}"


@dataclass(frozen=True)
class Room:
    """Memory in bytes. free: while the cells of a level run. of_a_cell: what the largest of them takes."""

    what: str
    total: float
    free: float
    of_a_cell: float

    def fits(self, more: int) -> bool:
        """Whether so many more cells fit, and the reserve remains."""
        return self.free - more * self.of_a_cell >= RESERVE * self.total


@dataclass(frozen=True)
class JobLimits:
    """What bounds the cells on one GPU. cells, images: those that are left for it. processors: its share of them.

    loaders: loader processes of a cell.
    """

    cells: int
    images: float
    processors: int
    loaders: int

    @property
    def by_processors(self) -> int:
        """Number of cells for which each process has a processor, but at least 1."""
        return max(self.processors // (self.loaders + 1), 1)

    @property
    def too_few_processors(self) -> str:
        """The reason why `by_processors` is not larger."""
        return f"{counted(self.processors, 'processor')} for {counted(self.loaders + 1, 'process')} a cell"

    def worth(self, seconds: float, images_per_s: float) -> bool:
        """Whether the work that is left at this rate justifies a measurement of so many seconds in all."""
        return seconds <= COST * self.images / images_per_s


def best_of(levels: Sequence[JobLevel]) -> JobLevel:
    """Return the last level up to which each has at least `GROWTH` times the rate of the one before."""
    best = levels[0]
    for level in levels[1:]:
        if level.images_per_s < GROWTH * best.images_per_s:
            break
        best = level
    return best


@dataclass(frozen=True)
class Step:
    """How many cells at once to measure next; None with the reason why nothing more is measured.

    settled: whether more work could not change that.
    """

    at_once: int | None
    reason: str = ""
    settled: bool = True


def next_step(levels: Sequence[JobLevel], rooms: Sequence[Room], limits: JobLimits, spent: float, cost: float) -> Step:
    """Return what to measure after these levels.

    rooms: memory while the last level ran. spent, cost: seconds that the measurement has taken, and that the next
    level is expected to take.
    """
    if not levels:
        return Step(1)
    last, best = levels[-1].at_once, best_of(levels)
    if best is not levels[-1]:
        return Step(None)
    following = 2 * last
    for room in rooms:
        if not room.fits(following - last):
            return Step(None, f"no room for {following} in the memory of the {room.what}")
    if following > limits.by_processors:
        return Step(None, limits.too_few_processors)
    if following > limits.cells:
        return Step(None, f"{counted(limits.cells, 'cell')} left", settled=False)
    if not limits.worth(spent + cost, best.images_per_s):
        return Step(None, "the work left is too short to measure more", settled=False)
    return Step(following)


def grouped(number: float) -> str:
    """Format a rate: 1234.5 -> '1 234', 12.34 -> '12', 1.234 -> '1.2'."""
    return f"{number:,.0f}".replace(",", " ") if number >= 10 else f"{number:.1f}"


def kind(config: FitConfig) -> dict[str, Any]:
    """Return the settings of a cell on which its speed and its memory depend."""
    return {name: value for name, value in config.model_dump(mode="json").items() if name not in ALIKE}


def record_path(folder: Path, settings: Mapping[str, Any], machine: Mapping[str, Any]) -> Path:
    """Return the path of the record for cells with these settings on this machine, in the folder of a sweep."""
    name = short_digest(json.dumps([settings, machine], sort_keys=True))
    return folder / "capacity" / f"{name}.json"


def recorded(
    folder: Path, settings: Mapping[str, Any], machine: Mapping[str, Any], limits: JobLimits
) -> Capacity | None:
    """Return what was measured before; None if nothing was, if it no longer holds, or if the record is damaged."""
    content = known_document(record_path(folder, settings, machine))
    try:
        found = None if content is None else Capacity.model_validate(content)
    except ValidationError:
        return None
    return found if found is not None and found.levels and found.holds(limits) else None


def record(folder: Path, settings: Mapping[str, Any], machine: Mapping[str, Any], found: Capacity) -> None:
    """Keep what was measured.

    Raises:
        RunError: the record cannot be written.
    """
    content = {**found.model_dump(mode="json"), "at_once": found.at_once, "settings": settings, "machine": machine}
    write_document(record_path(folder, settings, machine), content)
