"""A sweep's folder: what it consists of, and the results so far.

sweeps/<name>/sweep.json             the file as it was read, and its cells
              cells/<digest>.json    one result, written last and whole
              runs/<digest>/         one training or warm-up each
              race.json              what `mtrain sweep --race` has decided
              selected.json          what `mtrain select` chose
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dpconvert.validation import first_fault
from mtrain.atomic import writing
from mtrain.config import FitConfig
from mtrain.documents import known_document, read_document, write_document
from mtrain.errors import RunError
from mtrain.runs import Run
from mtrain.sweep import claims
from mtrain.sweep.cells import Cell
from mtrain.sweep.spec import Combination, Sweep

M = TypeVar("M", bound=BaseModel)
SELECTED = "selected.json"
WAIT = 0.1  # seconds
FAILED = ("failed", "diverged")  # states of a cell that has no score of some task
AGAIN = "run the sweep again: `mtrain sweep` makes what is damaged anew"


class Score(BaseModel):
    """One transfer of a cell; None where the task's metric is not defined on what was scored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    metric: str
    set: str
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None


class Result(BaseModel):
    """A cell's file. `run` is the folder of its training, inside the sweep's.

    state: "failed" where a task has no score, "diverged" where numbers that are not finite are why.
    failures: task -> why it has no score.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    cell: str
    run: str
    combination: Combination
    seed: int
    state: Literal["scored", "diverged", "failed"]
    scores: dict[str, Score]
    failures: dict[str, str] = {}
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _reasons_by_task(cls, content: Any) -> Any:
        return {**content, "failures": _failures(content)} if isinstance(content, dict) else content


class Planned(BaseModel):
    """A cell as sweep.json lists it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cell: str
    combination: Combination
    seed: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Store:
    """One sweep's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def run(self, digest: str) -> Run:
        """The run folder of a training or a warm-up."""
        return Run(self.path / "runs" / digest)

    def has(self, cell: Cell) -> bool:
        """Whether its result is there, as it was written."""
        return known_document(self.result_path(cell.digest)) is not None

    def result_path(self, digest: str) -> Path:
        return self.path / "cells" / f"{digest}.json"

    def write_plan(self, sweep: Sweep, cells: Sequence[Cell]) -> None:
        """sweep.json, unless it says so already."""
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
                else:  # another part of the same sweep has just been started
                    time.sleep(WAIT)

    def plan(self) -> dict[str, Any]:
        """The content of sweep.json.

        Raises:
            RunError: not the folder of a sweep, or a damaged plan.
        """
        path = self.path / "sweep.json"
        try:
            return read_document(path, AGAIN)
        except FileNotFoundError:
            raise RunError("not the folder of a sweep", where=self.path, remedy="plan the sweep first") from None

    def input_size(self) -> int | None:
        """Side of the network's input in all trainings of the sweep, px; None where the plan does not tell.

        Raises:
            RunError: not the folder of a sweep.
        """
        fit = self.plan().get("sweep", {}).get("fit")
        return None if fit is None else int(fit.get("size", FitConfig.model_fields["size"].default))

    def together(self) -> int:
        """How many left-out sets one training leaves out.

        Raises:
            RunError: not the folder of a sweep.
        """
        return int(self.plan().get("sweep", {}).get("together", 1))

    def write_selection(self, content: dict[str, Any]) -> None:
        """selected.json."""
        write_document(self.path / SELECTED, content)

    def selection(self) -> dict[str, Any]:
        """The content of selected.json.

        Raises:
            RunError: nothing has been selected, or a damaged file.
        """
        try:
            return read_document(self.path / SELECTED, "run `mtrain select` again")
        except FileNotFoundError:
            raise RunError("nothing has been selected", where=self.path, remedy="run `mtrain select` first") from None

    def planned(self) -> list[Planned]:
        """The cells of the sweep as it was last run or planned.

        Raises:
            RunError: not the folder of a sweep.
        """
        content = self.plan()
        return [_checked(Planned, one, self.path / "sweep.json") for one in content.get("cells", [])]

    def results(self, planned: Sequence[Planned]) -> dict[str, Result]:
        """Digest -> result of those cells that have one.

        Raises:
            RunError: a file that is no result.
        """
        paths = {one.cell: self.result_path(one.cell) for one in planned}
        return {
            cell: _checked(Result, read_document(path, AGAIN), path) for cell, path in paths.items() if path.is_file()
        }

    def result(self, digest: str) -> Result | None:
        """The result of a cell; None where there is none, or a damaged one, which is made again.

        Raises:
            RunError: a file that is no result.
        """
        path = self.result_path(digest)
        content = known_document(path)
        return None if content is None else _checked(Result, content, path)

    def failed(self, cells: Sequence[Cell]) -> dict[str, dict[str, str]]:
        """Digest -> task -> reason, of those of these cells that failed."""
        known = {cell.digest: known_document(self.result_path(cell.digest)) or {} for cell in cells}
        return {cell: _failures(found) for cell, found in known.items() if found.get("state") in FAILED}

    def forget_failed(self, cells: Sequence[Cell]) -> None:
        """Let those of these cells that failed be run again."""
        for cell in self.failed(cells):
            self.result_path(cell).unlink(missing_ok=True)

    @contextmanager
    def claimed(self, digest: str, run: Run | None = None) -> Iterator[bool]:
        """Whether the piece of work of that name, which is done in `run`, is ours for now: no other process has it.

        The lock of a process that was killed goes with it. That of a node which is gone may stay on the file system:
        what has shown no sign of life for long is taken over, and with it the lock of the run.
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
    """The sweep of that name; without one, the sweep that was planned last.

    Raises:
        RunError: there is none; names those there are.
    """
    found = sorted(sweeps.glob("*/sweep.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    chosen = [path.parent for path in found if name in (None, path.parent.name)]
    if not chosen:
        have = ", ".join(path.parent.name for path in found) or "none"
        what = "no sweep here" if name is None else f"no sweep named {name!r}"
        raise RunError(what, where=sweeps, remedy=f"there: {have}; run one with `mtrain sweep FILE`")
    return Store(chosen[-1])


def _failures(result: Mapping[str, Any]) -> Any:
    """Task -> why it has no score. Earlier versions gave one reason for all tasks of a training that diverged."""
    if result.get("state") == "diverged" and not result.get("failures"):
        return dict.fromkeys(result.get("left_out", ()), result.get("reason", "the training has diverged"))
    return result.get("failures", {})


def _checked(kind: type[M], content: Any, path: Path) -> M:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        fault = first_fault(error, kind)
        raise RunError(f"not what a sweep writes: {fault}", where=path, found=fault.found, remedy=AGAIN) from None
