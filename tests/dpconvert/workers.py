"""Work for processes that are started by the tests: a module of its own, so that they start fast."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dpconvert.errors import ReadError
from dpconvert.runtime.limits import reading


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


def kill_the_other(context: None, workers: set[int]) -> None:
    """Kill the worker that has nothing to do, and take a while."""
    for other in workers - {os.getpid()}:
        os.kill(other, signal.SIGKILL)
    time.sleep(2)


def then_nothing() -> Iterator[int]:
    """Four items, and then no more for a long time."""
    yield from (0, 1, 2, 4)
    time.sleep(600)


def slowly(folder: Path, item: int) -> int:
    """A second's work, of whose begin there is a trace."""
    (folder / f"{item}-{os.getpid()}").touch()
    time.sleep(1)
    return item


def read_by_name(context: str, item: str) -> str:
    """Read two files, of which the second has the name `item`, as that name says; answer with what was refused."""
    refused = ""
    for name in ("before", item):
        try:
            with reading(name):
                READ.get(name, str)()
        except ReadError as error:
            refused = str(error)
    return refused or item


def count_on() -> None:
    """Take processor time without end."""
    while True:
        pass


def take_memory() -> None:
    """Take a gigabyte in steps, as a decoder does."""
    taken = [bytes(1 << 26) for _ in range(16)]
    assert len(taken) == 16


def crash() -> None:
    """Read at an address that does not exist."""
    ctypes.string_at(0)


def end() -> None:
    """Be killed, as by the kernel for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def trap() -> None:
    """End as GLib does without memory."""
    signal.raise_signal(signal.SIGTRAP)


READ: dict[str, Callable[[], object]] = {
    "endless": count_on,
    "large": take_memory,
    "crash": crash,
    "trap": trap,
    "killed": end,
}
