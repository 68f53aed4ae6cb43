"""Work on a Ray cluster (extra `cluster`): each item a task, which goes to another node when its own one dies.

Every node needs this program in the same version, and the files under the same paths: a shared file system.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from dpconvert import __version__
from dpconvert.errors import OutputError, UsageError, UserError

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

TRIES = 5  # of a task, after the first, when its process or its node is killed
AHEAD = 2  # tasks in the cluster for each processor of it
POLL = 1.0  # seconds; Ctrl-C is noticed as often


@dataclass(frozen=True)
class Cluster:
    """Where the cluster is, as `ray.init` takes it.

    None: what RAY_ADDRESS says, else the cluster that runs on this machine, else a new one of this machine alone.
    """

    address: str | None = None


@dataclass(frozen=True)
class Refused:
    """What a task answers where the user must mend something: Ray would wrap the exception in one of its own."""

    error: UserError


def run(ray: Any, shared: Any, work: Callable[[C, T], R], items: Iterable[T]) -> Iterator[R]:
    """`work(context, item)` for every item, as results come in; `shared` is the context, put into the cluster.

    Raises:
        OutputError: a task was killed more often than it is tried.
        Whatever `work` raises.
    """
    task = ray.remote(num_cpus=1, max_retries=TRIES)(_call)
    most = AHEAD * processors(ray)
    waiting = iter(items)
    running: list[Any] = []
    try:
        while True:
            for item in waiting:
                running.append(task.remote(work, shared, item, __version__))
                if len(running) >= most:
                    break
            if not running:
                return
            finished, running = ray.wait(running, timeout=POLL)
            for reference in finished:
                yield answer(ray, reference)
    finally:
        for reference in running:
            ray.cancel(reference)


def processors(ray: Any) -> int:
    """Processors of the cluster."""
    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


def answer(ray: Any, reference: Any) -> Any:
    """What a finished task came to.

    Raises:
        OutputError: it was killed more often than it is tried.
        Whatever it raised.
    """
    try:
        found = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise OutputError(
            f"a task was given up after {TRIES + 1} tries: {reason}",
            remedy="often for want of memory on a node: run the same command again; what is made is kept",
        ) from None
    if isinstance(found, Refused):
        raise found.error
    return found


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Ray, connected to the cluster; a connection that was there before stays.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, cluster)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def check_version(version: str) -> None:
    """Raises:
    UsageError: this node has another version of the program than the one that sent the task.
    """
    if version != __version__:
        raise UsageError(
            "another version of the program on this node", where=os.uname().nodename, expected=version,
            found=__version__, remedy="install the same one on every node",
        )  # fmt: skip


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # what it will do from some later version on: leave CUDA_VISIBLE_DEVICES alone for tasks that ask for no GPU
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise UsageError(
            "--engine ray: Ray is not installed", remedy="pip install 'dpconvert[cluster]', here and on every node"
        ) from None
    return ray


def _connect(ray: Any, cluster: Cluster) -> None:
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UsageError(
            f"--engine ray: no cluster: {reason}", where=cluster.address,
            remedy="start one with `ray start --head`, and join it from other nodes with `ray start --address`",
        ) from None  # fmt: skip


def _call(work: Callable[[C, T], R], context: C, item: T, version: str) -> R | Refused:
    """What runs in a task."""
    try:
        check_version(version)
        return work(context, item)
    except UserError as error:
        return Refused(error)
