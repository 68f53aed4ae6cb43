"""What other libraries write to the terminal while they download weights, as one line of ours."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

HUB = "huggingface_hub"  # its logger tells of each attempt to connect


class _OneLine(io.TextIOBase):
    """A stream that writes one line to another stream in place of all that is written to it."""

    def __init__(self, line: str, stream: TextIO) -> None:
        self.line, self.stream, self.done = line, stream, False

    def write(self, text: str) -> int:
        if text.strip() and not self.done:
            self.done = True
            self.stream.write(f"{self.line}\n")
            self.stream.flush()
        return len(text)


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Let progress bars, warnings and paths of a download become the line "downloading ..." on stderr; nothing is
    written if all is in the caches. what: what is downloaded.
    """
    logger = logging.getLogger(HUB)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        line = _OneLine(f"downloading {what}", sys.stderr)
        with warnings.catch_warnings(), redirect_stderr(line), redirect_stdout(line):  # torch.hub prints on stdout
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
