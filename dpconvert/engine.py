"""Pure work on many items, in this process, in several or on a cluster: results come in no order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

from dpconvert import cluster
from dpconvert.cluster import Cluster
from dpconvert.errors import OutputError, UsageError

Workers = int | Cluster  # processes on this machine, or a Ray cluster
C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

_work: Callable[[Any], Any] = lambda item: item  # noqa: E731  set once in each worker process by `_prepare`


def run(work: Callable[[C, T], R], context: C, items: Iterable[T], workers: Workers) -> Iterator[R]:
    """`work(context, item)` for every item, as results come in; `context` travels to each process once.

    Raises:
        UsageError: there is no such cluster.
        OutputError: a worker process was killed.
        Whatever `work` raises.
    """
    if isinstance(workers, Cluster):
        yield from cluster.run(work, context, items, workers)
        return
    if workers <= 1:
        yield from (work(context, item) for item in items)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare, (work, context))
    try:
        yield from _bounded(pool, iter(items), 2 * workers)
    except BrokenProcessPool:
        raise OutputError(
            "a worker process was killed",
            remedy="often for want of memory: run the same command again with fewer --workers; what is made is kept",
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _bounded(pool: ProcessPoolExecutor, items: Iterator[Any], ahead: int) -> Iterator[Any]:
    """Results of a pool that is never given more than `ahead` items at once."""
    running: set[Future[Any]] = set()
    while True:
        for item in items:
            running.add(pool.submit(_call, item))
            if len(running) >= ahead:
                break
        if not running:
            return
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


def _prepare(work: Callable[[Any, Any], Any], context: Any) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops its workers
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _work = partial(work, context)


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(item: Any) -> Any:
    return _work(item)


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_of(engine: str, count: int | None, address: str | None) -> Workers:
    """The workers that options ask for: so many processes, by default one a processor, or a cluster.

    Raises:
        UsageError: options that do not go together.
    """
    if engine == "ray":
        if count is not None:
            raise UsageError("--workers is for --engine local; a cluster runs a task on each processor it has")
        return Cluster(address)
    if address is not None:
        raise UsageError("--address is for --engine ray")
    return count or processors()
