"""Ctrl-C and SIGTERM while others do the work: they are told to stop, and we wait for their checkpoints."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def passed_on(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` at each signal; the list tells which have come."""
    asked: list[int] = []

    def ask(received: int, _frame: object) -> None:
        asked.append(received)
        stop()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in before:
            signal.signal(number, ask)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
