"""Tars written in large pieces, against those of `tarfile`; the index, against its parts."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpconvert.errors import OutputError
from dpconvert.shards import tar
from dpconvert.shards.encode import EncodedSample
from dpconvert.shards.index import Entry, read_index, write_index
from dpconvert.shards.tar import write_shard

ROOT = Path(__file__).resolve().parents[2]
COMMON = {
    "label": 3,
    "group": "n:é",
    "split": "val",
    "files": ["a.svs"],
    "width": 256,
    "height": 256,
    "stored_width": 256,
    "stored_height": 256,
    "attributes": {"b": "1", "a": "2"},
    "mpp_read": 0.25,
    "x": 512,
    "y": 70_000,
}


@given(
    st.lists(st.tuples(st.text("ab_-0", min_size=1, max_size=90), st.binary(max_size=2000)), max_size=8),
    st.sampled_from([1, 3000, 1 << 20]),
)
def test_the_bytes_are_those_of_tarfile(images: list[tuple[str, bytes]], piece: int) -> None:
    samples = [EncodedSample(key, image, "jpg", 3, COMMON) for key, image in images]
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in (member for sample in samples for member in sample.members()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    ours = tar._Tar("val-000000.tar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar, "PIECE", piece)
        made = list(ours.pieces(samples))
    assert b"".join(made) == expected.getvalue()
    assert ours.size == len(expected.getvalue())
    assert [entry.key for entry in ours.entries] == [key for key, _ in images]
    assert len(made) == (len(images) + 1 if piece == 1 else len(made))


def test_a_sample_is_an_image_its_class_and_its_json() -> None:
    sample = EncodedSample("k", b"image", "jpg", 3, COMMON)
    text = json.dumps(COMMON, sort_keys=True, separators=(",", ":"))
    assert sample.members() == [("k.jpg", b"image"), ("k.cls", b"3"), ("k.json", text.encode())]


def test_an_index_tells_where_each_image_is(tmp_path: Path) -> None:
    samples = [
        EncodedSample(f"k{n}", bytes([n]) * (n * 700 + 1), "jpg", 3, COMMON | {"x": n, "y": 2 * n}) for n in range(5)
    ]
    written = write_shard(tmp_path / "val-000000.tar", "val", samples)
    card = write_index(tmp_path / "index.parquet", written.entries)
    assert card.size == (tmp_path / "index.parquet").stat().st_size
    data = (tmp_path / "val-000000.tar").read_bytes()
    assert written.shard.sha256 == hashlib.sha256(data).hexdigest()
    rows = read_index(tmp_path / "index.parquet").to_pylist()
    assert [Entry(**row) for row in rows] == written.entries
    for row, sample in zip(rows, samples, strict=True):
        assert data[row["offset"] : row["offset"] + row["length"]] == sample.image
        assert row["sha256"] == hashlib.sha256(sample.image).hexdigest()
        assert (row["x"], row["attributes"]) == (sample.metadata["x"], '{"a": "2", "b": "1"}')


def test_an_index_of_several_row_groups_is_the_same_table_made_without_pandas(tmp_path: Path) -> None:
    """`pa.array` loads pandas, tens of MiB, where it is installed."""
    code = (
        "import pathlib, sys; from dpconvert.shards import index as shards; shards.ROW_GROUP = 2\n"
        "entries = [shards.Entry(f'ké{n}', 'val', 's', 1 << 40, n, 'jpg', 0, '', 'f', -n, 0, 1, 1, 1, 1, '0', '{}')\n"
        "           for n in range(5)]\n"
        "shards.write_index(pathlib.Path(sys.argv[1]), entries); print(sorted({'pandas', 'pyarrow'} & {*sys.modules}))"
    )
    path = tmp_path / "index.parquet"
    told = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True, cwd=ROOT)
    assert told.stdout == "['pyarrow']\n"
    rows = read_index(path).to_pylist()
    assert [(row["key"], row["offset"], row["x"], row["group"]) for row in rows] == [
        (f"ké{n}", 1 << 40, -n, "") for n in range(5)
    ]


def test_an_error_of_the_disk_stops_a_shard_that_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that writes has it, and the one that makes samples hears of it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tar, "PIECE", 1)
    monkeypatch.setattr(tar._SyncedFile, "write", full)
    taken: list[int] = []
    samples = (EncodedSample(f"k{taken.append(n) or n}", b"image", "jpg", 3, COMMON) for n in range(1000))
    with pytest.raises(OutputError, match="No space left on device; make room"):
        write_shard(tmp_path / "val-000000.tar", "val", samples)
    assert len(taken) < 10
    assert list(tmp_path.iterdir()) == []


def test_an_index_may_be_empty(tmp_path: Path) -> None:
    write_index(tmp_path / "index.parquet", [])
    assert read_index(tmp_path / "index.parquet").num_rows == 0


@pytest.mark.parametrize("change", [lambda e: e[:-1], lambda e: ["a", *e], lambda e: [e[0], e[1], e[2], "3", *e[4:]]])
def test_a_damaged_entry_of_a_note_is_no_entry(change: object) -> None:
    entry = list(Entry("k", "val", "s", 1, 2, "jpg", 0, "g", "f", 0, 0, 1, 1, 1, 1, "0", "{}"))
    assert Entry.checked(entry) == tuple(entry)
    with pytest.raises(ValueError, match="not an entry"):
        Entry.checked(change(entry))  # type: ignore[operator]
