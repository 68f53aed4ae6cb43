"""Fakes of sources: the same for the same seed. `make stress` draws all of them again (test_contract.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dpconvert.manifest.catalog import find
from dpconvert.readers.fakes import draw_fake
from dpconvert.source.folder import FAKE
from tests.dpconvert.conftest import Answer
from tests.dpconvert.test_contract import digests

# files in folders, slides and their XML, points in MATLAB files, HDF5, NumPy, DICOM or TIFF slides, SQLite and zips
SOURCES = ("umcm-colorectal", "camelyon16", "warwick-crc", "patch-camelyon", "pannuke", "midogpp", "lizard")


@pytest.mark.parametrize("name", SOURCES)
def test_a_fake_is_the_same_for_the_same_seed(name: str, tmp_path: Path) -> None:
    first, second = (draw_fake(find(name), tmp_path / number) for number in ("first", "second"))
    assert digests(first) == digests(second)
    assert digests(first)


def test_a_fake_of_whole_files_says_why_it_has_fewer_samples(tmp_path: Path, dpconvert: Callable[..., Answer]) -> None:
    """Its arrays are all there; only what they hold is less than the release."""
    folder = draw_fake(find("patch-camelyon"), tmp_path)
    made = dpconvert("patch-camelyon", "--source", folder, "--out", tmp_path / "out", "--workers", 1)
    assert "total: expected 327680, found 24 (known: drawn by `dpconvert fake`)" in made.out
    (folder / FAKE).unlink()
    made = dpconvert("patch-camelyon", "--source", folder, "--out", tmp_path / "other", "--workers", 1)
    assert "total: expected 327680, found 24 (WARNING: no known reason)" in made.out
