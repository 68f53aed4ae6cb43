"""A source that changes between a stopped conversion and its end, without a change of names and sizes."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpconvert import card, conversion
from dpconvert.conversion import ConversionResult
from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import load
from dpconvert.plan.options import Options
from dpconvert.readers import with_defaults
from dpconvert.runtime.progress import Reporter
from dpconvert.shards import job as jobs
from dpconvert.shards.index import read_index
from dpconvert.source.stamps import Stamps
from tests.dpconvert.mirax import write_mirax
from tests.dpconvert.test_dense import stored

MANIFEST = """
task = "T"
shape = "table"
classes = ["0", "1"]
[files.images]
pattern = '\\.bmp$'
[layout]
file = "{file}"
label = "label"
[split.strict]
share = [1, 0, 0]
"""


class Notes(Reporter):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(12):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(source / f"{number:02}.bmp")
    rows = (f"{number:02}.bmp,{number % 2}\n" for number in range(12))
    (source / "labels.csv").write_text("file,label\n" + "".join(rows))
    (tmp_path / "m.toml").write_text(MANIFEST)
    return tmp_path


def converted(folder: Path, out: str, notes: Notes | None = None) -> ConversionResult:
    manifest, options = with_defaults(load(folder / "m.toml")), Options(samples_per_shard=3)
    return conversion.convert(
        manifest, folder / "source", folder / out, options, workers=1, overwrite=False, report=notes or Notes()
    )


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Stop a conversion after two of its four shards. Returns the images that are in them."""
    write, made = jobs.write_shard, list[Any]()

    def stopping(*arguments: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(write(*arguments))
        return made[-1]

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "write_shard", stopping)
        with pytest.raises(KeyboardInterrupt):
            converted(folder, "out")
    return {entry.source for written in made for entry in written.entries}


def changed(path: Path, data: bytes) -> None:
    """Replace a file by one of the same size; its time is later, however coarse the clock of the file system is."""
    before = path.stat()
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_an_image_that_is_replaced_before_a_conversion_goes_on_is_read_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = min(stopped(folder, monkeypatch))
    changed(folder / "source" / done, (folder / "source" / done).read_bytes()[:54] + bytes(48))
    notes = Notes()
    result = converted(folder, "out", notes)
    assert result.had == 1
    assert "T: files of the source changed or copied since this conversion began; it is planned again" in notes.notes
    assert tars(result.folder) == tars(converted(folder, "fresh").folder)
    pixels = Image.open(io.BytesIO(stored(result.folder)[Path(done).stem]["png"]))
    assert not np.asarray(pixels).any()


def test_a_label_that_is_corrected_before_a_conversion_goes_on_is_the_one_that_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(folder, monkeypatch)
    table = folder / "source" / "labels.csv"
    changed(table, table.read_bytes().replace(b"00.bmp,0", b"00.bmp,1"))
    result = converted(folder, "out")
    labels = {row["source"]: row["label"] for row in read_index(result.folder / "index.parquet").to_pylist()}
    assert labels == {f"{number:02}.bmp": number % 2 or int(number == 0) for number in range(12)}
    assert tars(result.folder) == tars(converted(folder, "fresh").folder)


def test_an_unchanged_source_keeps_its_shards_and_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(folder, monkeypatch)
    notes = Notes()
    result = converted(folder, "out", notes)
    assert (result.had, notes.notes) == (2, ["T: 2 of 4 shards already exist"])
    again = converted(folder, "fresh")
    assert (again.folder / card.FILE_NAME).read_bytes() == (result.folder / card.FILE_NAME).read_bytes()


def test_finished_shards_of_files_that_were_linked_elsewhere_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = stopped(folder, monkeypatch)
    for name in done:
        (folder / f"backup-{name}").hardlink_to(folder / "source" / name)
    notes = Notes()
    result = converted(folder, "out", notes)
    assert (result.had, notes.notes) == (2, ["T: 2 of 4 shards already exist"])


def test_a_file_that_changed_after_the_task_was_made_is_reported(folder: Path) -> None:
    result, table = converted(folder, "out"), folder / "source" / "labels.csv"
    made = (result.folder / card.FILE_NAME).stat().st_mtime_ns
    notes = Notes()
    assert converted(folder, "out", notes).made == 0
    assert notes.notes == []
    for at in (made - 10**9, made + 10**9):  # a copy that keeps its older time has changed, too
        os.utime(table, ns=(at, at))
        notes = Notes()
        assert converted(folder, "out", notes).made == 0
        assert notes.notes == [
            "T: 1 file of the source changed or copied after this task was made, the first labels.csv: if their "
            "content changed, --overwrite makes it again"
        ]


@pytest.mark.parametrize("seconds", [-1000, 0, 1000])
def test_a_file_that_was_replaced_by_one_of_any_time_is_read_anew_and_named(
    seconds: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = min(stopped(folder, monkeypatch))
    path = folder / "source" / done
    before = path.stat()
    other = folder / "other.bmp"
    other.write_bytes(path.read_bytes()[:54] + bytes(48))
    time = before.st_mtime_ns + seconds * 10**9
    os.utime(other, ns=(time, time))
    other.replace(path)
    notes = Notes()
    result = converted(folder, "out", notes)
    assert f"T: changed or copied: {done}" in notes.notes
    assert tars(result.folder) == tars(converted(folder, "fresh").folder)
    pixels = Image.open(io.BytesIO(stored(result.folder)[Path(done).stem]["png"]))
    assert not np.asarray(pixels).any()


def test_a_file_that_changes_while_it_is_converted_ends_the_conversion_which_goes_on_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = jobs.write_shard
    table = folder / "source" / "labels.csv"

    def changing(*arguments: Any) -> Any:
        changed(table, table.read_bytes().replace(b"00.bmp,0", b"00.bmp,1"))
        (folder / "source" / "readme.txt").write_text("of no use")
        return write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "write_shard", changing)
        with pytest.raises(SourceError, match=r"changed while they were converted; found labels\.csv; run again"):
            converted(folder, "out")
    (folder / "source" / "readme.txt").unlink()
    assert not (folder / "out" / "T" / card.FILE_NAME).exists()
    result = converted(folder, "out")
    assert tars(result.folder) == tars(converted(folder, "fresh").folder)
    labels = {row["source"]: row["label"] for row in read_index(result.folder / "index.parquet").to_pylist()}
    assert labels["00.bmp"] == 1


SLIDES = """
task = "T"
shape = "slides"
classes = ["a", "b"]
[files.slides]
pattern = '(?P<name>(?P<class>[ab])\\d)[.]mrxs$'
[rule]
type = "tiles"
size = 64
[split.strict]
share = [1, 0, 0]
"""


def test_a_data_file_of_a_mirax_slide_that_is_replaced_before_a_conversion_goes_on_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.toml").write_text(SLIDES)
    tiles = np.arange(16).reshape(4, 2, 2).repeat(64, 1).repeat(64, 2)[..., None].repeat(3, 3).astype(np.uint8) + 50
    for name, pixels in zip(("a1", "a2", "b1", "b2"), tiles, strict=True):
        write_mirax(tmp_path / "source" / f"{name}.mrxs", pixels)
    done = Path(min(stopped(tmp_path, monkeypatch))).stem
    which = ("a1", "a2", "b1", "b2").index(done)
    write_mirax(tmp_path / "other.mrxs", tiles[which] + 100)
    for file in ("Data0000.dat", "Data0001.dat"):
        changed(tmp_path / "source" / done / file, (tmp_path / "other" / file).read_bytes())
    notes = Notes()
    result = converted(tmp_path, "out", notes)
    assert "T: files of the source changed or copied since this conversion began; it is planned again" in notes.notes
    assert tars(result.folder) == tars(converted(tmp_path, "fresh").folder)
    values = [
        int(np.asarray(Image.open(io.BytesIO(files["png"])))[0, 0, 0])
        for key, files in stored(result.folder).items()
        if key.startswith(done)
    ]
    assert sorted(values) == [150 + 4 * which + at for at in range(4)]


def test_a_change_of_any_file_of_a_folder_counts(tmp_path: Path) -> None:
    chunks = tmp_path / "a.zarr"
    for name in ("0/0", "0/1"):
        (chunks / name).parent.mkdir(parents=True, exist_ok=True)
        (chunks / name).write_bytes(b"12")
    os.utime(chunks / "0/0", ns=(10**9, 10**9))

    def stamps() -> Stamps:
        return Stamps(lambda name: tmp_path / name)

    record = stamps().record(["a.zarr"])
    assert stamps().changed_since(record, ["a.zarr"]) == []
    os.utime(chunks / "0/0", ns=(10**9 - 1, 10**9 - 1))
    assert stamps().changed_since(record, ["a.zarr", "b"]) == ["a.zarr", "b"]


def test_a_link_to_a_file_or_other_rights_on_it_are_no_change_of_it(tmp_path: Path) -> None:
    """As backups make them while a conversion runs. A file of the same size and time that replaces another is one."""
    for name in "abcd":
        (tmp_path / name).write_bytes(b"12")
        os.utime(tmp_path / name, ns=(10**9, 10**9))

    def stamps() -> Stamps:
        return Stamps(lambda name: tmp_path / name)

    record = stamps().record("abcd")
    (tmp_path / "link").hardlink_to(tmp_path / "a")
    (tmp_path / "b").chmod(0o400)
    time.sleep(0.02)  # longer than a tick of the clock of the file system
    (tmp_path / "c").write_bytes(b"34")
    os.utime(tmp_path / "c", ns=(10**9, 10**9))
    (tmp_path / "other").write_bytes(b"34")
    (tmp_path / "other").chmod(0o400)
    os.utime(tmp_path / "other", ns=(10**9, 10**9))
    (tmp_path / "other").replace(tmp_path / "d")
    assert stamps().changed_since(record, "abcd") == ["c", "d"]
