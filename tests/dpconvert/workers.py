"""Work for processes that are started by the tests: a module of its own, so that they start fast."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from dpconvert.errors import ReadError


def die(context: str, item: int) -> int:
    """Be killed, as by the kernel for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def add(context: int, item: int) -> int:
    """Refuse 3."""
    if item == 3:
        raise ReadError("broken", where="a", found=item, remedy="mend it")
    return context + item


def own_sources(context: int, item: int) -> str:
    """The folders of the user's own sources, as this process sees them."""
    return os.environ.get("DPCONVERT_PATH", "")


def process(context: str, item: int) -> int:
    """Which process this is, after long enough for another one to take the next item."""
    time.sleep(0.05)
    return os.getpid()


def then_nothing() -> Iterator[int]:
    """Four items, and then no more for a long time."""
    yield from (0, 1, 2, 4)
    time.sleep(600)


def slowly(folder: Path, item: int) -> int:
    """A second's work, of whose begin there is a trace."""
    (folder / f"{item}-{os.getpid()}").touch()
    time.sleep(1)
    return item
