"""Shards become folders again: the same bytes, nothing overwritten, gone on with after a stop."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpconvert import card as cards
from dpconvert.errors import OutputError, ShardError
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import index_schema, read_index
from dpconvert.shards.sidefiles import side_card
from dpconvert.tasks.unpack import class_folders, unpack
from tests.dpconvert.conftest import Answer, Converted

Get = Callable[[str], Converted]
QUIET = Reporter(quiet=True)


def test_every_image_lies_under_its_split_and_class_with_its_bytes(converted: Get, tmp_path: Path) -> None:
    lung = converted("lung")
    done = unpack(lung.folder, tmp_path / "out", QUIET)
    rows = {row["key"]: row for row in read_index(lung.folder / "index.parquet").to_pylist()}
    images = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".png", ".jpg")]
    assert (done.made, done.had, len(images)) == (164, 0, 164)
    for path in images:
        row, (split, folder, _) = rows[path.stem], path.relative_to(tmp_path / "out").parts
        assert (split, folder) == (row["split"], lung.card.classes[row["label"]].replace(" ", "_"))
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
    with (tmp_path / "out" / "labels.csv").open() as file:
        told = list(csv.DictReader(file))
    assert {line["file"] for line in told} == {str(path.relative_to(tmp_path / "out")) for path in images}
    assert all(rows[Path(line["file"]).stem]["group"] == line["group"] for line in told)


def test_a_stopped_run_goes_on(converted: Get, tmp_path: Path) -> None:
    lung, out = converted("lung"), tmp_path / "out"
    unpack(lung.folder, out, QUIET)
    images = sorted(out.rglob("*.png"))
    for path in images[::2]:
        path.unlink()
    (out / "labels.csv").unlink()
    done = unpack(lung.folder, out, QUIET)
    assert (done.made, done.had) == (len(images[::2]), len(images[1::2]))
    assert sorted(out.rglob("*.png")) == images
    assert (out / "labels.csv").is_file()


@pytest.mark.parametrize("name", [".unpacked.json", "labels.csv", "objects.csv"])
def test_a_run_that_was_killed_while_it_wrote_a_table_goes_on(name: str, converted: Get, tmp_path: Path) -> None:
    lung, out = converted("lung"), tmp_path / "out"
    if name != ".unpacked.json":
        unpack(lung.folder, out, QUIET)
    out.mkdir(exist_ok=True)
    (out / f"{name}.b83b660b.part").write_bytes(b"half")
    unpack(lung.folder, out, QUIET)
    assert (out / "labels.csv").is_file()
    assert list(out.glob("*.part")) == []


def test_nothing_is_overwritten(converted: Get, tmp_path: Path) -> None:
    lung = converted("lung")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        unpack(lung.folder, tmp_path / "mine", QUIET)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(OutputError, match="not a folder"):
        unpack(lung.folder, tmp_path / "mine" / "notes.txt", QUIET)
    unpack(lung.folder, tmp_path / "out", QUIET)
    with pytest.raises(OutputError, match="holds other unpacked images"):
        unpack(converted("warwick-crc").folder, tmp_path / "out", QUIET)
    one = sorted((tmp_path / "out").rglob("*.png"))[3]
    one.write_bytes(b"drawn over")
    with pytest.raises(OutputError, match="a different file exists"):
        unpack(lung.folder, tmp_path / "out", QUIET)
    assert one.read_bytes() == b"drawn over"


@pytest.mark.parametrize(
    ("column", "value"),
    [("key", "../../escaped"), ("key", "/etc/escaped"), ("format", "sh"), ("label", 10), ("label", -1), ("shard", "x")],
)
def test_an_index_that_names_what_it_must_not_is_refused(
    column: str, value: object, converted: Get, tmp_path: Path
) -> None:
    folder = shutil.copytree(converted("lung").folder, tmp_path / "task")
    rows = read_index(folder / "index.parquet").to_pylist()
    rows[5][column] = value
    pq.write_table(
        pq.read_table(folder / "index.parquet").from_pylist(rows, schema=index_schema()), folder / "index.parquet"
    )
    card = cards.load(folder).model_copy(update={"index": side_card(folder, "index.parquet")})
    (folder / "task.json").write_bytes(cards.dump(card))
    with pytest.raises(ShardError, match="row of another task in the index"):
        unpack(folder, tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_is_not_passed_on(converted: Get, tmp_path: Path) -> None:
    folder = shutil.copytree(converted("lung").folder, tmp_path / "task")
    row = read_index(folder / "index.parquet").to_pylist()[0]
    with (folder / row["shard"]).open("r+b") as file:
        file.seek(row["offset"] + row["length"] // 2)
        file.write(b"\0\1\2\3")
    with pytest.raises(ShardError, match="has changed since it was written"):
        unpack(folder, tmp_path / "out", QUIET)


@example(["肿瘤", "0"])
@given(st.lists(st.text(max_size=8), min_size=1, max_size=8))
def test_folders_of_classes_are_safe_and_distinguished(names: list[str]) -> None:
    folders = class_folders(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert all(folder and not set(folder) & set("/\\.:\0 \n") for folder in folders)


def test_names_of_devices_and_names_alike_get_their_number() -> None:
    assert class_folders(["con", "A b", "a/b", "ok", "..", "1_x"]) == ["0_con", "1_A_b", "2_a_b", "ok", "4", "1_x"]


def test_the_command_unpacks_a_folder_of_tasks(
    converted: Get, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    for name in ("lung", "warwick-crc"):
        folder = converted(name).folder
        (tmp_path / "shards").mkdir(exist_ok=True)
        (tmp_path / "shards" / folder.name).symlink_to(folder)
    answer = dpconvert("unpack", tmp_path / "shards", "--out", tmp_path / "out", "-q")
    assert (answer.code, answer.err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"Lung", "WarwickCRC"}
    assert (tmp_path / "out" / "Lung" / "labels.csv").is_file()
