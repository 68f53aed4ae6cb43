"""Folders of converted tasks."""

from __future__ import annotations

from pathlib import Path

from dpconvert.card import FILE_NAME, begun
from dpconvert.errors import ShardError


def task_folders(path: Path) -> list[Path]:
    """The folder itself if it holds a task, else its subfolders that hold a task or an unfinished conversion.

    Raises:
        ShardError: No such folder exists.
    """
    if (path / FILE_NAME).exists():
        return [path]
    finished, unfinished = begun(path) if path.is_dir() else ([], [])
    if not (finished or unfinished):
        what = "no converted task in this folder" if path.is_dir() else "no such folder"
        raise ShardError(what, where=path, remedy="give the folder that --out named")
    return sorted([*finished, *unfinished])
