"""Cells to processes: one after the other or several at once.

No process is told which cells are its own: each takes what no other one has, so any number of them, on machines that
share the folder, work off one sweep together, and what a killed one had in hand is taken up by the next.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Literal

from dpconvert.plural import counted
from dpconvert.runtime.processes import processors
from dpconvert.runtime.progress import Reporter
from mtrain.errors import RunError, UserError
from mtrain.sweep.agenda import Agenda, AllCells, agenda_of
from mtrain.sweep.cell_run import attempt
from mtrain.sweep.cells import Cell
from mtrain.sweep.store import Store
from mtrain.train.signals import passed_on

SweepState = Literal["finished", "stopped"]
POLL = 2.0  # seconds between looks at what others have


def run(store: Store, cells: Sequence[Cell] | Agenda, jobs: int, report: Reporter) -> SweepState:
    """Run the cells that are due, in `jobs` processes; "stopped" with checkpoints when a signal asked.

    Raises:
        UserError: what a cell failed with, or processes were killed and cells are missing.
    """
    agenda = agenda_of(cells)
    missing = agenda.due(store, report)
    jobs = min(jobs, len(missing))
    if jobs <= 1:
        return work(store, agenda if agenda.grows else AllCells(missing), report)
    agenda = agenda if agenda.grows else AllCells(missing)
    there, total = _there(store, agenda), len(agenda.cells)  # how many cells a race takes is not known before its end
    with report.bar(store.name, there if agenda.grows else total, done=there, unit="cells") as advance:
        crew = _hired(store, agenda, jobs)
        with passed_on(lambda: _stop(crew)) as asked:
            while any(one.process.is_alive() for one in crew):
                wait([one.process.sentinel for one in crew if one.process.is_alive()], timeout=POLL)
                if (now := _there(store, agenda)) > there:
                    advance(now - there)
                    there = now
                    agenda.due(store, report)  # notes what has been decided
                if any(isinstance(one.answer(), UserError) for one in crew):
                    _stop(crew)
    return outcome_of(store, agenda, [one.answer() for one in crew], stopped=bool(asked))


def work(store: Store, cells: Sequence[Cell] | Agenda, report: Reporter) -> SweepState:
    """Run cells in this process until each has a result, waiting for those that others have."""
    agenda, done = agenda_of(cells), 0
    waiting = agenda.due(store, report) if agenda.grows else list(agenda.cells)
    while waiting:
        left, ran = [], False
        for cell in waiting:
            outcome = attempt(store, cell, report)
            if outcome == "stopped":
                return "stopped"
            if outcome == "busy":
                left.append(cell)
                continue
            ran, done = True, done + 1
            report.note(f"{store.name}: {_counted(done, agenda)}, {cell}")
            if agenda.grows:
                break
        if not ran:
            time.sleep(POLL)
        waiting = agenda.due(store, report) if agenda.grows else left
    return "finished"


def _there(store: Store, agenda: Agenda) -> int:
    return sum(store.has(cell) for cell in agenda.cells)


def _counted(done: int, agenda: Agenda) -> str:
    return counted(done, "cell") if agenda.grows else f"{done} of {counted(len(agenda.cells), 'cell')}"


@dataclass
class _CellProcess:
    process: SpawnProcess
    receiver: Connection
    said: SweepState | UserError | None = None

    def answer(self) -> SweepState | UserError | None:
        """What the process said at its end; None while it has not, or if it was killed."""
        try:
            if self.said is None and self.receiver.poll():
                self.said = self.receiver.recv()
        except EOFError:
            pass
        return self.said


def _hired(store: Store, cells: Agenda, jobs: int) -> list[_CellProcess]:
    context = multiprocessing.get_context("spawn")
    crew = []
    for number in range(jobs):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_job, args=(store, cells, sender))
        with _environment(_share_of_machine(number, jobs)):
            process.start()
        sender.close()
        crew.append(_CellProcess(process, receiver))
    return crew


def _job(store: Store, cells: Agenda, sender: Connection) -> None:
    """What runs in each process; outside a training SIGTERM stops it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    said: SweepState | UserError
    try:
        said = work(store, cells, Reporter(quiet=True))
    except UserError as error:
        said = error
    except KeyboardInterrupt:
        said = "stopped"
    sender.send(said)


def _leave_with_parent() -> None:
    """A process whose parent was killed stops with a checkpoint."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _share_of_machine(number: int, jobs: int) -> dict[str, str]:
    """A card of its own, and a fair share of the processors unless the user set it."""
    cards = visible_cards()
    threads = {"OMP_NUM_THREADS": str(max(processors() // jobs, 1))}
    return ({"CUDA_VISIBLE_DEVICES": cards[number % len(cards)]} if cards else {}) | (
        {} if "OMP_NUM_THREADS" in os.environ else threads
    )


def visible_cards() -> list[str]:
    """The CUDA devices that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return [str(number) for number in range(count)] if given is None else given.split(",")[:count]


@contextmanager
def _environment(changed: dict[str, str]) -> Iterator[None]:
    """Variables that processes started within take over."""
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _stop(crew: Sequence[_CellProcess]) -> None:
    for one in crew:
        if one.process.is_alive():
            one.process.terminate()


def outcome_of(
    store: Store, cells: Sequence[Cell] | Agenda, answers: Sequence[SweepState | UserError | None], *, stopped: bool
) -> SweepState:
    """What workers came to that answered so, None for those that were killed.

    Raises:
        UserError: what one of them failed with, or cells are missing though nobody asked to stop.
    """
    for answer in answers:
        if isinstance(answer, UserError):
            raise answer
    missing = len(agenda_of(cells).due(store, Reporter(quiet=True)))
    if missing and not stopped:
        raise RunError(
            f"{counted(missing, 'cell')} missing: processes were killed", where=store.path,
            remedy="often for want of memory: run the same command again with fewer --jobs; what is made is kept",
        )  # fmt: skip
    return "stopped" if missing else "finished"
