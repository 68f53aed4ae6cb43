"""Open sources whose files were altered: a table that contradicts itself, two masks, unknown kinds of nuclei."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import find
from dpconvert.readers.fakes import draw_fake
from tests.dpconvert.test_sources_drawn import planned, unpacked


def drawn(name: str, folder: Path) -> Path:
    """A fake of one's own, with its archives unpacked."""
    made = draw_fake(find(name), folder)
    if not list(made.rglob("*.zip")):
        return made
    files = unpacked(made, folder / "unpacked")
    for table in made.glob("*.csv"):
        shutil.copy(table, files)
    return files


def edited(table: Path, change: Callable[[list[str]], list[str]]) -> None:
    table.write_text("".join(f"{line}\n" for line in change(table.read_text().splitlines())))


# name of a source, its table, a set there and another one
SETS = [
    ("segpath-epithelium", "*_fileinfo.csv", ",train", ",test"), ("ignite", "data_overview.csv", ",train,", ",test,"),
    ("midogpp", "datasets_xvalidation.csv", ";train;", ";test;"), ("lizard", "info.csv", ",3", ",1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "table", "one", "other"), SETS)
def test_a_second_row_about_an_image_that_says_otherwise_is_refused(
    name: str, table: str, one: str, other: str, tmp_path: Path
) -> None:
    source = drawn(name, tmp_path)
    (path,) = source.rglob(table)
    edited(path, lambda lines: [*lines, lines[1].replace(one, other)])
    with pytest.raises(SourceError, match=r"line \d+: two rows about one image, with different values"):
        planned(name, source, **({"split": "paper"} if name.startswith("segpath") else {}))


@pytest.mark.parametrize(("name", "table", "one", "other"), SETS)
def test_a_row_without_a_set_is_refused(name: str, table: str, one: str, other: str, tmp_path: Path) -> None:
    source = drawn(name, tmp_path)
    (path,) = source.rglob(table)
    empty = one.replace("train", "").replace("3", "")
    edited(path, lambda lines: [lines[0], lines[1].replace(one, empty), *lines[2:]])
    with pytest.raises(SourceError, match=r"line 2: an empty cell in column '(train_val_test|split|Dataset|Split)'"):
        planned(name, source)


@pytest.mark.parametrize(
    ("name", "table", "row"),
    [
        ("glas", "Grade.csv", "train_99,1, benign, healthy"),
        ("lizard", "info.csv", "crag_99,train_30,2"),
        ("midogpp", "datasets_xvalidation.csv", "99;train;human breast cancer;Hamamatsu XR;UMC Utrecht;Human"),
        ("ignite", "data_overview.csv", "./images/he/patient99_he_roi1.png,x,he_tissue_segmentation,train,H&E,99"),
        ("segpath-epithelium", "*_fileinfo.csv", "panCK_Epithelium_099_000000_000000_HE.png,panCK,train"),
    ],
)
def test_rows_about_no_image_here_and_empty_rows_are_counted(name: str, table: str, row: str, tmp_path: Path) -> None:
    source = drawn(name, tmp_path)
    (path,) = source.rglob(table)
    edited(path, lambda lines: [*lines, "", row])
    notes = "; ".join(planned(name, source).notes)
    assert f"1 row of {path.relative_to(source)} about no image here" in notes
    assert f"1 empty row of {path.relative_to(source)} passed over" in notes
