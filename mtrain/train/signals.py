"""Ctrl-C and SIGTERM while there is something to save first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def passed_on(react: Callable[[], None]) -> Iterator[list[int]]:
    """Call `react` at each signal, in place of what would happen; the list tells which have come."""
    asked: list[int] = []

    def ask(received: int, _frame: object) -> None:
        asked.append(received)
        react()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in before:
            signal.signal(number, ask)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
