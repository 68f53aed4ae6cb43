"""The folder of a sweep: its plan and the results so far.

sweeps/<name>/sweep.json             the sweep file as it was read, and its cells
              cells/<digest>.json    one result, written last and atomically
              runs/<digest>/         one training or warm-up each
              capacity/<digest>.json how many cells run at once on a kind of machine, as measured
              soups/<network>-<digest>/  averages of the seeds of a chosen cell, of `mtrain select --soup`
              race.json              what `mtrain sweep --race` has decided
              selected.json          what `mtrain select` chose
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dpconvert.validation_errors import first_fault
from mtrain.disk.atomic import writing
from mtrain.disk.documents import known_document, read_document, write_document
from mtrain.errors import RunError
from mtrain.runs.run_folder import Run
from mtrain.sweep.cell_records import Planned, Result, failures_of
from mtrain.sweep.cells import Cell
from mtrain.sweep.engines import claims
from mtrain.sweep.spec import Sweep, Transfer

M = TypeVar("M", bound=BaseModel)
SELECTED = "selected.json"
WAIT = 0.1  # seconds
OF_ANOTHER = "the result of another cell"
FAILED = ("failed", "diverged")  # states of a cell without a score for some task
AGAIN = "run the sweep again: `mtrain sweep` replaces damaged files"


@dataclass(frozen=True)
class Store:
    """The folder of one sweep."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def run(self, digest: str) -> Run:
        """Return the run folder of a training or a warm-up."""
        return Run(self.path / "runs" / digest)

    def own(self, run: str | Path | None) -> str | None:
        """The name of a run of this sweep, wherever its folder stood when the path was written; None for other runs."""
        parts = Path(run).parts[-3:] if run is not None else ()
        ours = len(parts) == 3 and parts[:2] == (self.path.absolute().name, "runs")
        return parts[2] if ours else None

    def has(self, cell: Cell) -> bool:
        """Whether the cell itself has an undamaged result."""
        return self.known(cell.digest) is not None

    def known(self, digest: str, note: Callable[[str], object] = lambda _text: None) -> dict[str, Any] | None:
        """Return the content of a cell's result; None if there is none, or a damaged one, or that of another cell."""
        path = self.result_path(digest)
        content = known_document(path, note)
        if content is None:
            return None
        if content.get("cell", digest) != digest:
            note(f"{path}: {OF_ANOTHER}; the cell is run again")
            return None
        try:
            Result.model_validate(content)
        except ValidationError as error:
            note(f"{path}: not what a sweep writes: {first_fault(error, Result)}; the cell is run again")
            return None
        return content

    def result_path(self, digest: str) -> Path:
        return self.path / "cells" / f"{digest}.json"

    def write_plan(self, sweep: Sweep, cells: Sequence[Cell]) -> None:
        """Write sweep.json unless its content is the same already."""
        listed = [
            {"cell": c.digest, "combination": asdict(c.combination), "seed": c.config.seed, "tasks": c.tasks}
            for c in cells
        ]
        content = json.loads(json.dumps({"sweep": sweep.model_dump(mode="json"), "cells": listed}))
        path = self.path / "sweep.json"
        while known_document(path) != content:
            with self.claimed(path.name) as ours:
                if ours:
                    write_document(path, content)
                else:  # another part of the same sweep is starting
                    time.sleep(WAIT)

    def plan(self) -> dict[str, Any]:
        """Return the content of sweep.json.

        Raises:
            RunError: the folder is not that of a sweep, or the plan is damaged.
        """
        path = self.path / "sweep.json"
        try:
            return read_document(path, AGAIN)
        except FileNotFoundError:
            raise RunError("not the folder of a sweep", where=self.path, remedy="plan the sweep first") from None

    def input_sizes(self, results: Iterable[Result]) -> dict[str, int]:
        """Return network -> the side of its input in the runs of these results, in pixels: that of the plan, or
        the network's own, by its runs. Networks without a run are left out if the plan states no size.

        Raises:
            RunError: the folder is not that of a sweep, or the configuration of a run is damaged.
        """
        stated = self.plan().get("sweep", {}).get("fit", {}).get("size")
        found: dict[str, int] = {}
        for result in results:
            backbone, run = result.combination.backbone, Run(self.path / result.run)
            if backbone not in found and (stated is not None or run.exists):
                found[backbone] = run.config().size if stated is None else int(stated)
        return found

    def transfer_settings(self) -> dict[str, Any]:
        """Return the settings of [transfer] that determine the scores, such as its mode.

        Raises:
            RunError: the folder is not that of a sweep.
        """
        return self.transfer().determining()

    def transfer(self) -> Transfer:
        """Return the section [transfer].

        Raises:
            RunError: the folder is not that of a sweep.
        """
        given = self.plan().get("sweep", {}).get("transfer", {})
        return _checked(Transfer, given, self.path / "sweep.json")

    def together(self) -> int:
        """Return the number of left-out sets per training.

        Raises:
            RunError: the folder is not that of a sweep.
        """
        return int(self.plan().get("sweep", {}).get("together", 1))

    def notes(self) -> list[str]:
        """Return what to say wherever the networks of the sweep are chosen or scored.

        Raises:
            RunError: the folder is not that of a sweep.
        """
        together, pools = self.together(), self.plan().get("sweep", {}).get("pools", {})
        several = (
            f"each training left {together} sets out at once, which the paper does not: the final networks of a target "
            "are yet to be trained with only that target left out"
        )
        optimistic = (
            f"pool {name}: its files have seen the validation sets of their targets, so its scores there are "
            "optimistic; those on test sets are not"
            for name, given in pools.items()
            if isinstance(given, str)
        )
        return [*([several] if together > 1 else []), *optimistic]

    def write_selection(self, content: dict[str, Any]) -> None:
        """Write selected.json."""
        write_document(self.path / SELECTED, content)

    def selection(self) -> dict[str, Any]:
        """Return the content of selected.json.

        Raises:
            RunError: nothing has been selected, or the file is damaged.
        """
        path, again = self.path / SELECTED, "run `mtrain select` again"
        try:
            content = read_document(path, again)
        except FileNotFoundError:
            raise RunError("nothing has been selected", where=self.path, remedy="run `mtrain select` first") from None
        planned = {one.cell for one in self.planned()} if "sweep" in content else set(_entries(content, "cell"))
        if foreign := [cell for cell in _entries(content, "cell") if cell not in planned]:
            raise RunError("the selection of another sweep", where=path, found=f"cell {foreign[0]}", remedy=again)
        return content

    def planned(self) -> list[Planned]:
        """Return the cells of the sweep as it was last run or planned.

        Raises:
            RunError: the folder is not that of a sweep.
        """
        content = self.plan()
        return [_checked(Planned, one, self.path / "sweep.json") for one in content.get("cells", [])]

    def results(self, planned: Sequence[Planned]) -> dict[str, Result]:
        """Return digest -> result for the cells that have one.

        Raises:
            RunError: a file is not a result, or that of another cell.
        """
        paths = {one.cell: self.result_path(one.cell) for one in planned}
        found = {
            cell: _checked(Result, read_document(path, AGAIN), path) for cell, path in paths.items() if path.is_file()
        }
        for cell, result in found.items():
            if result.cell != cell:
                raise RunError(OF_ANOTHER, where=paths[cell], remedy=AGAIN)
        return found

    def result(self, digest: str) -> Result | None:
        """Return the result of a cell; None if it is missing or damaged, so that the cell is run again.

        Raises:
            RunError: the file is not a result.
        """
        content = self.known(digest)
        return None if content is None else _checked(Result, content, self.result_path(digest))

    def failed(self, cells: Sequence[Cell]) -> dict[str, dict[str, str]]:
        """Return digest -> task -> reason for those of the cells that failed."""
        known = {cell.digest: self.known(cell.digest) or {} for cell in cells}
        return {cell: failures_of(found) for cell, found in known.items() if found.get("state") in FAILED}

    def forget_failed(self, cells: Sequence[Cell]) -> int:
        """Delete the results of failed cells, so that they are run again. Return their number."""
        failed = self.failed(cells)
        for cell in failed:
            self.result_path(cell).unlink(missing_ok=True)
        return len(failed)

    @contextmanager
    def claimed(self, digest: str, run: Run | None = None) -> Iterator[bool]:
        """Try to claim the piece of work `name`, which is done in `run`; yield whether no other process has it.

        The lock of a killed process disappears with it, but that of a lost node may stay on the file system. A lock
        without a heartbeat for long is taken over, and with it the lock of the run.
        """
        path = self.path / ".locks" / digest
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if claims.abandoned(path):
                for lock in (path, *([run.lock] if run else [])):
                    lock.unlink(missing_ok=True)
        with claims.claimed(path) as ours:
            yield ours


def open_store(sweeps: Path, name: str | None) -> Store:
    """Return the sweep called `name` or at that path, by default the one that was planned last.

    Raises:
        RunError: it does not exist; the message lists the existing sweeps.
    """
    if name and Path(name).name != name and (Path(name) / "sweep.json").is_file():
        return Store(Path(name))
    found = sorted(sweeps.glob("*/sweep.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    chosen = [path.parent for path in found if name in (None, path.parent.name)]
    if not chosen:
        have = ", ".join(path.parent.name for path in found) or "none"
        what = "no sweeps found" if name is None else f"no sweep named {name!r}"
        raise RunError(what, where=sweeps, remedy=f"existing sweeps: {have}; start one with `mtrain sweep FILE`")
    return Store(chosen[-1])


def _entries(content: Any, name: str) -> Iterator[Any]:
    """Yield the values of this key in a JSON value, at any depth."""
    yield from [content[name]] if isinstance(content, dict) and name in content else []
    for part in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _entries(part, name)


def _checked(kind: type[M], content: Any, path: Path) -> M:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        fault = first_fault(error, kind)
        raise RunError(f"not what a sweep writes: {fault}", where=path, found=fault.found, remedy=AGAIN) from None
