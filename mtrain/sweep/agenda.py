"""Which cells of a sweep are to be run now. Engines ask it, and run what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dpconvert.runtime.progress import Reporter
from mtrain.sweep.cells import Cell
from mtrain.sweep.store import Store


class Agenda(Protocol):
    """Processes have a copy each: what is to be run follows from the results in the folder alone."""

    @property
    def grows(self) -> bool:
        """Whether the result of a cell may add others."""
        ...

    @property
    def cells(self) -> Sequence[Cell]:
        """Every cell that may ever be due."""
        ...

    def due(self, store: Store, report: Reporter) -> list[Cell]:
        """The cells that are to be run and have no result yet, in the order in which to begin them. None: all done."""
        ...


@dataclass(frozen=True)
class AllCells:
    """Every one of these cells."""

    cells: Sequence[Cell]
    grows: bool = False

    def due(self, store: Store, report: Reporter) -> list[Cell]:
        """Those without a result."""
        return [cell for cell in self.cells if not store.has(cell)]


def agenda_of(given: Sequence[Cell] | Agenda) -> Agenda:
    """A list of cells means all of them."""
    return AllCells(given) if isinstance(given, Sequence) else given
