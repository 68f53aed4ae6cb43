"""When files last changed: by it, a rerun notices a file that was replaced by one of the same size.

A file's state is its size, the time of its last change, and that of the last change of its inode (which a copy that
keeps an older time has as well). Of a folder, such as a Zarr, the states of all its files count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

LENGTH = 8  # bytes of a file's digest in a record


@dataclass(frozen=True)
class _State:
    """The time of the newest change, in nanoseconds, and a text that differs after any change."""

    newest: int = 0
    text: str = ""


class Stamps:
    """File on disk -> its state. Each path is looked at once.

    lies: name of a file in the source -> its path, or that of the archive that holds it.
    """

    def __init__(self, lies: Callable[[str], Path]) -> None:
        self._lies, self._seen = lies, dict[Path, _State]()

    def of(self, name: str) -> str:
        """Return one file's state; '' if it is not there."""
        return self._state(name).text

    def newer_than(self, file: Path, names: Iterable[str]) -> list[str]:
        """Return those files that changed after another file was written."""
        since = file.stat().st_mtime_ns
        return [name for name in names if self._state(name).newest > since]

    def record(self, names: Iterable[str]) -> bytes:
        """Return a digest of 8 bytes for each of some files."""
        return b"".join(self._digest(name) for name in names)

    def changed_since(self, record: bytes, names: Iterable[str]) -> list[str]:
        """Return those files whose state a record does not hold."""
        known: Collection[bytes] = {record[at : at + LENGTH] for at in range(0, len(record), LENGTH)}
        return [name for name in names if self._digest(name) not in known]

    def _digest(self, name: str) -> bytes:
        line = f"{name}\0{self.of(name)}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(line, digest_size=LENGTH).digest()

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
    lines = [f"{name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}" for name, stat in found]
    newest = max(time for _, stat in found for time in (stat.st_mtime_ns, stat.st_ctime_ns))
    return _State(newest, hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest())
