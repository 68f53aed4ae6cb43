"""Who has a piece of work in hand, among processes on machines that share a folder: a lock, and signs of life.

A lock goes with the process that held it, but that of a node which has lost its power may stay in a network file system
for ever. So whoever holds one touches its file now and then, and a file that nobody has touched for long is nobody's.
Should a node come back from the dead, two processes do the same work for a while, with the same result.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dpconvert.runtime import locks
from mtrain.atomic import writing

BEAT = 20.0  # seconds between signs of life
DEAD = 600.0  # seconds without any, after which the holder is given up


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether the lock at `path` is ours, for as long as the block lasts; no waiting for it."""
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
    """Whether a lock is held and has shown no sign of life for long, by the clock of the file system."""
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return False
    clock = path.with_name(f".clock-{os.uname().nodename}-{os.getpid()}")
    clock.touch()
    now = clock.stat().st_mtime
    clock.unlink(missing_ok=True)
    return now - touched >= DEAD and locks.is_held(path)  # else an old file and no more


def _beat(path: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        _touch(path)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:  # the file system is away for a moment, or somebody has given us up
        return
