"""Locks for folders and files: one process at a time, and the others can report which process holds the lock.

The lock is the kernel's (flock): it ends with the process that holds it, and a leftover lock file locks nothing. On
file systems without such locks (some network ones) the content of the file decides: an ended process of this machine
holds no lock; a process of another machine is assumed to be running.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dpconvert.errors import OutputError

NAME = ".lock"
TAKEN = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}
SETTLED = 0.5  # seconds after which two processes that took a lock at once see which one has it
POLL = 0.05  # seconds between attempts to take a lock
NOT_SUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class TakenError(Exception):
    """Another process has the lock; `holder` describes it, if the file can be read."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is locked")
        self.holder = Holder.read(path)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. `started` distinguishes it from a later process with the same number."""

    host: str
    pid: int
    started: str
    since: str

    @classmethod
    def this(cls) -> Holder:
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()), time.strftime("%Y-%m-%d %H:%M:%S"))

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """The holder that the file names; None if it names none or cannot be read."""
        try:
            content = json.loads(path.read_bytes())
            return cls(str(content["host"]), int(content["pid"]), str(content["started"]), str(content["since"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended."""
        return self.host == socket.gethostname() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def locked(folder: Path, taken: str, remedy: str, choose: str) -> Iterator[None]:
    """Hold the lock of `folder`, which is created if necessary.

    taken, remedy: the error and its remedy if another process holds it. choose: the remedy if the folder cannot be
    written.

    Raises:
        OutputError: another process holds the lock, or the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder / NAME))
        except TakenError as error:
            raise OutputError(taken, where=folder, found=error.holder, remedy=remedy) from None
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror}", where=folder, remedy=choose) from None
        yield


@contextmanager
def held(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of the file at `path`, which is created if necessary. wait: maximum seconds to wait for it.

    Raises:
        TakenError: another process holds the lock.
        OSError: the file cannot be opened, written or locked.
    """
    file = _open_locked(path, wait)
    try:
        yield
    finally:
        with suppress(OSError):  # the lock is released even if this fails
            os.ftruncate(file, 0)
            fcntl.flock(file, fcntl.LOCK_UN)  # needed if a forked process has the file open, too
        os.close(file)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of the file at `path`."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:  # no permission to open it: its content decides
        return _is_noted(path)
    try:
        free = _flocked(file)
        return _is_noted(path) if free is None else not free
    finally:
        os.close(file)


def _open_locked(path: Path, wait: float) -> int:
    """A descriptor of the file, with its lock taken and this process noted as the holder."""
    until = time.monotonic() + wait
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if _take(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        if time.monotonic() >= until:
            raise TakenError(path)
        time.sleep(POLL)


def _take(file: int, path: Path) -> bool:
    """Try to take the lock of an open file. Returns whether this process now holds it."""
    ours = Holder.this()
    match _flocked(file):
        case None if not _is_noted(path):
            _note(file, ours)
            time.sleep(SETTLED)
            return Holder.read(path) == ours
        case True if _is_at(file, path):
            _note(file, ours)
            return True
    return False


def _flocked(file: int) -> bool | None:
    """Whether the kernel grants the lock; None if the file system does not support locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        if error.errno in NOT_SUPPORTED:
            return None
        raise
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether the path is still that of the open file, which the last holder may have removed."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _is_noted(path: Path) -> bool:
    holder = Holder.read(path)
    return holder is not None and not holder.is_gone


def _note(file: int, holder: Holder) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(asdict(holder)).encode(), 0)


def _started(pid: int) -> str:
    """The start time of a process of this machine in clock ticks; '' if it does not run, or is not known."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else rest[18]
