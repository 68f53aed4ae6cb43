"""How the loader's worker processes start."""

from __future__ import annotations

import multiprocessing
import platform


def start_method() -> str:
    """The method that the program has chosen; else "fork" on Linux, also from Python 3.14, and elsewhere the default.

    Forked workers need no fresh interpreter, which takes seconds, and share memory with this process that is not in
    /dev/shm, which is small in containers.
    """
    if multiprocessing.get_start_method(allow_none=True) is None and platform.system() == "Linux":
        return "fork"
    return multiprocessing.get_start_method()
