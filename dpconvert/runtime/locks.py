"""One process at a time in a folder, or at a file: the others are told who is there.

The lock is the kernel's (flock): it goes with the process that holds it, however that ends, and a lock file that is
left over locks nothing. On file systems without such locks (some network ones) what the file says decides: a process of
this machine that does not run any more is no holder; of one of another machine nobody can tell.
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
SETTLED = 0.5  # seconds after which one of two that took it at once sees the other
POLL = 0.05  # seconds between looks at a lock that is waited for
NONE_HERE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class TakenError(Exception):
    """Another process has the lock; `holder` is who, as far as the file tells."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is locked")
        self.holder = Holder.read(path)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock; `started` tells it from a later one of the same number."""

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
        """Who is noted in the file; None for nobody, or nothing that can be read."""
        try:
            told = json.loads(path.read_bytes())
            return cls(str(told["host"]), int(told["pid"]), str(told["started"]), str(told["since"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    @property
    def is_gone(self) -> bool:
        """Whether it is known not to run any more."""
        return self.host == socket.gethostname() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def locked(folder: Path, taken: str, remedy: str, choose: str) -> Iterator[None]:
    """Nobody else works in `folder`, which is made if need be.

    taken: what to say when somebody does. remedy: what then. choose: what when the folder cannot be written.

    Raises:
        OutputError: another process is there, or it cannot be written.
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
    """The lock of the file at `path`, which is made if need be; it is waited for at most so many seconds.

    Raises:
        TakenError: another process has it.
        OSError: the file cannot be opened, written or locked.
    """
    file = _taken(path, wait)
    try:
        yield
    finally:
        with suppress(OSError):  # nothing is held any more, whether this can be noted or not
            os.ftruncate(file, 0)
            fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file open too
        os.close(file)


def is_held(path: Path) -> bool:
    """Whether a process has the lock of the file at `path` now."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:  # not ours to open: what it says has to do
        return _is_noted(path)
    try:
        free = _flocked(file)
        return _is_noted(path) if free is None else not free
    finally:
        os.close(file)


def _taken(path: Path, wait: float) -> int:
    """The open file, whose lock is ours and which says so."""
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
    """Whether the lock of an open file is ours from now on."""
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
    """Whether the kernel gives us the lock; None where it keeps none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        if error.errno in NONE_HERE:
            return None
        raise
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether the path still leads to the open file: who had the lock may have removed it."""
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
    """When a process of this machine was started, in clock ticks; '' for none, or where it cannot be told."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else rest[18]
