"""Limits on the memory and the processor time that reading one file may take. Only that file fails when it exceeds one.

Decoders trust what a file states, and cannot be stopped from Python. So the operating system sets the limits:

memory    RLIMIT_DATA, relative to what the process holds when it begins with a file. An allocation beyond it fails.
seconds   a timer of processor time (ITIMER_PROF), in worker processes only: it ends the process, whose parent then
          starts another one and repeats the work without the file.

A busy machine and a slow disk do not shorten the time, because only processor time counts. Memory is limited on Linux
only, since other systems do not count mapped memory; neither is limited on Windows, which lacks both calls.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from dpconvert.errors import ReadError, UsageError

GIB = 1 << 30
MEMORY = 6 * GIB  # an image in memory has at most 179 megapixels, for which JPEG 2000 takes 3.2 GiB
SECONDS = 1800.0  # a slide of ten gigapixels without reduced levels takes some minutes
HAS_MEMORY, HAS_SECONDS = sys.platform == "linux", hasattr(signal, "setitimer")
STATM, DATA_FIELD = Path("/proc/self/statm"), 5  # in pages (proc_pid_statm(5))
CRASHES = {"SIGSEGV", "SIGABRT", "SIGTRAP", "SIGBUS", "SIGFPE", "SIGILL"}  # signals of a fault in a library
ABORTS = {"SIGABRT", "SIGTRAP"}  # by which GLib, and so OpenSlide, also ends a process that it gets no memory for
REMEDY = "fetch it again; if it is good, report it to the program's authors"


@dataclass(frozen=True)
class Limits:
    """The limits for each file. 0: none.

    memory: bytes. seconds: of processor time; None: SECONDS in worker processes, and none in a process that works
    alone, since the timer would end the program.
    """

    memory: int = MEMORY
    seconds: float | None = None

    @classmethod
    def of_options(cls, memory: int | None, seconds: int | None) -> Limits:
        """The limits that a user requests, in GiB and seconds.

        Raises:
            UsageError: this system lacks the limit.
        """
        for value, exists, option in ((memory, HAS_MEMORY, "memory"), (seconds, HAS_SECONDS, "seconds")):
            if value and not exists:
                raise UsageError(f"--limit-{option}: {sys.platform} has no such limit", remedy="leave the option out")
        return cls(MEMORY if memory is None else memory * GIB, seconds)


@dataclass
class _Guard:
    """The limits of this process. note: a file that names what is read, for the parent of a worker that ends."""

    limits: Limits
    note: int | None = None
    ended: Mapping[str, str] = field(default_factory=dict)  # why reading a file ended another worker, by file
    where: str = ""
    most: int = 0  # RLIMIT_DATA for `where`

    def begin(self, where: str) -> None:
        if where != self.where:
            self.where, self.most = where, _data() + self.limits.memory
        if self.limits.memory and HAS_MEMORY:
            _limit_data(self.most)
        if self.note is not None:
            self._write(where.encode("utf-8", "surrogateescape") + b"\0")
            if HAS_SECONDS:
                signal.setitimer(signal.ITIMER_PROF, SECONDS if self.limits.seconds is None else self.limits.seconds)

    def end(self) -> None:
        if self.note is not None:
            if HAS_SECONDS:
                signal.setitimer(signal.ITIMER_PROF, 0)
            self._write(b"\0")
        if self.limits.memory and HAS_MEMORY:
            _limit_data(None)

    def _write(self, what: bytes) -> None:
        assert self.note is not None
        os.lseek(self.note, 0, os.SEEK_SET)  # os.pwrite is absent on Windows
        os.write(self.note, what)


_guard: _Guard | None = None  # the limits of this process, which `limited` or `limit_worker` sets


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Limit the block, which reads the file `where` or what belongs to it.

    Raises:
        ReadError: it takes more memory than allowed, or ended a worker process before.
    """
    guard = _guard
    if guard is None:
        yield
        return
    if where in guard.ended:
        _refuse(where, guard.ended[where], guard.limits)
    try:
        guard.begin(where)
        try:
            yield
        finally:
            guard.end()
    except MemoryError:
        raise ReadError(
            "reading it takes too much memory",
            where=where,
            expected=f"at most {guard.limits.memory / GIB:g} GiB",
            found="more",
            remedy="if the file is good, allow more with --limit-memory",
        ) from None


def is_beyond(needed: int) -> bool:
    """Whether `needed` bytes are more than the limit leaves for the file that is being read.

    Libraries that fail to allocate them may report a damaged file.
    """
    guard = _guard
    return guard is not None and guard.limits.memory > 0 and HAS_MEMORY and needed > guard.most - _data()


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Limit the memory of every `reading` in this process, within the block."""
    global _guard
    before, _guard = _guard, _Guard(limits)
    try:
        yield
    finally:
        _guard = before


def limit_worker(limits: Limits, notes: Path) -> None:
    """Limit every `reading` in this worker process, and note in the folder `notes` which file it reads."""
    global _guard
    _guard = _Guard(limits, os.open(notes / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_TRUNC))


def refuse_later(ended: Mapping[str, str]) -> None:
    """Refuse the files that ended other workers, in this worker process."""
    if _guard is not None:
        _guard.ended = ended


def file_of(notes: Path, worker: int) -> str:
    """Return the file that a worker process read when it ended; "" if it read none."""
    try:
        return (notes / str(worker)).read_bytes().partition(b"\0")[0].decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def reason(exit_code: int) -> str | None:
    """Return the name of the signal that a file may have caused; None if a worker ended for another reason."""
    if exit_code >= 0:
        return None
    name = signal.Signals(-exit_code).name
    return name if name in CRASHES or name == "SIGPROF" else None


def _refuse(where: str, why: str, limits: Limits) -> NoReturn:
    if why == "SIGPROF":
        most = SECONDS if limits.seconds is None else limits.seconds
        raise ReadError(
            "reading it takes too much time",
            where=where,
            expected=f"at most {most:g} s of processor time",
            found="more",
            remedy="if the file is good, allow more with --limit-seconds",
        )
    if why in ABORTS and limits.memory and HAS_MEMORY:
        raise ReadError(
            "a library gave up while reading it, as some do without enough memory",
            where=where,
            expected=f"at most {limits.memory / GIB:g} GiB",
            found=f"signal {why}",
            remedy="if the file is good, allow more with --limit-memory",
        )
    raise ReadError("a library crashed while reading it", where=where, found=f"signal {why}", remedy=REMEDY)


def _data() -> int:
    """Return the bytes that count towards RLIMIT_DATA."""
    if not HAS_MEMORY:
        return 0
    return int(STATM.read_bytes().split()[DATA_FIELD]) * os.sysconf("SC_PAGE_SIZE")


def _limit_data(most: int | None) -> None:
    import resource  # absent on Windows

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard if most is None or (hard != resource.RLIM_INFINITY and most > hard) else most
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
