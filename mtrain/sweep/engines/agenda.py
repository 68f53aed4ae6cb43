"""Select the cells of a sweep to run next, for the engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dpconvert.runtime.progress import Reporter
from mtrain.sweep.cells import Cell
from mtrain.sweep.store import Store


class Agenda(Protocol):
    """The cells to run. Each process has a copy, since the answer depends only on the results in the folder."""

    @property
    def grows(self) -> bool:
        """Whether the result of a cell can add further cells."""
        ...

    @property
    def cells(self) -> Sequence[Cell]:
        """All cells that can ever be due."""
        ...

    def due(self, store: Store, report: Reporter) -> list[Cell]:
        """Return the cells to run that have no result yet, in starting order; empty once all are done."""
        ...


@dataclass(frozen=True)
class AllCells:
    """An agenda of a fixed list of cells."""

    cells: Sequence[Cell]
    grows: bool = False

    def due(self, store: Store, report: Reporter) -> list[Cell]:
        """Return the cells without a result."""
        return [cell for cell in self.cells if not store.has(cell)]


def agenda_of(given: Sequence[Cell] | Agenda) -> Agenda:
    """Return the agenda itself, or one of all the cells in a list."""
    return AllCells(given) if isinstance(given, Sequence) else given
