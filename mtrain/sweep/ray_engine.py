"""Cells as tasks of a Ray cluster (extra `cluster`): on GPUs where there are any, a warm-up before its cells.

The results are the same files as those of the local engine, so every node must see the sweep's folder and the shards
under the same paths. What was killed, with its process or its whole node, is tried again on another node and goes on
from its last checkpoint; other parts of the same sweep may run elsewhere meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from dpconvert import __version__
from dpconvert.errors import OutputError
from dpconvert.runtime.progress import Reporter
from dpconvert.runtime.ray_cluster import POLL, TRIES, Cluster, Refused, answer, check_version, connected
from mtrain.errors import RunError, UsageError, UserError
from mtrain.sweep.agenda import Agenda, agenda_of
from mtrain.sweep.cell_run import Outcome, warm
from mtrain.sweep.cells import Cell
from mtrain.sweep.local_engine import SweepState, outcome_of, work
from mtrain.sweep.store import Store
from mtrain.train.signals import passed_on

GRACE = 60.0  # seconds for tasks to stop with a checkpoint
WAIT = 2.0  # seconds between looks at what another process has in hand
QUIET = Reporter(quiet=True)
T = TypeVar("T")


@dataclass(frozen=True)
class Resources:
    """What a task asks the cluster for; without GPUs in the cluster, none."""

    cpus: int = 1
    gpus: int = 1


def run(
    store: Store, cells: Sequence[Cell] | Agenda, cluster: Cluster, request: Resources, report: Reporter
) -> SweepState:
    """Run the cells that are due; "stopped" with checkpoints when a signal asked.

    Raises:
        UsageError: no Ray here, no cluster there, or none that can do this.
        UserError: what a cell failed with, or cells are missing in the end.
    """
    agenda = agenda_of(cells)
    missing = agenda.due(store, report)
    if not missing:
        return "finished"
    store = Store(store.path.absolute())
    total = 0 if agenda.grows else len(agenda.cells)
    with connected(cluster) as ray:
        submit = _submitter(ray, store, agenda, request)
        with report.bar(store.name, total, done=total and total - len(missing), unit="cells") as advance:
            said, stopped = _followed(ray, _Following(store, agenda, report, submit), advance)
    return outcome_of(store, agenda, said, stopped=stopped)


def _submitter(ray: Any, store: Store, agenda: Agenda, request: Resources) -> Callable[[Cell], Any]:
    """A function that submits a task for a cell, which waits for that of its warm-up without taking a processor."""
    wanted = _wanted(ray, request, on_cpu=all(cell.config.device == "cpu" for cell in agenda.cells))
    options = {**wanted, "max_retries": TRIES}
    cell_task, warm_task = (ray.remote(**options)(function) for function in (_cell, _warmup))
    warmups: dict[str, Any] = {}

    def submit(cell: Cell) -> Any:
        if cell.warmup is not None and cell.warmup not in warmups:
            warmups[cell.warmup] = warm_task.remote(store, cell, __version__)
        return cell_task.remote(store, cell, warmups.get(cell.warmup or ""), __version__)

    return submit


@dataclass
class _Following:
    """Tasks of cells that have been submitted, and those that the results of others add."""

    store: Store
    agenda: Agenda
    report: Reporter
    submit: Callable[[Cell], Any]
    submitted: set[str] = field(default_factory=set)

    def more(self) -> list[Any]:
        """Tasks of the cells that are due and were not submitted before."""
        if self.submitted and not self.agenda.grows:
            return []
        cells = [cell for cell in self.agenda.due(self.store, self.report) if cell.digest not in self.submitted]
        self.submitted.update(cell.digest for cell in cells)
        return [self.submit(cell) for cell in cells]


def _wanted(ray: Any, request: Resources, *, on_cpu: bool) -> dict[str, int]:
    """Raises:
    UsageError: no node has as much, so that the tasks would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 0 if on_cpu or not any(node.get("GPU") for node in nodes) else request.gpus
    if not any(node.get("CPU", 0) >= request.cpus and node.get("GPU", 0) >= gpus for node in nodes):
        largest = max((int(node.get("CPU", 0)) for node in nodes if node.get("GPU", 0) >= gpus), default=0)
        raise UsageError(
            "no node of the cluster has as much as a cell asks for", expected=f"--cpus up to {largest}",
            found=f"--cpus {request.cpus}",
        )  # fmt: skip
    return {"num_cpus": request.cpus, "num_gpus": gpus}


def _followed(
    ray: Any, following: _Following, advance: Callable[[int], None]
) -> tuple[list[SweepState | UserError | None], bool]:
    """What the tasks come to, None for one that was killed too often; and whether a signal stopped them."""
    waiting, said, until = following.more(), [], float("inf")

    def stop() -> None:
        nonlocal until
        until = min(until, time.monotonic() + GRACE)
        for reference in waiting:
            ray.cancel(reference, recursive=False)

    with passed_on(stop) as asked:
        while waiting and time.monotonic() < until:
            finished, waiting = ray.wait(waiting, timeout=POLL)
            for reference in finished:
                said.append(_said(ray, reference))
                advance(said[-1] == "finished")
                if isinstance(said[-1], UserError) and until == float("inf"):
                    stop()
            if finished and until == float("inf"):
                waiting = [*waiting, *following.more()]
    return said, bool(asked)


def _said(ray: Any, reference: Any) -> SweepState | UserError | None:
    try:
        found: SweepState = answer(ray, reference)
    except OutputError:  # given up
        return None
    except KeyboardInterrupt:
        return "stopped"
    except UserError as error:
        return error
    return found


def _cell(store: Store, cell: Cell, _warmed: Outcome | Refused | None, version: str) -> SweepState | Refused:
    """What runs in a task for a cell, after that of its warm-up: where that failed, the cell fails the same way."""
    return _told(store, version, lambda: work(store, [cell], QUIET))


def _warmup(store: Store, cell: Cell, version: str) -> Outcome | Refused:
    """What runs in a task for a warm-up."""

    def until_it_is_there() -> Outcome:
        while (outcome := warm(store, cell, QUIET)) == "busy":
            time.sleep(WAIT)
        return outcome

    return _told(store, version, until_it_is_there)


def _told(store: Store, version: str, do: Callable[[], T]) -> T | Refused | Literal["stopped"]:
    try:
        check_version(version)
        if not (store.path / "sweep.json").is_file():
            raise RunError(
                f"not to be seen on the node {os.uname().nodename}", where=store.path,
                remedy="put --sweeps and --shards where every node of the cluster has them under the same path",
            )  # fmt: skip
        return do()
    except UserError as error:
        return Refused(error)
    except KeyboardInterrupt:
        return "stopped"
