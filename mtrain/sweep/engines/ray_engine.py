"""Run cells as tasks of a Ray cluster (extra `cluster`): on GPUs if it has any, and each warm-up before its cells.

The results are the same files as those of the local engine, so every node must see the sweep's folder and the shards
under the same paths. A task whose process or node was killed is retried on another node and resumes from its last
checkpoint. Other parts of the same sweep may run elsewhere at the same time.
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
from mtrain.data.batches.images import CHECK
from mtrain.data.shard_cache import CACHE, CACHE_SIZE
from mtrain.errors import RunError, UsageError, UserError
from mtrain.sweep.cell_run import Outcome, warm
from mtrain.sweep.cells import Cell
from mtrain.sweep.engines.agenda import Agenda, agenda_of
from mtrain.sweep.engines.local_engine import SweepState, outcome_of, work
from mtrain.sweep.store import Store
from mtrain.train.signals import passed_on
from mtrain.used import mark

GRACE = 60.0  # seconds that tasks have to stop with a checkpoint
WAIT = 2.0  # seconds between checks of work that another process has claimed
QUIET = Reporter(quiet=True)
INHERITED = (CACHE, CACHE_SIZE, CHECK)  # variables that options set here, for processes on other machines
T = TypeVar("T")


@dataclass(frozen=True)
class Resources:
    """The resources that a task requests; no GPU if the cluster has none."""

    cpus: int = 1
    gpus: int = 1


def run(
    store: Store, cells: Sequence[Cell] | Agenda, cluster: Cluster, request: Resources, report: Reporter
) -> SweepState:
    """Run the cells that are due; return "stopped" if a signal stopped them, with checkpoints.

    Raises:
        UsageError: Ray is not installed, the cluster is not reachable, or it lacks the resources.
        UserError: the error of a cell that failed, or cells are missing at the end.
    """
    agenda = agenda_of(cells)
    missing = agenda.due(store, report)
    if not missing:
        return "finished"
    mark("check_images")
    store = Store(store.path.absolute())
    total = 0 if agenda.grows else len(agenda.cells)
    with connected(cluster) as ray:
        submit = _submitter(ray, store, agenda, request)
        with report.bar(store.name, total, done=total and total - len(missing), unit="cells") as advance:
            said, stopped = _followed(ray, _Following(store, agenda, report, submit), advance)
    return outcome_of(store, agenda, said, stopped=stopped)


def _submitter(ray: Any, store: Store, agenda: Agenda, request: Resources) -> Callable[[Cell], Any]:
    """Return a function that submits the task of a cell, which waits for its warm-up without occupying a processor."""
    wanted = _wanted(ray, request, on_cpu=all(cell.config.device == "cpu" for cell in agenda.cells))
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    options = {**wanted, "max_retries": TRIES, **({"runtime_env": {"env_vars": inherited}} if inherited else {})}
    cell_task, warm_task = (ray.remote(**options)(function) for function in (_cell, _warmup))
    warmups: dict[str, Any] = {}

    def submit(cell: Cell) -> Any:
        if cell.warmup is not None and cell.warmup not in warmups:
            warmups[cell.warmup] = warm_task.remote(store, cell, __version__)
        return cell_task.remote(store, cell, warmups.get(cell.warmup or ""), __version__)

    return submit


@dataclass
class _Following:
    """The submitted tasks of cells, and further ones that their results add."""

    store: Store
    agenda: Agenda
    report: Reporter
    submit: Callable[[Cell], Any]
    submitted: set[str] = field(default_factory=set)

    def more(self) -> list[Any]:
        """Submit the cells that are due and were not submitted before; return their tasks."""
        if self.submitted and not self.agenda.grows:
            return []
        cells = [cell for cell in self.agenda.due(self.store, self.report) if cell.digest not in self.submitted]
        self.submitted.update(cell.digest for cell in cells)
        return [self.submit(cell) for cell in cells]


def _wanted(ray: Any, request: Resources, *, on_cpu: bool) -> dict[str, int]:
    """Return the resources of a task.

    Raises:
        UsageError: no node has as many, so that the tasks would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 0 if on_cpu or not any(node.get("GPU") for node in nodes) else request.gpus
    if not any(node.get("CPU", 0) >= request.cpus and node.get("GPU", 0) >= gpus for node in nodes):
        largest = max((int(node.get("CPU", 0)) for node in nodes if node.get("GPU", 0) >= gpus), default=0)
        raise UsageError(
            "no node of the cluster has the resources that a cell requires",
            expected=f"--cpus up to {largest}",
            found=f"--cpus {request.cpus}",
        )
    return {"num_cpus": request.cpus, "num_gpus": gpus}


def _followed(
    ray: Any, following: _Following, advance: Callable[[int], None]
) -> tuple[list[SweepState | UserError | None], bool]:
    """Return the outcomes of the tasks, None for one that was killed too often, and whether a signal stopped them."""
    waiting, said, until = following.more(), [], float("inf")

    def stop() -> None:
        nonlocal until
        until = min(until, time.monotonic() + GRACE)
        for reference in waiting:
            ray.cancel(reference, recursive=False)

    with passed_on(stop) as signals:
        while waiting and time.monotonic() < until:
            finished, waiting = ray.wait(waiting, timeout=POLL)
            for reference in finished:
                said.append(_said(ray, reference))
                advance(said[-1] == "finished")
                if isinstance(said[-1], UserError) and until == float("inf"):
                    stop()
            if finished and until == float("inf"):
                waiting = [*waiting, *following.more()]
    return said, bool(signals)


def _said(ray: Any, reference: Any) -> SweepState | UserError | None:
    try:
        found: SweepState = answer(ray, reference)
    except OutputError:  # Ray has given it up
        return None
    except KeyboardInterrupt:
        return "stopped"
    except UserError as error:
        return error
    return found


def _cell(store: Store, cell: Cell, _warmed: Outcome | Refused | None, version: str) -> SweepState | Refused:
    """Run a cell in a task, after that of its warm-up; if the warm-up failed, the cell fails with the same error."""
    return _answered(store, version, lambda: work(store, [cell], QUIET))


def _warmup(store: Store, cell: Cell, version: str) -> Outcome | Refused:
    """Run a warm-up in a task."""

    def until_it_is_there() -> Outcome:
        while (outcome := warm(store, cell, QUIET)) == "busy":
            time.sleep(WAIT)
        return outcome

    return _answered(store, version, until_it_is_there)


def _answered(store: Store, version: str, do: Callable[[], T]) -> T | Refused | Literal["stopped"]:
    try:
        check_version(version)
        if not (store.path / "sweep.json").is_file():
            raise RunError(
                f"not visible on the node {os.uname().nodename}",
                where=store.path,
                remedy="put --sweeps and --shards where every node of the cluster has them under the same path",
            )
        return do()
    except UserError as error:
        return Refused(error)
    except KeyboardInterrupt:
        return "stopped"
