"""Handles Ctrl-C and SIGTERM while there is something to save first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def passed_on(react: Callable[[], None]) -> Iterator[list[int]]:
    """Call `react` at each signal instead of the usual handler. The list yielded records the signals received."""
    received: list[int] = []

    def handle(number: int, _frame: object) -> None:
        received.append(number)
        react()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in before:
            signal.signal(number, handle)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
