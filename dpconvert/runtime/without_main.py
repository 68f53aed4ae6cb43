"""Start worker processes that do not import the calling program.

A process that multiprocessing starts afresh imports the caller's main module first. Nothing that our workers run is
defined there, and importing it would run a script again that has no `if __name__ == "__main__"`, or fail where there is
no such file, as with `python - < script.py`.
"""

from __future__ import annotations

import sys
import threading
from multiprocessing.context import BaseContext, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import ModuleType

_one_at_a_time = threading.Lock()


class _WithoutMain(BaseProcess):
    def start(self) -> None:
        """Start the process. While it starts, multiprocessing sees a main module that has neither a name nor a file."""
        with _one_at_a_time:
            main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main


class _Spawned(_WithoutMain, SpawnProcess):
    pass


class _SpawnContext(SpawnContext):
    Process = _Spawned


CONTEXTS: dict[str, BaseContext] = {"spawn": _SpawnContext()}
"""By start method: contexts of multiprocessing whose processes do not import the calling program."""

if sys.platform != "win32":
    from multiprocessing.context import ForkServerContext, ForkServerProcess

    class _FromServer(_WithoutMain, ForkServerProcess):
        pass

    class _ForkServerContext(ForkServerContext):
        Process = _FromServer

    CONTEXTS["forkserver"] = _ForkServerContext()
