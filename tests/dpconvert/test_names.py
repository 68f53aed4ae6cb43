"""Names of files as people see them, whatever the system or the archive writes; and what lies beside the patterns."""

from __future__ import annotations

import io
import os
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpconvert import names
from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import load
from dpconvert.manifest.model import Manifest
from dpconvert.readers import with_defaults
from dpconvert.readers.draft import task_name
from dpconvert.shards.index import read_index
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Answer, one_line, run

FOLDERS = 'task = "Mine"\nclasses = ["gutartig", "b\u00f6sartig"]\nshape = "folders"\n'
NFD = unicodedata.normalize("NFD", "b\u00f6sartig")
IMAGES = ("gutartig/a.png", "gutartig/b.png", f"{NFD}/c.png", f"{NFD}/d.png")


def image(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def put(folder: Path, *files: str | bytes) -> None:
    for number, name in enumerate(files):
        path = os.path.join(os.fsencode(folder), os.fsencode(name))  # noqa: PTH118
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(image(number))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "my.toml").write_text(FOLDERS, encoding="utf-8")
    return with_defaults(load(tmp_path / "my.toml"))


def labels(out: Path) -> dict[str, int]:
    return {row["source"]: row["label"] for row in read_index(out / "Mine" / "index.parquet").to_pylist()}


@given(st.text(max_size=8), st.text(max_size=8))
def test_names_match_exactly_when_they_look_the_same(one: str, other: str) -> None:
    both = unicodedata.normalize("NFD", one), unicodedata.normalize("NFC", one)
    assert names.match(both[0], [both[1]]) == both[1]
    assert (names.match(one, [other]) is not None) == (names.folded(one) == names.folded(other))


def test_case_is_left_out_only_where_one_name_is_meant() -> None:
    assert names.match("Benign", ["benign", "malignant"]) == "benign"
    assert names.match("a", ["A", "a"]) == "a"
    assert names.match("Ab", ["AB", "ab"]) is None
    assert names.match("1.0", ["1", "2", "11"]) == "1"
    assert names.match("-1", ["-1.0", "1"]) == "-1.0"
    assert names.match("1.0", ["01", "1.5", "1.0.0"]) is None
    assert names.match("1.00", ["1", "1.0"]) is None
    assert names.plain("TUPAC2016-Mitosis") == names.plain("tupac2016_mitosis")


def test_folders_of_a_mac_are_the_classes_of_the_manifest(manifest: Manifest, tmp_path: Path) -> None:
    put(tmp_path / "source", *IMAGES)
    run(manifest, tmp_path / "source", tmp_path / "out")
    found = labels(tmp_path / "out")
    assert found == {names.nfc(name): int(at > 1) for at, name in enumerate(IMAGES)}


def test_archives_give_the_same_names_as_folders(manifest: Manifest, tmp_path: Path) -> None:
    """A zip of Windows' with backslashes, one of a Mac's without the mark of UTF-8, and a tar with './'."""
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(source / "win.zip", "w") as archive:
        archive.writestr("gutartig\\a.png", image(0))
    with zipfile.ZipFile(source / "mac.zip", "w") as archive:
        info = zipfile.ZipInfo("x" * len(NFD.encode()) + "/c.png")
        archive.writestr(info, image(1))
    data = (source / "mac.zip").read_bytes().replace(b"x" * len(NFD.encode()), NFD.encode())
    (source / "mac.zip").write_bytes(data)
    with tarfile.open(source / "u.tar", "w") as tar:
        member = tarfile.TarInfo(f"./{NFD}/d.png")
        member.size = len(image(2))
        tar.addfile(member, io.BytesIO(image(2)))
    opened = Source.open(source, manifest)
    wanted = {"mac.zip/b\u00f6sartig/c.png": 1, "u.tar/b\u00f6sartig/d.png": 2, "win.zip/gutartig/a.png": 0}
    assert {name: opened.read(name) for name in opened.sizes} == {name: image(n) for name, n in wanted.items()}
    run(manifest, source, tmp_path / "out")
    assert labels(tmp_path / "out") == {name: int("gut" not in name) for name in wanted}


def test_a_name_that_is_no_utf8_is_converted_with_its_bytes_escaped(
    manifest: Manifest, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    put(tmp_path / "source", b"gutartig/M\xfcller.png", b"gutartig/b.png", *IMAGES[2:])
    run(manifest, tmp_path / "source", tmp_path / "out")
    assert "gutartig/M%FCller.png" in labels(tmp_path / "out")
    assert dpconvert("verify", tmp_path / "out", "--workers", 1, "-q").code == 0


def test_two_names_that_look_the_same_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    put(tmp_path / "source", *IMAGES, names.nfc(IMAGES[2]))
    with pytest.raises(SourceError, match="two files of one name, written in different characters"):
        Source.open(tmp_path / "source", manifest)


def test_what_is_there_and_not_read_is_counted_and_named(manifest: Manifest, tmp_path: Path) -> None:
    source = tmp_path / "source"
    put(
        source,
        *IMAGES,
        "gutartig/x.svs",
        "gutartig/y.svs",
        "gutartig/z.vsi",
        "part2.rar",
        "a.xml",
        "old.tar.gz",
        "old/gutartig/n.png",
        "notes.txt",
        ".hidden.png",
    )
    with zipfile.ZipFile(source / "outer.zip", "w") as archive:
        archive.writestr("inner.rar", b"")
    notes = run(manifest, source, tmp_path / "out").notes
    told = "\n".join(notes)
    assert "not read: 2 archives, the first outer.zip/inner.rar; unpack outer.zip, and then inner.rar" in told
    assert "not used: 2 images (2 .svs), the first gutartig/x.svs: no pattern" in told
    assert "1 slide in a format that is not read (Olympus VSI), the first: gutartig/z.vsi" in told
    assert "not used: 1 file (1 .xml), the first a.xml: of annotations or tables" in told
    assert "hidden" not in told
    assert "notes.txt" not in told


def test_images_in_hidden_folders_are_told_but_not_those_that_programs_keep(
    manifest: Manifest, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    put(
        tmp_path / "source",
        *IMAGES,
        ".more/a.png",
        "gutartig/.x/b.png",
        "gutartig/._a.png",
        ".cache/c.png",
        ".ipynb_checkpoints/d.png",
        "__MACOSX/.y/e.png",
        ".more/notes.md",
    )
    told = "not read: 2 images in folders whose names begin with a dot, the first .more/a.png"
    assert any(note.startswith(told) for note in run(manifest, tmp_path / "source", tmp_path / "out").notes)
    answer = dpconvert("init", tmp_path / "source", "--out", tmp_path / "drafted.toml", "-q")
    assert "Not read: 2 images in folders whose names begin with a dot" in answer.out


def test_nothing_but_an_archive_in_an_archive_names_what_to_do(
    manifest: Manifest, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    (tmp_path / "source").mkdir()
    with zipfile.ZipFile(tmp_path / "source" / "outer.zip", "w") as archive:
        archive.writestr("inner.rar", b"")
    answer = dpconvert(tmp_path / "my.toml", "--source", tmp_path / "source", "--out", tmp_path / "out")
    assert "unpack outer.zip, and then inner.rar" in one_line(answer)


def test_masks_and_points_are_paired_whatever_case_and_form(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(
        'task = "Mine"\nclasses = ["no", "yes"]\nshape = "masks"\n[layout]\nvalues = {0 = "a", 1 = "b"}\n'
        '[rule]\ntype = "area"\nsize = 4\nshare = 0.5\npositive = ["b"]\n'
    )
    manifest = with_defaults(load(tmp_path / "my.toml"))
    source = tmp_path / "source"
    for name in ("\u00e4", "b", "c"):
        put(source, f"images/{name.upper()}.png")
        (source / "masks").mkdir(exist_ok=True)
        Image.new("L", (8, 8), 1).save(source / "masks" / f"{unicodedata.normalize('NFD', name)}_mask.png")
    assert run(manifest, source, tmp_path / "out").samples() == 12


@pytest.mark.parametrize("rule", ["", '[rule]\ntype = "tiles"\nsize = 4\n'])
def test_a_card_says_the_same_of_what_is_left_out_wherever_the_source_lies(
    tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = {"benign/x.png": b"\x89PNG\r\n\x1a\nno", "benign/y.tif": b"II*\0no", "benign/z.jpg": b"\xff\xd8\xffno"}
    cards = []
    (tmp_path / "my.toml").write_text('task = "Mine"\nshape = "folders"\n' + rule)
    manifest = with_defaults(load(tmp_path / "my.toml"))
    for place in ("one", "two/deep"):
        source = tmp_path / place / "source"
        put(source, "benign/a.png", "benign/b.png", "benign/c.png")
        for name, data in damaged.items():
            (source / name).write_bytes(data)
    monkeypatch.chdir(tmp_path / "one")
    for root in (tmp_path / "one" / "source", Path("source"), Path("../two/deep/source"), Path("../one/../one/source")):
        out = tmp_path / f"out{len(cards)}"
        run(manifest, root, out, skip_failed=True)
        cards.append((out / "Mine" / "task.json").read_text())
    assert cards[1:] == cards[:1] * 3
    assert " at 0x" not in cards[0]
    assert cards[0].count('"reason"') >= 3
    assert "x.png: " in cards[0]


def test_numbers_within_names_are_in_their_order() -> None:
    ordered = ["", "2", "10", "Structure 1", "Structure 2", "Structure 10", "tumour"]
    assert sorted(set(ordered), key=names.natural) == ordered


def test_accents_do_not_cut_names() -> None:
    assert [names.unaccented(text) for text in ("Übung", "Straße", "A\u0308rzte", "naïve Zellen_2", "癌")] == [
        "Ubung",
        "Strasse",
        "Arzte",
        "naive Zellen_2",
        "癌",
    ]
    assert [task_name(Path(text)) for text in ("Übung", "naïve Zellen_2", "癌")] == ["Ubung", "NaiveZellen2", "Task"]
