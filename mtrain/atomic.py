"""Files that are complete or absent, whatever is killed when. Everything that mtrain writes is written through here."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpconvert.runtime import locks
from mtrain.errors import RunError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name `path` (and is on disk) when the block ends without an exception.

    Raises:
        RunError: the disk is full, read-only, or the like.
    """
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            _fsync(partial)
            partial.replace(path)
            _fsync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Failures to write, as an error that names `path` and says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(
            f"cannot be written: {reason}", where=path, remedy="make room and run the command again"
        ) from None


@contextlib.contextmanager
def locked(folder: Path, taken: str, remedy: str, wait: float = 0.0) -> Iterator[None]:
    """The only process in `folder`, which is made if need be. wait: seconds. taken, remedy: what to say to the others.

    Raises:
        RunError: another process is there, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
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
