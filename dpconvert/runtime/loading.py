"""Ctrl-C while a program still loads: nothing has begun, so the signal ends it at once, without a traceback."""

from __future__ import annotations

import signal  # and nothing else, which would only be loaded before Ctrl-C is handled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ended_by_signals:  # noqa: N801
    """A context in which Ctrl-C ends the process, unless the caller handles or ignores it."""

    def __enter__(self) -> None:
        self._handler = signal.getsignal(signal.SIGINT)
        if self._handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(self, *_: Any) -> None:
        if self._handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handler)
