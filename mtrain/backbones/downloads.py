"""What other libraries write to the terminal while they download weights, as one line of ours."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from typing import TextIO

HUB = "huggingface_hub"  # its logger reports each attempt to connect
PATIENCE = 5.0  # seconds without a word, after which the download is announced
UNANNOUNCED = ContextVar("UNANNOUNCED", default=False)  # whether downloads are made without a word
SILENT = logging.CRITICAL + 1
STALE = 30.0  # seconds for which a download that failed is not tried again
RETRY = "Retrying"  # in the hub's message about an attempt that failed


_failed: dict[str, tuple[Exception, float]] = {}  # by what could not be downloaded, and when


class _OneLine(io.TextIOBase):
    """A stream that writes one line to another stream in place of all that is written to it."""

    def __init__(self, line: str, stream: TextIO) -> None:
        self.line, self.stream, self.done = line, stream, False
        self.lock = threading.Lock()

    def write(self, text: str) -> int:
        if text.strip():
            self.say()
        return len(text)

    def say(self) -> None:
        """Write the line, unless it was written before."""
        with self.lock:
            if not self.done:
                self.done = True
                self.stream.write(f"{self.line}\n")
                self.stream.flush()


class _Retries(logging.Handler):
    """The first message about a failed attempt to connect becomes the line of a stream."""

    def __init__(self, line: _OneLine) -> None:
        super().__init__()
        self.line = line

    def emit(self, record: logging.LogRecord) -> None:
        if RETRY in record.getMessage():
            self.line.say()


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Let progress bars, warnings and paths of a download become the line "downloading ..." on stderr, and failed
    attempts to connect another; nothing is written if all is in the caches, or while it is `UNANNOUNCED`. what: what
    is downloaded.

    The block raises at once what it raised less than `STALE` seconds ago: each attempt may take minutes, and a command
    asks for the weights of a network once for each task.
    """
    failed, when = _failed.get(what, (None, 0.0))
    if failed is not None and time.monotonic() - when < STALE:
        raise failed
    try:
        with _announced(what):
            yield
    except Exception as error:
        _failed[what] = error, time.monotonic()
        raise


@contextmanager
def _announced(what: str) -> Iterator[None]:
    terminal = io.StringIO() if UNANNOUNCED.get() else sys.stderr
    line = _OneLine(f"downloading {what}", terminal)
    again = _OneLine(f"no connection for {what}; trying again for up to two minutes", terminal)
    timer = threading.Timer(PATIENCE, line.say)
    timer.daemon = True
    with warnings.catch_warnings(), redirect_stderr(line), redirect_stdout(line), _quiet(again):  # torch.hub prints
        warnings.simplefilter("ignore")
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def _quiet(again: _OneLine) -> Iterator[None]:
    """Keep the messages of the hub from the terminal."""
    logger, retries = logging.getLogger(HUB), _Retries(again)
    levels = [(handler, handler.level) for handler in logger.handlers]
    for handler, _ in levels:
        handler.setLevel(SILENT)
    logger.addHandler(retries)
    try:
        yield
    finally:
        logger.removeHandler(retries)
        for handler, level in levels:
            handler.setLevel(level)
