"""race.json in the sweep's folder: the state of a race."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dpconvert.validation_errors import first_fault
from mtrain.disk.documents import known_document, read_document, short_digest, write_document
from mtrain.errors import RunError
from mtrain.sweep.combination import Combination
from mtrain.sweep.store import Store

NAME = "race.json"
AGAIN = "run `mtrain sweep FILE --race` again: it rewrites the file from the results"


class Part(BaseModel):
    """Base class of the parts of the record."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RungRecord(Part):
    """One rung of a contest. dropped: reason for each dropped combination. undecided: number without a score so far."""

    share: float
    seeds: int
    entrants: int
    stay: tuple[Combination, ...]
    dropped: dict[str, str]
    undecided: int
    friedman: float | None


class ContestRecord(Part):
    """One contest.

    target: None for the choice over all tasks. network: None if all networks race together. finalists: the combinations
    trained with all seeds; None until they are known.
    """

    target: str | None
    network: str | None
    rungs: tuple[RungRecord, ...]
    finalists: tuple[Combination, ...] | None
    winner: Combination | None


class RaceRecord(Part):
    """A race. cost: runs of the race as decided so far, as a share of those of the full grid.

    grid: digest of the cells of the full grid, by which a race of other cells is known.
    """

    tasks: tuple[str, ...]
    contests: tuple[ContestRecord, ...]
    cost: float
    grid: str | None = None

    @property
    def finished(self) -> bool:
        """Whether every contest has a winner."""
        return all(contest.winner is not None for contest in self.contests)

    def contest(self, target: str | None, network: str | None = None) -> ContestRecord | None:
        """Return the contest for a target, among the combinations of `network` if each network has its own contest."""
        return next((one for one in self.contests if (one.target, one.network) == (target, network)), None)


def write_record(store: Store, record: RaceRecord) -> None:
    """Write race.json, with the cells that the sweep has now, unless its content is the same already."""
    content = record.model_copy(update={"grid": _grid(store)}).model_dump(mode="json")
    if known_document(store.path / NAME) != content:
        write_document(store.path / NAME, content)


def read_record(store: Store) -> RaceRecord | None:
    """Return the content of race.json; None if no race has been run of the cells that the sweep has now.

    Raises:
        RunError: the file is damaged.
    """
    path = store.path / NAME
    try:
        content: Any = read_document(path, AGAIN)
    except FileNotFoundError:
        return None
    record = _checked(content, path)
    return record if record.grid == _grid(store) else None


def _grid(store: Store) -> str:
    return short_digest("\n".join(sorted(one.cell for one in store.planned())))


def _checked(content: Any, path: Path) -> RaceRecord:
    try:
        return RaceRecord.model_validate(content)
    except ValidationError as error:
        fault = first_fault(error, RaceRecord)
        raise RunError(f"not what a race writes: {fault}", where=path, found=fault.found, remedy=AGAIN) from None
