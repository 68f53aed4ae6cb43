"""Parquet as `datasets` writes it, and WebDataset shards of others: read as they are, with the images' own bytes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image

from dpconvert.shards.index import read_index
from dpconvert.source import cache
from tests.dpconvert.conftest import Answer, Converted, Workplace

HEAD = 'task = "Mine"\nclasses = ["no", "yes"]\n'
Convert = Callable[..., Any]


def image(number: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def convert(tmp_path: Path, workplace: Workplace) -> Convert:
    """`convert(text)` gives the rows of the index, each with the `bytes` of its image; or the line of an error."""

    def made(text: str, *, fails: bool = False) -> Any:
        if fails:
            return workplace.refusal(HEAD + text)
        rows = workplace.convert(HEAD + text, verified=False)
        for row in rows:
            with (tmp_path / "out" / "Mine" / row["shard"]).open("rb") as file:
                file.seek(row["offset"])
                row["bytes"] = file.read(row["length"])
        return rows

    return made


def hugging(path: Path, numbers: list[int], names: tuple[str, str] = ("yes", "no")) -> None:
    """A Parquet file as `datasets` writes it, the classes in another order than the manifest's."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names)), "wsi": datasets.Value("string")}
    )
    rows = {
        "image": [{"bytes": image(n), "path": f"{n}.png"} for n in numbers],
        "label": [names[n % 2] for n in numbers],
        "wsi": [f"s{n // 4}" for n in numbers],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features).to_parquet(path)


def test_parquet_of_hugging_face_keeps_bytes_names_groups_and_sets(source: Path, convert: Convert) -> None:
    datasets.disable_progress_bars()
    hugging(source / "data" / "train-00000-of-00002.parquet", list(range(8)))
    hugging(source / "data" / "train-00001-of-00002.parquet", list(range(8, 12)))
    hugging(source / "data" / "test-00000-of-00001.parquet", list(range(12, 16)))
    rows = convert('shape = "parquet"\n[layout]\ngroup = "wsi"\n[split.strict]\nofficial = true\n')
    by_bytes = {row["bytes"]: row for row in rows}
    assert by_bytes.keys() == {image(n) for n in range(16)}
    for number in range(16):
        row = by_bytes[image(number)]
        assert row["label"] == (1 if number % 2 == 0 else 0)  # names = (yes, no): 0 is yes
        assert row["group"] == f"my:s{number // 4}"
        assert row["split"] == ("test" if number >= 12 else "train")
    assert by_bytes[image(9)]["source"] == "data/train-00001-of-00002.parquet/image/1"
    assert (source / cache.FOLDER).is_dir()


def test_rows_without_a_label_are_refused_or_left_out(source: Path, convert: Convert) -> None:
    table = pa.table({"image": [image(n) for n in range(6)], "label": [0, 1, 0, 1, -1, None]})
    pq.write_table(table, source / "a.parquet", row_group_size=2)
    assert "a.parquet, row 4: no label" in convert('shape = "parquet"\n', fails=True)
    rows = convert('shape = "parquet"\n[layout]\nmissing = true\n')
    assert {row["bytes"] for row in rows} == {image(n) for n in range(4)}


BYTES: dict[str, Callable[[list[bytes]], Any]] = {
    "dictionary": lambda images: pa.array(images).dictionary_encode(),
    "view": lambda images: pa.array(images, pa.binary_view()),
    "fixed size": lambda images: pa.array([image.ljust(1000, b"\0") for image in images], pa.binary(1000)),
}


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_of_images_are_read_in_any_type_of_column(kind: str, source: Path, convert: Convert) -> None:
    column = BYTES[kind]([image(n) for n in range(4)])
    pq.write_table(pa.table({"image": column, "label": [0, 1, 0, 1]}), source / "a.parquet")
    assert {row["bytes"].rstrip(b"\0") for row in convert('shape = "parquet"\n')} == {image(n) for n in range(4)}


def test_rows_without_an_image_are_refused_before_the_work_or_left_out(source: Path, convert: Convert) -> None:
    images = pa.array([None if n in (2, 5) else {"bytes": image(n), "path": ""} for n in range(6)])
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1, 0, -1]}), source / "a.parquet")
    told = convert('shape = "parquet"\n[layout]\nskip = ["-1"]\n', fails=True)
    assert "a.parquet/image, row 2: a row without the bytes of an image" in told
    rows = convert('shape = "parquet"\n[layout]\nmissing = true\n')
    assert {row["bytes"] for row in rows} == {image(n) for n in (0, 1, 3, 4)}


@pytest.mark.parametrize("shape", ["parquet", "webdataset", "arrays"])
def test_images_without_a_group_are_counted(shape: str, source: Path, convert: Convert, tmp_path: Path) -> None:
    patients = ["p1", None, "p2", None]
    if shape == "parquet":
        columns = {"image": [image(n) for n in range(4)], "label": [0, 1, 0, 1], "patient": patients}
        pq.write_table(pa.table(columns), source / "a.parquet")
    elif shape == "webdataset":
        about = [json.dumps({"patient": patient, "label": n % 2}) for n, patient in enumerate(patients)]
        members = {f"s{n}.png": image(n) for n in range(4)}
        shard(source / "a.tar", members | {f"s{n}.json": text.encode() for n, text in enumerate(about)})
    else:
        texts = np.array([patient or "" for patient in patients])
        np.savez(source / "a.npz", x=np.zeros((4, 8, 8, 3), np.uint8), label=np.arange(4) % 2, patient=texts)
    keys = {
        "parquet": 'group = "patient"',
        "webdataset": 'group = "json:patient"\nlabel = "json:label"',
        "arrays": 'group = "patient"\nlabels = "label"',
    }
    assert len({row["group"] for row in convert(f'shape = "{shape}"\n[layout]\n{keys[shape]}\n')}) == 4
    notes = json.loads((tmp_path / "out" / "Mine" / "task.json").read_text())["notes"]
    assert [note for note in notes if " without a group, each image a group of its own" in note], notes


def test_two_columns_of_one_name_are_named(source: Path, convert: Convert) -> None:
    columns = [pa.array([image(0), image(1)]), pa.array([0, 1]), pa.array([1, 0])]
    pq.write_table(pa.Table.from_arrays(columns, ["image", "label", "label"]), source / "a.parquet")
    told = convert('shape = "parquet"\n', fails=True)
    assert "a.parquet: 2 columns of the name 'label'; rename one of them" in told


def test_faults_of_parquet_are_reported_in_one_line(source: Path, convert: Convert) -> None:
    table = {"picture": [image(0)], "label": [0], "n": [1], "pixels": [[[[0, 0, 0]]]]}
    pq.write_table(pa.table(table), source / "a.parquet")
    told = convert('shape = "parquet"\n[layout]\nimage = "pixels"\n', fails=True)
    assert "a.parquet/pixels/0: lists of which it is not clear which axis is of channels" in told
    assert "no column 'image'; found picture, label, n, pixels" in convert('shape = "parquet"\n', fails=True)
    told = convert('shape = "parquet"\n[layout]\nimage = "n"\n', fails=True)
    assert "a.parquet/n: no column of encoded images; expected bytes; found int64" in told
    whole = (source / "a.parquet").read_bytes()
    (source / "a.parquet").write_bytes(whole[:-30])
    assert "a.parquet: not a readable Parquet file" in convert('shape = "parquet"\n', fails=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    paths = pa.array([{"bytes": None, "path": "0.png"}, {"bytes": None, "path": "1.png"}], kind)
    pq.write_table(pa.table({"image": paths, "label": [0, 1]}), source / "a.parquet")
    assert "use the shape `table`" in convert('shape = "parquet"\n', fails=True)


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_a_label_may_be_a_text_in_json_and_further_images_are_reported(
    source: Path, convert: Convert, tmp_path: Path
) -> None:
    members = {}
    for n in range(4):
        about = {"png": image(n), "left.png": image(n + 10), "cls": json.dumps(["no", "yes"][n % 2]).encode()}
        members |= {f"s{n}.{field}": data for field, data in about.items()}
    shard(source / "a.tar", members)
    rows = {row["bytes"]: row["label"] for row in convert('shape = "webdataset"\n')}
    assert rows == {image(n): n % 2 for n in range(4)}
    notes = json.loads((tmp_path / "out" / "Mine" / "task.json").read_text())["notes"]
    assert "not used: the field 'left.png' of 4 samples, whose image is 'png' (`image` in [layout])" in notes


def test_keys_with_points_are_read_by_the_pattern_that_the_error_gives(source: Path, convert: Convert) -> None:
    pairs = [(f"P1.v2.{n}", {"png": image(n), "cls": str(n % 2).encode()}) for n in range(4)]
    shard(source / "a.tar", {f"{key}.{field}": data for key, fields in pairs for field, data in fields.items()})
    told = convert('shape = "webdataset"\n', fails=True)
    pattern = told.partition("under [files.members]: ")[2].strip()
    rows = convert(f'shape = "webdataset"\n[files.members]\n{pattern}\n')
    assert {row["bytes"]: row["label"] for row in rows} == {image(n): n % 2 for n in range(4)}


def test_shards_that_webdataset_wrote(source: Path, convert: Convert) -> None:
    for shard, numbers in (("train-000000", range(8)), ("test-000000", range(8, 12))):
        with wds.TarWriter(str(source / f"{shard}.tar")) as writer:
            for n in numbers:
                about = {"case": {"id": f"p{n // 2}"}, "grade": ["low", "high"][n % 2]}
                writer.write({"__key__": f"part/x{n:03}", "jpg": image(n, "JPEG"), "cls": n % 2, "json": about})
    told = 'shape = "webdataset"\n[layout]\n{}group = "json:case.id"\n[split.strict]\nofficial = true\n'
    for layout in ("", 'label = "json:grade"\nvalues = {low = "no", high = "yes"}\n'):
        rows = {row["bytes"]: row for row in convert(told.format(layout))}
        assert rows.keys() == {image(n, "JPEG") for n in range(12)}
        for n in range(12):
            row = rows[image(n, "JPEG")]
            assert (row["label"], row["group"]) == (n % 2, f"my:p{n // 2}")
            assert row["split"] == ("test" if n >= 8 else "train")


def test_our_own_shards_are_read_back(
    converted: Callable[[str], Converted], tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    made = converted("mhist")
    (tmp_path / "again.toml").write_text(
        f'task = "Again"\nclasses = {json.dumps(made.card.classes)}\nshape = "webdataset"\n[layout]\n'
        'group = "json:group"\nsplit = "json:split"\n[split.strict]\nofficial = true\n'
    )
    answer = dpconvert(
        tmp_path / "again.toml", "--source", made.folder, "--out", tmp_path / "out", "-q", "--workers", 1
    )
    assert (answer.code, answer.err) == (0, "")

    def told(folder: Path) -> set[tuple[str, int, str]]:
        rows = read_index(folder / "index.parquet").to_pylist()
        return {(row["sha256"], row["label"], row["split"]) for row in rows}

    assert told(tmp_path / "out" / "Again") == told(made.folder)


def test_faults_of_shards_are_reported_in_one_line(source: Path, convert: Convert) -> None:
    with wds.TarWriter(str(source / "a.tar")) as writer:
        writer.write({"__key__": "x0", "png": image(0), "cls": 0})
        writer.write({"__key__": "x1", "png": image(1)})
        writer.write({"__key__": "x2", "cls": 1})
        writer.write({"__key__": "x3", "png": image(3), "cls": 1})
        writer.write({"__key__": "x4", "png": image(4), "json": {"label": [1]}})
    with wds.TarWriter(str(source / "b.tar")) as writer:
        writer.write({"__key__": "y0", "left.png": image(0), "cls": 0})
    told = convert(
        'shape = "webdataset"\n[files.members]\npattern = "^(?P<name>b.*?/[^.]+)[.](?P<field>.+)$"\n', fails=True
    )
    assert "b.tar/y0: a sample without an image" in told
    assert 'name it in [layout]: image = ["left.png"]' in told
    (source / "b.tar").unlink()
    assert "a.tar/x1: a sample without a label; expected cls; found png" in convert(
        'shape = "webdataset"\n', fails=True
    )
    rows = convert('shape = "webdataset"\n[layout]\nmissing = true\n')
    assert {(row["source"], row["label"]) for row in rows} == {("a.tar/x0.png", 0), ("a.tar/x3.png", 1)}
    told = convert('shape = "webdataset"\n[layout]\nmissing = true\nlabel = "json:label"\n', fails=True)
    assert "a.tar/x4: several values, where one class is expected; found [1]" in told
    told = convert('shape = "webdataset"\n[layout]\nmissing = true\ngroup = "json:a"\nlabel = "json:b"\n', fails=True)
    assert "nothing to convert here" in told
