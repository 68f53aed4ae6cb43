"""Run cells in local processes, one after the other or several at once.

Cells are not assigned to processes. Each process takes cells that no other one has, so that any number of processes, on
machines that share the folder, can work on one sweep, and another process takes over the cell of one that was killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Literal

from dpconvert.plural import counted
from dpconvert.runtime.processes import end_with_parent, processors
from dpconvert.runtime.progress import Reporter
from mtrain.data.kept import keeping
from mtrain.errors import RunError, UserError
from mtrain.sweep.cell_run import attempt
from mtrain.sweep.cells import Cell
from mtrain.sweep.concurrency.cards import Cards, cards_for, environment
from mtrain.sweep.engines.agenda import Agenda, AllCells, agenda_of
from mtrain.sweep.store import Store
from mtrain.train.signals import passed_on
from mtrain.used import mark

SweepState = Literal["finished", "stopped"]
POLL = 2.0  # seconds between checks of the cells that other processes have


def run(store: Store, cells: Sequence[Cell] | Agenda, jobs: int, report: Reporter) -> SweepState:
    """Run the cells that are due, in `jobs` processes; return "stopped" if a signal stopped them, with checkpoints.

    Raises:
        UserError: the error of a cell that failed, or cells are missing because processes were killed.
    """
    agenda = agenda_of(cells)
    missing = agenda.due(store, report)
    jobs = min(jobs, len(missing))
    if jobs <= 1:
        return work(store, agenda if agenda.grows else AllCells(missing), report)
    agenda = agenda if agenda.grows else AllCells(missing)
    done, total = _finished(store, agenda), len(agenda.cells)  # the number of cells of a race is unknown until its end
    with report.bar(store.name, done if agenda.grows else total, done=done, unit="cells") as advance:
        crew = _hired(store, agenda, jobs)
        with passed_on(lambda: _stop(crew)) as signals:
            while any(one.process.is_alive() for one in crew):
                wait([one.process.sentinel for one in crew if one.process.is_alive()], timeout=POLL)
                if (now := _finished(store, agenda)) > done:
                    advance(now - done)
                    done = now
                    agenda.due(store, report)  # reports decisions of the race
                if any(isinstance(one.answer(), UserError) for one in crew):
                    _stop(crew)
    answers = [one.answer() for one in crew]
    ended = outcome_of(store, agenda, answers, stopped=bool(signals))
    if lost := answers.count(None) * (ended == "finished"):
        were = f"{counted(lost, 'process')} of {jobs} {'was' if lost == 1 else 'were'} killed"
        report.note(f"{store.name}: {were}; the others ran the cells (if for lack of memory, give fewer --jobs)")
    return ended


def work(store: Store, cells: Sequence[Cell] | Agenda, report: Reporter) -> SweepState:
    """Run cells in this process until all have a result; wait for those that other processes run.

    What the cells have in common is read and computed once: indexes of the shards, adapted batch normalization.
    """
    with keeping():
        return _work(store, cells, report)


def _work(store: Store, cells: Sequence[Cell] | Agenda, report: Reporter) -> SweepState:
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


def _finished(store: Store, agenda: Agenda) -> int:
    return sum(store.has(cell) for cell in agenda.cells)


def _counted(done: int, agenda: Agenda) -> str:
    return counted(done, "cell") if agenda.grows else f"{done} of {counted(len(agenda.cells), 'cell')}"


@dataclass
class _CellProcess:
    process: SpawnProcess
    receiver: Connection
    said: SweepState | UserError | None = None

    def answer(self) -> SweepState | UserError | None:
        """Return what the process reported at its end; None while it runs, or if it was killed."""
        try:
            if self.said is None and self.receiver.poll():
                self.said = self.receiver.recv()
        except EOFError:
            pass
        return self.said


def _hired(store: Store, cells: Agenda, jobs: int) -> list[_CellProcess]:
    mark("check_images")
    cards = cards_of(cells.cells)
    context = multiprocessing.get_context("spawn")
    crew = []
    for number in range(jobs):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_job, args=(store, cells, sender))
        with environment(share_of_machine(number, jobs, cards)):
            process.start()
        sender.close()
        crew.append(_CellProcess(process, receiver))
    return crew


def _job(store: Store, cells: Agenda, sender: Connection) -> None:
    """Work in a child process; outside a training, SIGTERM stops it like Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))  # with a checkpoint
    said: SweepState | UserError
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        said = work(store, cells, Reporter(quiet=True))
    except UserError as error:
        said = error
    except KeyboardInterrupt:
        said = "stopped"
    with suppress(BrokenPipeError):  # the parent was killed
        sender.send(said)


def share_of_machine(number: int, jobs: int, cards: Cards) -> dict[str, str]:
    """Give a process its own GPU, and a fair share of the processors unless the user has set one."""
    threads = {"OMP_NUM_THREADS": str(max(processors() // jobs, 1))}
    return cards.variables(number) | ({} if "OMP_NUM_THREADS" in os.environ else threads)


def cards_of(cells: Sequence[Cell]) -> Cards:
    """Return the GPUs of this machine on which these cells run."""
    devices = {cell.config.device for cell in cells}
    return cards_for(devices, () if devices == {"cpu"} else visible_cards())


def visible_cards() -> list[str]:
    """Return the CUDA devices that this process may use, by their names in CUDA_VISIBLE_DEVICES."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return [str(number) for number in range(count)] if given is None else given.split(",")[:count]


def _stop(crew: Sequence[_CellProcess]) -> None:
    for one in crew:
        if one.process.is_alive():
            one.process.terminate()


def outcome_of(
    store: Store, cells: Sequence[Cell] | Agenda, answers: Sequence[SweepState | UserError | None], *, stopped: bool
) -> SweepState:
    """Return the joint outcome of workers, given the answer of each; None for a worker that was killed.

    Raises:
        UserError: the error of a worker, or cells are missing although no stop was requested.
    """
    for answer in answers:
        if isinstance(answer, UserError):
            raise answer
    missing = len(agenda_of(cells).due(store, Reporter(quiet=True)))
    if missing and not stopped:
        raise RunError(
            f"{counted(missing, 'cell')} missing: processes were killed",
            where=store.path,
            remedy="often for lack of memory: run the same command again with fewer --jobs; finished cells are kept",
        )
    return "stopped" if missing else "finished"
