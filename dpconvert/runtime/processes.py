"""Runs a pure function on many items: in this process, in several, or on a cluster. Results arrive in any order.

On Linux, worker processes are forked from a server that has imported what they need; elsewhere each is started afresh.
A worker that a file ends (see dpconvert.runtime.limits) is replaced, and its item repeated without that file.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from dpconvert.errors import OutputError, UsageError
from dpconvert.runtime import control_groups, limits, ray_cluster
from dpconvert.runtime.limits import Limits
from dpconvert.runtime.ray_cluster import Cluster
from dpconvert.runtime.without_main import CONTEXTS

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

LOADED = ["dpconvert.conversion"]  # imported by the server before it forks
AHEAD = 2  # items submitted for each process
SILENCE = 10.0  # seconds without a result after which the workers are checked
DEFAULT = Limits()

_context: Any = None  # set once in each worker process by `_prepare`


@dataclass(frozen=True)
class WorkerPool:
    """Running processes, or a cluster, that already hold `context`. `run` accepts it instead of a number of workers.

    size: number of items processed in parallel.
    """

    context: Any
    size: int
    run: Callable[[Callable[[Any, Any], Any], Iterable[Any]], Iterator[Any]]


Workers = int | Cluster | WorkerPool  # processes on this machine, or a Ray cluster


def run(
    work: Callable[[C, T], R], context: C, items: Iterable[T], workers: Workers, limit: Limits = DEFAULT
) -> Iterator[R]:
    """Yield `work(context, item)` for every item, as results arrive. `context` is sent to each process once.

    Raises:
        UsageError: there is no such cluster.
        OutputError: a worker process was killed.
        Whatever `work` raises.
    """
    with pool(context, workers, limit) as running:
        yield from running.run(work, items)


@contextmanager
def pool(context: C, workers: Workers, limit: Limits = DEFAULT) -> Iterator[WorkerPool]:
    """Workers for several calls with one context. Processes start when there is work.

    limit: for each file that the work reads within `limits.reading`; a cluster sets its own. With a limit on time, one
    worker is a process, too.

    Raises:
        UsageError: there is no such cluster.
    """
    if isinstance(workers, WorkerPool):
        assert workers.context is context, "a pool is made for one context"
        yield workers
    elif isinstance(workers, Cluster):
        with ray_cluster.connected(workers) as ray:
            yield WorkerPool(context, ray_cluster.processors(ray), partial(ray_cluster.run, ray, ray.put(context)))
    elif workers <= 1 and not limit.seconds:
        gc.freeze()  # collecting garbage among all imported modules would take time
        try:
            with limits.limited(limit):
                yield WorkerPool(context, 1, lambda work, items: (work(context, item) for item in items))
        finally:
            gc.unfreeze()
    else:
        folder = util.get_temp_dir()  # of multiprocessing, where the server has its socket
        with (
            tempfile.TemporaryDirectory(dir=folder) as notes,
            _Workers(context, workers, limit, notes) as all_,
        ):
            yield WorkerPool(context, workers, all_.run)


def start_loading() -> str:
    """Start importing what workers need, in the background. Returns the start method of the workers."""
    if sys.platform != "linux":
        return "spawn"
    from multiprocessing import forkserver, resource_tracker

    forkserver.set_forkserver_preload(LOADED)
    resource_tracker.ensure_running()  # else the server starts it, and unblocks signals
    try:
        with _uninterrupted():  # only this process handles Ctrl-C
            forkserver.ensure_running()
    except OSError:  # the path of the temporary folder is too long for a socket
        return "spawn"
    return "forkserver"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until a process has been started: half begun, it would be left behind. It inherits this."""
    if sys.platform == "win32":
        yield
        return
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


class _Workers:
    """Worker processes that hold `context`."""

    def __init__(self, context: Any, count: int, limit: Limits, notes: str) -> None:
        self._ahead, self._notes = AHEAD * count, Path(notes)
        self._pool = ProcessPool(count, 0, _prepare, (context, limit, self._notes), CONTEXTS[start_loading()])
        self._running: dict[Future[Any], tuple[Any, dict[str, str]]] = {}  # items, and the files they may not read
        self._ended: dict[str, str] = {}  # the signal that ended a worker, by the file that it read
        self._replaced: set[int] = set()  # processes that a file ended
        self._killed = False

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self._killed:  # else others may wait for what the killed one held
                wait([future for future in self._running if future.running()])  # their results are kept
        finally:
            self._pool.stop()  # type: ignore[no-untyped-call]
            self._pool.join()

    def run(self, work: Callable[[Any, Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield the results of the processes, with at most `_ahead` items submitted at once.

        Raises:
            OutputError: a worker process was killed.
            Whatever `work` raises.
        """
        waiting = iter(items)
        self._running = {}  # results of a former call that was given up are not those of this one
        while True:
            for item in waiting:
                self._submit(work, item)
                if len(self._running) >= self._ahead:
                    break
            if not self._running:
                return
            done = wait(self._running, SILENCE, FIRST_COMPLETED).done
            if not done:
                self._check_alive()
            for future in done:
                item, refused = self._running.pop(future)
                try:
                    result = future.result()
                except (ProcessExpired, BrokenProcessPool) as error:
                    self._find_cause(error, refused)
                    self._submit(work, item)
                else:
                    yield result

    def _submit(self, work: Callable[[Any, Any], Any], item: Any) -> None:
        refused = dict(self._ended)
        with _uninterrupted():  # it may start processes
            self._running[self._pool.schedule(_call, (work, item, refused))] = item, refused

    def _find_cause(self, error: ProcessExpired | BrokenProcessPool, refused: Mapping[str, str]) -> None:
        """Note which file ended a worker. Other workers may have read it at the same time.

        Raises:
            OutputError: no file did, or one that the worker had to refuse.
        """
        if isinstance(error, ProcessExpired):
            why, file = limits.reason(error.exitcode), limits.file_of(self._notes, error.pid)
            if why and file and file not in refused:
                self._ended[file] = why
                self._replaced.add(error.pid)
                return
        self._killed = True
        raise _killed_error() from None

    def _check_alive(self) -> None:
        """A worker that is killed while it takes an item or gives a result loses both, without any report.

        Raises:
            OutputError: a worker is gone, and no file ended it.
        """
        workers = {int(note.name) for note in self._notes.iterdir()}
        if any(not _is_alive(worker) for worker in workers - self._replaced):
            self._killed = True
            raise _killed_error()


def _killed_error() -> OutputError:
    return OutputError(
        "a worker process was killed",
        remedy="often for lack of memory: run the same command again with fewer --workers; finished work is kept",
    )


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # where os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _prepare(context: Any, limit: Limits, notes: Path) -> None:
    global _context
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and stops its workers
    end_with_parent(partial(os._exit, 1))  # else it would wait for work forever
    gc.freeze()  # as in `pool`; in a fork, collecting would also copy shared memory
    limits.limit_worker(limit, notes)
    _context = context


def end_with_parent(end: Callable[[], object]) -> None:
    """In a child process, call `end` as soon as the parent is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for, args=(parent, end), daemon=True).start()


def _wait_for(parent: BaseProcess, end: Callable[[], object]) -> None:
    parent.join()
    end()


def _call(work: Callable[[Any, Any], Any], item: Any, ended: Mapping[str, str]) -> Any:
    limits.refuse_later(ended)
    return work(_context, item)


def processors() -> int:
    """Number of processors that this process may use, also in a container or a batch job."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, control_groups.processors() or here)


def workers_of(engine: str, count: int | None, address: str | None) -> Workers:
    """The workers that the options request: `count` processes, by default one per processor, or a cluster.

    Raises:
        UsageError: the options exclude each other.
    """
    if engine == "ray":
        if count is not None:
            raise UsageError("--workers applies to --engine local; a cluster runs a task on each of its processors")
        return Cluster(address)
    if address is not None:
        raise UsageError("--address applies to --engine ray")
    return count or processors()
