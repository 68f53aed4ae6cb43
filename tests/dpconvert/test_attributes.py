"""Attributes of samples, such as their centre, from names, tables and arrays of one's own data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Answer

Convert = Callable[..., Answer]
SPLIT = "\n[split.strict]\nshare = [1, 0, 0]\n"


def images(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 6), 20 * number).save(path)


def kept(dpconvert: Convert, folder: Path, manifest: str) -> tuple[dict[str, dict[str, str]], str]:
    """Image -> attributes of its sample, and what the command said."""
    (folder / "own.toml").write_text(manifest + SPLIT)
    answer = dpconvert(folder / "own.toml", "--source", folder / "source", "--out", folder / "shards", "--workers", 1)
    assert answer.code == 0, answer.err
    rows = read_index(folder / "shards" / "Own" / "index.parquet").to_pylist()
    return {row["key"]: json.loads(row["attributes"]) for row in rows}, answer.out + answer.err


def test_a_named_group_of_the_pattern_becomes_an_attribute(dpconvert: Convert, tmp_path: Path) -> None:
    images(tmp_path / "source", ["a/UKK_1.png", "a/WNS_2.png", "b/UKK_3.png", "b/_4.png"])
    found, said = kept(
        dpconvert,
        tmp_path,
        """task = "Own"
shape = "folders"
[files.images]
pattern = '(?P<class>[ab])/(?P<site>[A-Z]*)_\\d\\.png$'
[layout]
attributes = {centre = "site"}
""",
    )
    centres = sorted(of.get("centre", "none") for of in found.values())
    assert centres == ["UKK", "UKK", "WNS", "none"]
    assert "not used" not in said


def test_a_group_that_the_pattern_lacks_is_one_line(dpconvert: Convert, tmp_path: Path) -> None:
    images(tmp_path / "source", ["a/1.png", "b/2.png"])
    (tmp_path / "own.toml").write_text(
        'task = "Own"\nshape = "folders"\n[layout]\nattributes = {centre = "site"}' + SPLIT
    )
    answer = dpconvert(tmp_path / "own.toml", "--source", tmp_path / "source", "--out", tmp_path / "shards")
    assert answer.code != 0
    assert "has no group (?P<site>...)" in answer.err


def test_a_column_of_the_table_becomes_an_attribute(dpconvert: Convert, tmp_path: Path) -> None:
    images(tmp_path / "source", ["1.png", "2.png", "3.png"])
    (tmp_path / "source" / "labels.csv").write_text("file,label,Hospital\n1.png,x,A\n2.png,y,B \n3.png,x,\n")
    found, _ = kept(
        dpconvert,
        tmp_path,
        """task = "Own"
shape = "table"
[layout]
file = "{file}"
label = "label"
attributes = {centre = "Hospital"}
""",
    )
    assert sorted(of.get("centre", "none") for of in found.values()) == ["A", "B", "none"]


@pytest.mark.parametrize("place", ["array", "table"])
def test_an_array_or_a_column_beside_arrays_becomes_an_attribute(
    dpconvert: Convert, tmp_path: Path, place: str
) -> None:
    (tmp_path / "source").mkdir()
    rows = ["A", "B", "A", "B"]
    with h5py.File(tmp_path / "source" / "train.h5", "w") as file:
        file["x"] = np.arange(4 * 5 * 5 * 3, dtype=np.uint8).reshape(4, 5, 5, 3)
        file["y"] = np.array([0, 1, 0, 1])
        file["where"] = np.array(rows, dtype="S1")
    table = ""
    if place == "table":
        (tmp_path / "source" / "train.csv").write_text("where\n" + "\n".join(rows) + "\n")
        table = "[files.table]\npattern = '(?P<name>train)\\.csv$'\n"
    found, _ = kept(
        dpconvert,
        tmp_path,
        f"""task = "Own"
shape = "arrays"
classes = ["no", "yes"]
{table}
[layout]
images = "x"
labels = "y"
attributes = {{centre = "where"}}
""",
    )
    assert [found[key]["centre"] for key in sorted(found)] == rows


def test_whole_numbers_with_decimals_are_the_same_value(dpconvert: Convert, tmp_path: Path) -> None:
    """As pandas writes a column of numbers: with decimals where a cell is empty."""
    images(tmp_path / "source", ["0.png", "1.png", "2.png", "3.png"])
    (tmp_path / "source" / "one.csv").write_text("file,label,site\n0.png,a,1.0\n1.png,b,\n")
    (tmp_path / "source" / "two.csv").write_text("file,label,site\n2.png,a,1\n3.png,b,0.5\n")
    layout = '[layout]\nfile = "{file}"\nlabel = "label"\nattributes = {centre = "site"}\n'
    found, _ = kept(dpconvert, tmp_path, f'task = "Own"\nshape = "table"\n{layout}')
    assert sorted(of.get("centre", "none") for of in found.values()) == ["0.5", "1", "1", "none"]
