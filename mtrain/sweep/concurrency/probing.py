"""Measure how many cells run at once: processes that train as a cell does, on the same GPU, and keep nothing."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from dpconvert.plural import counted
from dpconvert.runtime import control_groups
from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.errors import UserError
from mtrain.sweep.concurrency.capacity import Capacity, JobLevel, JobLimits, Room, next_step
from mtrain.sweep.concurrency.cards import environment
from mtrain.sweep.concurrency.probe_process import Measurement, probe
from mtrain.train.signals import passed_on

WARM, SECONDS = 1.0, 3.0  # seconds of iterations before the measurement, and of the measurement
PATIENCE = 600.0  # seconds that a process may take to start, and a level beyond its measurement
POLL = 0.2
GRACE = 5.0  # seconds for a process to end by itself, with its loader processes
# settings without effect on the speed, at their cheapest, and a training that does not end
PLAIN = {"weights": "random", "weights_key": None, "warmup": 0, "adapt_batches": 0, "iterations": 10**9}


class LostError(Exception):
    """A process of the measurement was killed or failed; the text says which."""


class StoppedError(Exception):
    """This process received a signal to stop."""


def measure(
    config: FitConfig, folder: Path, limits: JobLimits, variables: Mapping[str, str], report: Reporter
) -> Capacity | None:
    """Return how many cells like this one run at once; None if a signal stopped the measurement.

    folder: of a run that does not exist. variables: environment variables of processes on one GPU.
    """
    levels: list[JobLevel] = []
    rooms: list[Room] = []
    begun, cost = time.monotonic(), 0.0

    def found(reason: str, *, settled: bool = True) -> Capacity:
        left = {"cells": limits.cells, "images": limits.images}
        return Capacity(levels=tuple(levels), reason=reason, settled=settled, **left)

    with passed_on(lambda: None) as signals, _crew(config, folder, variables) as crew:
        while (step := next_step(levels, rooms, limits, time.monotonic() - begun, cost)).at_once is not None:
            report.note(f"measuring {counted(step.at_once, 'cell')} at once")
            started = time.monotonic()
            try:
                measured = crew.level(step.at_once, signals)
            except StoppedError:
                return None
            except LostError as error:
                return found(f"{step.at_once} at once: {error}")
            cost = time.monotonic() - started
            levels.append(JobLevel(at_once=step.at_once, images_per_s=sum(one.images_per_s for one in measured)))
            rooms = _rooms(measured)
    return found(step.reason, settled=step.settled)


def _rooms(measured: Sequence[Measurement]) -> list[Room]:
    host = control_groups.memory()
    rooms = [Room("machine", *host, max(one.host for one in measured))] if host else []
    if measured[0].total:
        free, taken = min(one.free for one in measured), max(one.device for one in measured)
        rooms.append(Room("GPU", measured[0].total, free, taken))
    return rooms


@dataclass
class _Crew:
    """The processes of a measurement; more are started when a level needs them."""

    config: FitConfig
    folder: Path
    variables: Mapping[str, str]
    probes: list[tuple[SpawnProcess, Connection]] = field(default_factory=list)

    def level(self, at_once: int, signals: Sequence[int]) -> list[Measurement]:
        """Let `at_once` processes train at the same time; return what each of them measured.

        Raises:
            LostError: one of them was killed, or failed.
            StoppedError: a signal was received.
        """
        new = [self._start() for _ in range(at_once - len(self.probes))]
        self._answers(new, signals)
        for _, connection in self.probes:
            _send(connection, (WARM, SECONDS))
        return self._answers(self.probes, signals)

    def _start(self) -> tuple[SpawnProcess, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=probe, args=(self.config, self.folder, theirs))
        with environment(self.variables):
            process.start()
        theirs.close()
        self.probes.append((process, ours))
        return self.probes[-1]

    def _answers(self, probes: Sequence[tuple[SpawnProcess, Connection]], signals: Sequence[int]) -> list[Any]:
        found: dict[int, Any] = {}
        until = time.monotonic() + PATIENCE
        while len(found) < len(probes):
            waiting = {connection: number for number, (_, connection) in enumerate(probes) if number not in found}
            for ready in wait(list(waiting), timeout=POLL):
                assert isinstance(ready, Connection)
                number = waiting[ready]
                found[number] = _received(ready, probes[number][0])
            if signals:
                raise StoppedError
            if time.monotonic() > until:
                raise LostError(f"no answer within {PATIENCE:.0f} s")
        return [found[number] for number in range(len(probes))]


@contextmanager
def _crew(config: FitConfig, folder: Path, variables: Mapping[str, str]) -> Iterator[_Crew]:
    crew = _Crew(config.model_copy(update=PLAIN), folder, variables)
    try:
        yield crew
    finally:
        _end(crew.probes)


def _send(connection: Connection, what: Any) -> None:
    try:
        connection.send(what)
    except OSError:  # it has ended, which its missing answer will show
        return


def _received(connection: Connection, process: SpawnProcess) -> Any:
    try:
        message = connection.recv()
    except (EOFError, OSError):
        process.join(PATIENCE)
        code = process.exitcode or 0
        how = f"by signal {-code}" if code < 0 else f"with exit status {code}"
        raise LostError(f"a process ended {how}, often for lack of memory") from None
    if isinstance(message, UserError):
        raise LostError(str(message))
    return message


def _end(probes: Sequence[tuple[SpawnProcess, Connection]]) -> None:
    """End the processes of a measurement, which have nothing to save; their loader processes hold the GPU's memory."""
    for _, connection in probes:
        connection.close()
    until = time.monotonic() + GRACE
    for process, _ in probes:
        process.join(max(until - time.monotonic(), 0))
        if process.is_alive():
            process.terminate()
        process.join()
