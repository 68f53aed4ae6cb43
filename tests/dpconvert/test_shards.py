"""Tars written in large pieces, against those of `tarfile`; the index, against its parts."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpconvert import shards
from dpconvert.encode import Series
from dpconvert.shards import Entry, read_index, write_index, write_shard

COMMON = {
    "label": 3, "group": "n:é", "split": "val", "files": ["a.svs"], "width": 256, "height": 256, "stored_width": 256,
    "stored_height": 256, "attributes": {"b": "1", "a": "2"}, "mpp_read": 0.25,
}  # fmt: skip


@given(
    st.lists(st.tuples(st.text("ab_-0", min_size=1, max_size=90), st.binary(max_size=2000)), max_size=8),
    st.sampled_from([1, 3000, 1 << 20]),
)
def test_the_bytes_are_those_of_tarfile(files: list[tuple[str, bytes]], piece: int) -> None:
    expected, made = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "PIECE", piece)
        ours = shards._Tar(made)
        for file in files:
            ours.add([file])
        ours.end()
    assert made.getvalue() == expected.getvalue()
    assert (ours.size, ours.hexdigest()) == (len(made.getvalue()), hashlib.sha256(made.getvalue()).hexdigest())


def test_samples_of_a_series_have_the_json_of_their_metadata() -> None:
    sample = Series(COMMON).sample("k", b"image", "jpg", 512, 70_000)
    assert sample.metadata == COMMON | {"x": 512, "y": 70_000}
    text = json.dumps(COMMON | {"x": 512, "y": 70_000}, sort_keys=True, separators=(",", ":"))
    assert sample.members() == [("k.jpg", b"image"), ("k.cls", b"3"), ("k.json", text.encode())]


def test_an_index_tells_where_each_image_is(tmp_path: Path) -> None:
    series = Series(COMMON)
    samples = [series.sample(f"k{n}", bytes([n]) * (n * 700 + 1), "jpg", n, 2 * n) for n in range(5)]
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


def test_an_index_may_be_empty(tmp_path: Path) -> None:
    write_index(tmp_path / "index.parquet", [])
    assert read_index(tmp_path / "index.parquet").num_rows == 0


@pytest.mark.parametrize("change", [lambda e: e[:-1], lambda e: ["a", *e], lambda e: [e[0], e[1], e[2], "3", *e[4:]]])
def test_a_damaged_entry_of_a_note_is_no_entry(change: object) -> None:
    entry = list(Entry("k", "val", "s", 1, 2, "jpg", 0, "g", "f", 0, 0, 1, 1, 1, 1, "0", "{}"))
    assert Entry.checked(entry) == tuple(entry)
    with pytest.raises(ValueError, match="not an entry"):
        Entry.checked(change(entry))  # type: ignore[operator]
