"""Claim pieces of work among processes on machines that share a folder, by a lock with a heartbeat.

A lock disappears with its process, but the lock of a node that has lost power may stay in a network file system for
ever. So the holder touches the lock file regularly, and a file that has not been touched for long counts as abandoned.
If such a node recovers, two processes do the same work for a while, with the same result.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dpconvert.runtime import locks
from mtrain.disk.atomic import writing

BEAT = 20.0  # seconds between heartbeats
DEAD = 600.0  # seconds without a heartbeat after which a lock counts as abandoned


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Try to take the lock at `path` for the duration of the block, without waiting; yield whether it is ours."""
    with ExitStack() as stack:
        try:
            with writing(path):
                stack.enter_context(locks.held(path))
        except locks.TakenError:
            yield False
            return
        over = threading.Event()
        beats = threading.Thread(target=_beat, args=(path, over), daemon=True)
        beats.start()
        try:
            yield True
        finally:
            over.set()
            beats.join()


def abandoned(path: Path) -> bool:
    """Whether a lock is held but has had no heartbeat for long, by the clock of the file system."""
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return False
    clock = path.with_name(f".clock-{os.uname().nodename}-{os.getpid()}")
    clock.touch()
    now = clock.stat().st_mtime
    clock.unlink(missing_ok=True)
    return now - touched >= DEAD and locks.is_held(path)  # if it is not held, it is only an old file


def _beat(path: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        _touch(path)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:  # the file system is briefly unavailable, or another process has taken over
        return
