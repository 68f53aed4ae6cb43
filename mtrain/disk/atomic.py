"""Files that are complete or absent, whatever is killed when. Everything that mtrain writes is written through here."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpconvert.runtime import locks
from mtrain.errors import RunError

PARTIAL = ".partial"
DAY = 86400.0  # seconds
LARGEST_PROCESS = 1 << 31
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)  # errors that more room does not remedy


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name `path` (and is on disk) when the block ends without an exception.

    Raises:
        RunError: the disk is full, read-only, or the like.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leavings(path.parent)
        ours = f".{socket.gethostname()}.{os.getpid()}."
        place = Path(tempfile.mkdtemp(prefix=ours, suffix=PARTIAL, dir=path.parent))
        try:  # in a separate folder: some libraries write to yet another file first
            partial = place / path.name
            yield partial
            _fsync(partial)
            partial.replace(path)
            _fsync(path.parent)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def remove_leavings(folder: Path, *, everything: bool = False) -> None:
    """Remove what killed processes left half written: those of this machine that run no more, of others after a day.

    everything: nobody else writes to this folder now.
    """
    for path in folder.glob(f".*{PARTIAL}"):
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
            if everything or _is_abandoned(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_abandoned(path: Path) -> bool:
    host, number, *_ = path.name.removeprefix(f".{socket.gethostname()}").split(".")
    if host == "" and number.isdecimal() and int(number) in range(1, LARGEST_PROCESS):
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except OSError:  # somebody else's, and running
            return False
    return time.time() - path.stat().st_mtime > DAY


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Failures to write, as an error that names `path` and says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "write to another folder" if error.errno in FORBIDDEN else "make room and run the command again"
        raise RunError(f"cannot be written: {reason}", where=path, remedy=remedy) from None


def check_folder(folder: Path) -> None:
    """Make the folder if need be, and check that files can be written to it, before hours of work.

    Raises:
        RunError: they cannot.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def _check_encoding(folder: Path) -> None:
    """Refuse a folder in which neither TensorBoard nor safetensors can open a file."""
    try:
        os.fsencode(folder).decode()
    except UnicodeDecodeError:
        raise RunError("the path is not in UTF-8", where=folder, remedy="choose or rename the folder") from None


@contextlib.contextmanager
def locked(folder: Path, taken: str, remedy: str, wait: float = 0.0) -> Iterator[None]:
    """The only process in `folder`, which is made if need be. wait: seconds. taken, remedy: what to say to the others.

    Raises:
        RunError: another process uses the folder, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        _check_encoding(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locks.held(folder / locks.NAME, wait))
            except locks.TakenError as error:
                raise RunError(taken, where=folder, found=error.holder, remedy=remedy) from None
        yield


def write_text(path: Path, text: str) -> None:
    """Put `text` into `path` atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Put `content` as JSON into `path` atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def append_line(path: Path, text: str) -> None:
    """Add a line to a file; a last line that a killed process left unfinished keeps to itself."""
    with writing(path), path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(text.encode() + b"\n")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
