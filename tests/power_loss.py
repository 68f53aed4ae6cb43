"""What a loss of power would leave of files that get their names by rename: no more than the disk was waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def on_disk_when_named(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Of each file that is renamed from now on, by its new name: how many bytes the disk had of it, and of how many."""
    synced: dict[int, int] = {}
    named: dict[str, tuple[int, int]] = {}
    fsync, replace = os.fsync, Path.replace

    def synced_to_disk(file: int) -> None:
        fsync(file)
        told = os.fstat(file)
        synced[told.st_ino] = told.st_size

    def renamed(path: Path, target: Path) -> Path:
        told = path.stat()
        named[target.name] = synced.pop(told.st_ino, 0), told.st_size
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced_to_disk)
    monkeypatch.setattr(Path, "replace", renamed)
    return named
