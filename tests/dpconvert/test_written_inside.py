"""Shards that lie in the folder of their own source: a conversion, a check and a draft pass over them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.dpconvert.conftest import Answer, one_line

Call = Callable[..., Answer]
MANIFEST = """
task = "T"
shape = "table"
classes = ["a", "b"]
[layout]
file = "{file}"
label = "label"
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / f"{number:02}.png")
    rows = "".join(f"{number:02}.png,{'ab'[number % 2]}\n" for number in range(12))
    (folder / "labels.csv").write_text("file,label\n" + rows)
    (tmp_path / "t.toml").write_text(MANIFEST)
    return folder


def test_a_conversion_into_its_source_is_complete_the_second_time(source: Path, dpconvert: Call) -> None:
    call = (source.parent / "t.toml", "--source", source, "--out", source / "shards")
    first, second = dpconvert(*call), dpconvert(*call)
    assert (first.code, second.code) == (0, 0), second.err
    assert "already complete" in second.out
    assert "T: not read: shards/T, which dpconvert has written" in second.err
    digest = json.loads((source / "shards" / "T" / "task.json").read_bytes())["digest"]
    assert digest in first.out
    assert digest in second.out


def test_a_begun_conversion_in_the_source_is_passed_over_too(source: Path, dpconvert: Call) -> None:
    begun = source / "shards" / "T"
    (begun / ".work").mkdir(parents=True)
    (begun / ".work" / "request.json").write_text("{}")
    with tarfile.open(begun / "train-000000.tar", "w") as tar:
        tar.addfile(member := tarfile.TarInfo("00.png"), io.BytesIO(b""))
        assert member.size == 0
    answer = dpconvert("check", source.parent / "t.toml", "--source", source)
    assert answer.code == 0, answer.err
    assert "note: not read: shards/T, which dpconvert has written" in answer.out
    assert "no problem found in 12 images" in answer.out


def test_a_draft_is_the_same_with_shards_beside_the_images(source: Path, dpconvert: Call, tmp_path: Path) -> None:
    drafts = []
    for name in ("before", "after"):
        path = tmp_path / f"{name}.toml"
        answer = dpconvert("init", source, "--out", path)
        assert answer.code == 0, answer.err
        drafts.append(path.read_text())
        dpconvert(tmp_path / "t.toml", "--source", source, "--out", source / "shards")
    assert drafts[0] == drafts[1]
    assert "note: not read: shards/T, which dpconvert has written" in answer.out


@pytest.mark.parametrize("where", ["shards", "shards/T"])
def test_shards_alone_need_no_draft(source: Path, where: str, dpconvert: Call, tmp_path: Path) -> None:
    dpconvert(tmp_path / "t.toml", "--source", source, "--out", tmp_path / "shards")
    answer = dpconvert("init", tmp_path / where, "--out", tmp_path / "my.toml")
    assert answer.code == 1
    assert "holds 1 task that dpconvert has written" in one_line(answer)
    assert f"mtrain fit --shards {tmp_path / 'shards'}" in answer.err


def test_shards_may_still_be_a_source_of_their_own(source: Path, dpconvert: Call, tmp_path: Path) -> None:
    dpconvert(tmp_path / "t.toml", "--source", source, "--out", source / "shards")
    (tmp_path / "again.toml").write_text('task = "Again"\nshape = "webdataset"\nclasses = ["a", "b"]\n')
    answer = dpconvert("check", tmp_path / "again.toml", "--source", source / "shards")
    assert answer.code == 0, answer.err
    assert "no problem found in 12 images" in answer.out


def test_another_task_json_is_no_reason_to_leave_a_folder_out(source: Path, dpconvert: Call, tmp_path: Path) -> None:
    (source / "more").mkdir()
    (source / "more" / "task.json").write_text('{"digest": "of something else"}')
    (source / "more" / "index.parquet").write_bytes(b"")
    (source / "00.png").rename(source / "more" / "00.png")
    answer = dpconvert("check", tmp_path / "t.toml", "--source", source)
    assert answer.code == 0, answer.err
    assert "no problem found in 12 images" in answer.out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('title = "Other"\n', "under another title, the only difference between the manifests"),
        ('title = "Other"\ncitation = "A."\n[licence]\nname = "CC0"\n', "another title and licence and citation"),
        ('organ = "breast"\n', "holds a conversion with other manifest"),  # which every sample states
        ('title = "Other"\norgan = "breast"\n', "holds a conversion with other manifest"),
    ],
)
def test_a_manifest_that_changed_in_words_is_said_to(more: str, told: str, source: Path, dpconvert: Call) -> None:
    path = source.parent / "t.toml"
    call = (path, "--source", source, "--out", source.parent / "out")
    assert dpconvert(*call).code == 0
    path.write_text(
        f'task = "T"\nshape = "table"\nclasses = ["a", "b"]\n{more}' + MANIFEST[MANIFEST.index("[layout]") :]
    )
    before = (source.parent / "out" / "T" / "task.json").read_bytes()
    refusal = one_line(dpconvert(*call))
    assert told in refusal
    assert "--overwrite" in refusal
    assert (source.parent / "out" / "T" / "task.json").read_bytes() == before
    assert dpconvert(*call, "--overwrite").code == 0
