"""Files that must be unpacked before they can be read piece by piece: unpacked once, beside the source, and kept.

The cache is the folder `.dpconvert-cache` in the source's folder, or the folder in the variable DPCONVERT_CACHE.
Its files may be removed at any time; they are made again when needed.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from dpconvert.errors import OutputError, ReadError
from dpconvert.runtime import locks
from dpconvert.runtime.terminal import say

VARIABLE = "DPCONVERT_CACHE"
FOLDER = ".dpconvert-cache"
CACHE = f"into the cache ({FOLDER} in the source's folder, or {VARIABLE}), which may be removed afterwards"
COPY = f" is read from a copy that was unpacked {CACHE}"
PIECE = 1 << 22


def folder_of(root: Path) -> Path:
    """Return the cache folder of the source in `root`: an absolute path, since names are resolved from `root`."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else root.absolute() / FOLDER


def copy_note(name: str) -> str:
    """Return a note for the user on a file that is read from the cache."""
    return f"{name}{COPY}"


def copies_counted(notes: Sequence[str]) -> list[str]:
    """Return the notes, with one in place of those on several files that are read from the cache."""
    copied = [note.removesuffix(COPY) for note in notes if note.endswith(COPY)]
    if len(copied) < 2:
        return list(notes)
    others = [note for note in notes if not note.endswith(COPY)]
    return [*others, f"{len(copied)} files are read from copies that were unpacked {CACHE}; the first: {copied[0]}"]


def unpacked(root: Path, original: Path, name: str, suffix: str, write: Callable[[Path], None], size: int = 0) -> Path:
    """Return the file that `write` makes from `original` (`name` in the source), from the cache if it exists.

    suffix: suffix of the file. size: its expected number of bytes, if known.

    Raises:
        OutputError: the cache cannot be written, or has no room.
        Exception: `write` raised it.
    """
    state = original.stat()
    times = f"{state.st_mtime_ns}\0{state.st_ctime_ns}"  # a file that replaces another may keep an older time of change
    stamp = hashlib.sha256(f"{name}\0{state.st_size}\0{times}".encode("utf-8", "surrogateescape"))
    folder = folder_of(root)
    path = folder / f"{PurePosixPath(name).name[:80]}-{stamp.hexdigest()[:16]}{suffix}"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.held(path.with_name(f"{path.name}.lock"), wait=math.inf):
            if not path.exists():
                _write(path, name, write, size)
    except OSError as error:
        raise OutputError(
            f"{name} cannot be unpacked: {error.strerror or error}",
            where=folder,
            remedy=f"name a folder with room in the variable {VARIABLE}, or unpack it yourself",
        ) from None
    return path


def copied(stream: IO[bytes], path: Path, most: int, name: str) -> None:
    """Copy a stream to a file.

    Raises:
        ReadError: the stream holds more than `most` bytes.
    """
    with path.open("wb") as file:
        while piece := stream.read(PIECE):
            if file.tell() + len(piece) > most:
                raise ReadError(f"unpacks to more than {most} bytes", where=name, remedy="unpack it yourself")
            file.write(piece)


def _write(path: Path, name: str, write: Callable[[Path], None], size: int) -> None:
    if size > (free := shutil.disk_usage(path.parent).free):
        raise OutputError(
            f"no room to unpack {name}",
            where=path.parent,
            expected=f"{size} bytes",
            found=f"{free}",
            remedy=f"make room, or name another folder in the variable {VARIABLE}",
        )
    if sys.stderr.isatty():
        say(f"{name}: unpacking once into {path.parent}")
    part = path.with_name(f"{path.name}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)
