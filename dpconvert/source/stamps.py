"""When files last changed: by it, a resumed conversion notices a file that was replaced by one of the same size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path


class Stamps:
    """File on disk -> the time of its last change, in nanoseconds; of a folder, that of its newest file.

    lies: name of a file in the source -> its path, or that of the archive that holds it. Each path is looked at once.
    """

    def __init__(self, lies: Callable[[str], Path]) -> None:
        self._lies, self._seen = lies, dict[Path, int]()

    def of(self, name: str) -> int:
        """Return the time of one file's last change; 0 if it is not there."""
        path = self._lies(name)
        if path not in self._seen:
            self._seen[path] = _changed(path)
        return self._seen[path]

    def newer_than(self, file: Path, names: Iterable[str]) -> list[str]:
        """Return those files that changed after another file did."""
        made = _changed(file)
        return [name for name in names if self.of(name) > made]

    def digest(self, names: Iterable[str]) -> str:
        """Return the sha256 over names and times."""
        lines = (f"{name}\0{self.of(name)}\n".encode("utf-8", "surrogateescape") for name in names)
        return hashlib.sha256(b"".join(lines)).hexdigest()


def _changed(path: Path) -> int:
    try:
        inside = (one for one in path.rglob("*") if one.is_file()) if path.is_dir() else ()
        return max((one.stat().st_mtime_ns for one in inside), default=path.stat().st_mtime_ns)
    except OSError:
        return 0
