"""Runs work on a Ray cluster (extra `cluster`): each item is a task, which is retried on another node if its own dies.

Every node needs the same version of this program, and the files under the same paths: a shared file system.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dpconvert import __version__
from dpconvert.errors import OutputError, UsageError, UserError

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

PLUGINS = "DPCONVERT_PATH"
TRIES = 5  # retries of a task whose process or node is killed
AHEAD = 2  # tasks submitted for each processor of the cluster
POLL = 1.0  # seconds, after which Ctrl-C is noticed


@dataclass(frozen=True)
class Cluster:
    """The address of a cluster, as `ray.init` takes it.

    None: $RAY_ADDRESS, else a cluster that runs on this machine, else a new one of this machine only.
    """

    address: str | None = None


@dataclass(frozen=True)
class Sender:
    """What a task must share with the program that sent it: its version, and the folders of the user's own sources."""

    version: str
    plugins: str

    @classmethod
    def here(cls) -> Sender:
        """Return that of this process. Relative folders become absolute, because a task may run in another folder."""
        folders = [Path(path).expanduser().resolve() for path in os.environ.get(PLUGINS, "").split(os.pathsep) if path]
        return cls(__version__, os.pathsep.join(map(str, folders)))


@dataclass(frozen=True)
class Refused:
    """A user's error as the result of a task: Ray would wrap an exception in one of its own."""

    error: UserError


def run(ray: Any, shared: Any, work: Callable[[C, T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `work(context, item)` for every item, as results arrive. `shared` is the context, stored in the cluster.

    Raises:
        OutputError: a task was killed more often than it is retried.
        Whatever `work` raises.
    """
    task = ray.remote(num_cpus=1, max_retries=TRIES)(_call)
    most = AHEAD * processors(ray)
    waiting, sender = iter(items), Sender.here()
    running: list[Any] = []
    try:
        while True:
            for item in waiting:
                running.append(task.remote(work, shared, item, sender))
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
    """Number of processors of the cluster."""
    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


def answer(ray: Any, reference: Any) -> Any:
    """The result of a finished task.

    Raises:
        OutputError: the task was killed more often than it is retried.
        Whatever the task raised.
    """
    try:
        result = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise OutputError(
            f"a task failed {TRIES + 1} times: {reason}",
            remedy="often for lack of memory on a node: run the same command again; finished work is kept",
        ) from None
    if isinstance(result, Refused):
        raise result.error
    return result


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Ray, connected to the cluster. A connection that existed before is kept.

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
    UsageError: this node has a different version of the program than the sender of the task.
    """
    if version != __version__:
        raise UsageError(
            "a different version of the program on this node",
            where=os.uname().nodename,
            expected=version,
            found=__version__,
            remedy="install the same version on every node",
        )


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # the behaviour of later versions: keep CUDA_VISIBLE_DEVICES for tasks that request no GPU
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
            f"--engine ray: no cluster found: {reason}",
            where=cluster.address,
            remedy="start one with `ray start --head`, and join it from other nodes with `ray start --address`",
        ) from None


def _call(work: Callable[[C, T], R], context: C, item: T, sender: Sender) -> R | Refused:
    """The function that runs in a task."""
    try:
        check_version(sender.version)
        os.environ[PLUGINS] = sender.plugins
        return work(context, item)
    except UserError as error:
        return Refused(error)
