"""When files last changed: by it, a rerun notices a file that was replaced by one of the same size.

A file's state is its size, the time of its last change, and that of the last change of its inode (which a copy that
keeps an older time has as well). Of a folder, such as a Zarr, the states of all its files count.

A hard link to a file, or other rights on it, change its inode alone: between a record and a later look, a change of the
inode counts only if these stayed as they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

LENGTH = 8  # bytes of a digest in a record


@dataclass(frozen=True)
class _State:
    """The time of the newest change, in nanoseconds; and texts that differ after any change, after one of size, time
    or inode number, and after one of rights or links.
    """

    newest: int = 0
    text: str = ""
    content: str = ""
    access: str = ""


class Stamps:
    """File on disk -> its state. Each path is examined once.

    lies: name of a file in the source -> its path, or that of the archive that holds it.
    """

    def __init__(self, lies: Callable[[str], Path]) -> None:
        self._lies, self._seen = lies, dict[Path, _State]()

    def newer_than(self, file: Path, names: Iterable[str]) -> list[str]:
        """Return those files that changed after another file was written."""
        since = file.stat().st_mtime_ns
        return [name for name in names if self._state(name).newest > since]

    def record(self, names: Iterable[str]) -> bytes:
        """Return digests of the states of some files."""
        return b"".join(b"".join(self._digests(name)) for name in names)

    def changed_since(self, record: bytes, names: Iterable[str]) -> list[str]:
        """Return those files whose state a record does not hold."""
        known = {record[at : at + LENGTH] for at in range(0, len(record), LENGTH)}
        return [name for name in names if self._is_changed(name, known)]

    def _is_changed(self, name: str, known: Collection[bytes]) -> bool:
        whole, content, access = self._digests(name)
        return whole not in known and (content not in known or access in known)

    def _digests(self, name: str) -> list[bytes]:
        """Return the digests of a file's state, of its content as far as it shows, and of the rights on it."""
        state = self._state(name)
        texts = (f"whole {state.text}", f"content {state.content}", f"access {state.access}")
        lines = (f"{name}\0{text}".encode("utf-8", "surrogateescape") for text in texts)
        return [hashlib.blake2b(line, digest_size=LENGTH).digest() for line in lines]

    def _state(self, name: str) -> _State:
        path = self._lies(name)
        if path not in self._seen:
            self._seen[path] = _state(path)
        return self._seen[path]


def _state(path: Path) -> _State:
    try:
        parts = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else []
        found = [(str(part.relative_to(path)), part.stat()) for part in parts or [path]]
    except OSError:
        return _State()
    newest = max(time for _, stat in found for time in (stat.st_mtime_ns, stat.st_ctime_ns))
    return _State(
        newest,
        _text(f"{name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}" for name, stat in found),
        _text(f"{name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}" for name, stat in found),
        _text(f"{name} {stat.st_mode} {stat.st_uid} {stat.st_gid} {stat.st_nlink}" for name, stat in found),
    )


def _text(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
