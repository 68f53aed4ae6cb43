"""Links to folders: followed, whatever the order in which the file system lists them; never in a circle."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpconvert.errors import SourceError
from dpconvert.source import listing
from dpconvert.source.listing import walk


def names_in(root: Path) -> list[str]:
    return sorted(name for name, _, _ in walk(root))


def test_a_folder_and_a_link_to_it_are_both_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, whichever the file system listed later was left out in silence."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.png").write_bytes(b"x")
    for name in ("a", "c"):
        (tmp_path / name).symlink_to(tmp_path / "b")
    real = os.walk

    def shuffled(*arguments: Any, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in real(*arguments, **options):
            random.shuffle(folders)
            yield folder, folders, files

    monkeypatch.setattr("os.walk", shuffled)
    for _ in range(4):
        assert names_in(tmp_path) == ["a/x.png", "b/x.png", "c/x.png"]


def test_pipes_are_no_files_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "y.png")
    assert names_in(tmp_path) == ["x.png"]


def test_links_back_to_a_folder_above_are_passed_over(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"x")
    (tmp_path / "a/root").symlink_to(tmp_path)
    (tmp_path / "a/b").symlink_to(tmp_path / "b")
    (tmp_path / "b/a").symlink_to(tmp_path / "a")
    assert names_in(tmp_path) == ["a/b/x.png", "a/x.png", "b/a/x.png", "b/x.png"]


def test_folders_that_all_link_to_each_other_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_VISITS", 20)
    folders = [tmp_path / str(number) for number in range(6)]
    for folder in folders:
        folder.mkdir()
    for folder in folders:
        for other in folders:
            (folder / f"to-{other.name}").symlink_to(other)
    with pytest.raises(SourceError, match="links lead to this folder more than 20 times"):
        names_in(tmp_path)


def test_a_link_to_a_file_that_is_not_here_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.png").symlink_to("elsewhere.png")
    with pytest.raises(SourceError, match=r"1\.png: a symbolic link to a file that is not here; found elsewhere\.png"):
        names_in(tmp_path)
