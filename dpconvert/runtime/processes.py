"""Runs a pure function on many items: in this process, in several, or on a cluster. Results arrive in any order.

On Linux, worker processes are forked from a server that has imported what they need; elsewhere each is started afresh.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from dpconvert.errors import OutputError, UsageError
from dpconvert.runtime import ray_cluster
from dpconvert.runtime.ray_cluster import Cluster

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

LOADED = ["dpconvert.conversion"]  # imported by the server before it forks
AHEAD = 2  # items submitted for each process

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


def run(work: Callable[[C, T], R], context: C, items: Iterable[T], workers: Workers) -> Iterator[R]:
    """Yield `work(context, item)` for every item, as results arrive. `context` is sent to each process once.

    Raises:
        UsageError: there is no such cluster.
        OutputError: a worker process was killed.
        Whatever `work` raises.
    """
    with pool(context, workers) as running:
        yield from running.run(work, items)


@contextmanager
def pool(context: C, workers: Workers) -> Iterator[WorkerPool]:
    """Workers for several calls with one context. Processes start when there is work.

    Raises:
        UsageError: there is no such cluster.
    """
    if isinstance(workers, WorkerPool):
        assert workers.context is context, "a pool is made for one context"
        yield workers
    elif isinstance(workers, Cluster):
        with ray_cluster.connected(workers) as ray:
            yield WorkerPool(context, ray_cluster.processors(ray), partial(ray_cluster.run, ray, ray.put(context)))
    elif workers <= 1:
        gc.freeze()  # collecting garbage among all imported modules would take time
        try:
            yield WorkerPool(context, 1, lambda work, items: (work(context, item) for item in items))
        finally:
            gc.unfreeze()
    else:
        executor = ProcessPoolExecutor(workers, multiprocessing.get_context(start_loading()), _prepare, (context,))
        try:
            yield WorkerPool(context, workers, partial(_run, executor, AHEAD * workers))
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


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


def _run(
    executor: ProcessPoolExecutor, ahead: int, work: Callable[[Any, Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """Yield the results of the processes, with at most `ahead` items submitted at once.

    Raises:
        OutputError: a worker process was killed.
        Whatever `work` raises.
    """
    waiting = iter(items)
    running: set[Future[Any]] = set()
    try:
        while True:
            for item in waiting:
                with _uninterrupted():  # it may start a process
                    running.add(executor.submit(_call, work, item))
                if len(running) >= ahead:
                    break
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    except BrokenProcessPool:
        raise OutputError(
            "a worker process was killed",
            remedy="often for lack of memory: run the same command again with fewer --workers; finished work is kept",
        ) from None


def _prepare(context: Any) -> None:
    global _context
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and stops its workers
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    gc.freeze()  # as in `pool`; in a fork, collecting would also copy shared memory
    _context = context


def _leave_with_parent() -> None:
    """End this worker with its parent, else it would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(work: Callable[[Any, Any], Any], item: Any) -> Any:
    return work(_context, item)


def processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
