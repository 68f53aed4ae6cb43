"""Fakes of sources: the same for the same seed. `make stress` draws all of them again (test_contract.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpconvert.manifest.catalog import find
from dpconvert.readers.fakes import draw_fake
from tests.dpconvert.test_contract import digests

# files in folders, slides and their XML, points in MATLAB files, HDF5, NumPy, DICOM or TIFF slides, SQLite and zips
SOURCES = ("umcm-colorectal", "camelyon16", "warwick-crc", "patch-camelyon", "pannuke", "midogpp", "lizard")


@pytest.mark.parametrize("name", SOURCES)
def test_a_fake_is_the_same_for_the_same_seed(name: str, tmp_path: Path) -> None:
    first, second = (draw_fake(find(name), tmp_path / number) for number in ("first", "second"))
    assert digests(first) == digests(second)
    assert digests(first)
