"""`mtrain` in a fork of this process, with the part of Popen that tests use: each start of torch costs seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence

import torch

from mtrain import cli


class Forked:
    """`mtrain WORDS` in a session of its own, as a shell would start it; what it prints goes into a pipe."""

    def __init__(self, words: Sequence[str]) -> None:
        self._output, theirs = os.pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_main, args=(words, theirs))
        self._process.start()
        os.close(theirs)
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Nothing, and all that was printed, once it and its workers have ended."""
        with open(self._output) as stream:  # noqa: PTH123  # a descriptor
            said = stream.read()
        self._process.join(timeout)
        return "", said

    def wait(self) -> None:
        self.communicate()


def _main(words: Sequence[str], output: int) -> None:
    os.setsid()
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.argv = ["mtrain", *words]
    torch.set_num_threads(1)
    cli.main()
