"""One process at a time in a folder: the others are told who is there.

The lock is the kernel's (flock): it goes with the process that holds it, however that ends, and a file `.lock` that is
left over locks nothing. On file systems without such locks (some network ones) what `.lock` says decides: a process of
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
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dpconvert.errors import OutputError

NAME = ".lock"
TAKEN = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}
SETTLED = 0.5  # seconds after which one of two that took it at once sees the other
NONE_HERE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


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
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
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
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=folder, remedy=choose) from None
    try:
        if not _ours(file, path):
            raise OutputError(taken, where=folder, found=Holder.read(path), remedy=remedy)
        _write(file, json.dumps(asdict(Holder.this())).encode(), folder, choose)
        try:
            yield
        finally:
            with suppress(OSError):  # nothing is held any more, whether this can be noted or not
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def _ours(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        if error.errno not in NONE_HERE:
            raise OutputError(f"cannot be locked: {error.strerror}", where=path) from None
        holder = Holder.read(path)
        if holder is not None and not holder.is_gone:
            return False
        os.pwrite(file, json.dumps(asdict(ours := Holder.this())).encode(), 0)
        time.sleep(SETTLED)
        return Holder.read(path) == ours
    return True


def _write(file: int, text: bytes, folder: Path, choose: str) -> None:
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, text, 0)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=folder, remedy=choose) from None


def _started(pid: int) -> str:
    """When a process of this machine was started, in clock ticks; '' for none, or where it cannot be told."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else rest[18]
