"""Names of files as people see them, whatever the system or the archive writes; and what lies beside the patterns."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpconvert import names
from dpconvert.annotations.listed import Names
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.catalog import load
from dpconvert.manifest.model import Manifest
from dpconvert.readers import with_defaults
from dpconvert.readers.draft import task_name
from dpconvert.shards.index import read_index
from dpconvert.source.cache import copies_counted, copy_note
from dpconvert.source.files import Source
from dpconvert.source.unused import COMPRESSED
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


def test_a_table_and_a_disk_in_windows_1252_name_the_same_files(tmp_path: Path) -> None:
    put(tmp_path / "source", b"M\xfcller/b\xf6s.png", b"M\xfcller/gut.png")
    table = "file;label\nM\u00fcller/b\u00f6s.png;b\u00f6s\nM\u00fcller/gut.png;gut\n"
    (tmp_path / "source" / "labels.csv").write_bytes(table.encode("cp1252"))
    (tmp_path / "my.toml").write_text('task = "Mine"\nshape = "table"\n[layout]\nfile = "{file}"\nlabel = "label"\n')
    made = run(with_defaults(load(tmp_path / "my.toml")), tmp_path / "source", tmp_path / "out")
    assert labels(tmp_path / "out") == {"M%FCller/b%F6s.png": 0, "M%FCller/gut.png": 1}
    assert any(note.startswith("not UTF-8: 2 names of files or folders") for note in made.notes)


@pytest.mark.parametrize("stated", ["M\u00fcller.png", "x/m\u00fcller.PNG", "M\u00fcller"])
def test_a_file_that_names_images_finds_one_whose_name_is_not_utf8(stated: str) -> None:
    assert Names(["b.png", stated]).places("a/M%FCller.png") == [1]


def zipped(path: Path, members: dict[bytes, bytes], extra: Callable[[bytes], bytes] = lambda name: b"") -> None:
    """Write a zip archive whose names have no mark of UTF-8, as Windows writes them."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, data) in enumerate(members.items()):
            info = zipfile.ZipInfo(f"{number:03}".ljust(len(name), "x"))
            info.extra = extra(name)
            archive.writestr(info, data)
    packed = path.read_bytes()
    for number, name in enumerate(members):
        packed = packed.replace(f"{number:03}".ljust(len(name), "x").encode(), name)
    path.write_bytes(packed)


ENCODED = {
    "cp932": "\u8868\u30bd\u8179/\u80c3{}.png",
    "cp1252": "M\u00fcller/b\u00f6s{}.png",
    "gb18030": "\u75c5\u7406/\u56fe{}.png",
}


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("where", ["zip", "tar", "disk", "zip in a zip"])
def test_names_are_read_in_the_encoding_that_the_manifest_states(
    encoding: str, where: str, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    """A second byte of Shift-JIS may be that of a backslash."""
    wanted = [ENCODED[encoding].format(n) for n in range(4)]
    members = {name.encode(encoding): image(n) for n, name in enumerate(wanted)}
    source = tmp_path / "source"
    source.mkdir()
    if where == "disk":
        put(source, *members)
    elif where == "tar":
        with tarfile.open(source / "a.tar", "w", encoding=encoding, format=tarfile.GNU_FORMAT) as tar:
            for n, name in enumerate(wanted):
                member = tarfile.TarInfo(name)
                member.size = len(image(n))
                tar.addfile(member, io.BytesIO(image(n)))
    else:
        zipped(source / "a.zip", members)
    if where == "zip in a zip":
        inner = (source / "a.zip").read_bytes()
        with zipfile.ZipFile(source / "b.zip", "w") as archive:
            archive.writestr("a.zip", inner)
        (source / "a.zip").unlink()
    rows = "".join(f"{name},{'yn'[n % 2]}\n" for n, name in enumerate(wanted))
    (source / "labels.csv").write_bytes(f"file,label\n{rows}".encode())
    text = 'task = "Mine"\nshape = "table"\n{}[layout]\nfile = "{{file}}"\nlabel = "label"\n'
    text += "[split.strict]\nshare = [0.5, 0.25, 0.25]\n"
    path = tmp_path / "m.toml"
    path.write_text(text.format(""))
    for answer in (
        dpconvert("check", path, "--source", source, "-q"),
        dpconvert(path, "--source", source, "--out", tmp_path / "no", "-q"),
    ):
        if "labels.csv, line 2: no image of this name" in answer.err:
            assert "`file_names` in the manifest states their encoding" in answer.err
            assert answer.code == 1
        else:  # the escaped bytes of Windows-1252, which tables have in common
            assert (encoding, answer.code) == ("cp1252", 0)
    path.write_text(text.format(f'file_names = "{encoding}"\n'))
    assert dpconvert("check", path, "--source", source, "-q").code == 0
    assert dpconvert(path, "--source", source, "--out", tmp_path / "out", "--workers", 1, "-q").code == 0
    found = labels(tmp_path / "out")
    assert {name.split(".zip/")[-1].split(".tar/")[-1]: label for name, label in found.items()} == {
        name: 1 - n % 2 for n, name in enumerate(wanted)
    }


def test_init_asks_for_the_encoding_of_names(tmp_path: Path, dpconvert: Callable[..., Answer]) -> None:
    (tmp_path / "source").mkdir()
    names_of_it = [f"{word}/{n}.png" for word in ("\u816b\u760d", "\u6b63\u5e38") for n in range(2)]
    zipped(tmp_path / "source" / "a.zip", {name.encode("cp932"): image(n) for n, name in enumerate(names_of_it)})
    answer = dpconvert("init", tmp_path / "source", "--out", tmp_path / "draft.toml")
    assert answer.code == 1
    assert "unclear: Names in archives are not UTF-8, and may be wrong here, such as a.zip/" in answer.err
    assert '`file_names` in the manifest states their encoding, as "cp932"' in answer.err


def test_a_name_in_utf8_beside_the_one_of_a_zip_archive_counts(manifest: Manifest, tmp_path: Path) -> None:
    """As Info-ZIP and WinRAR write it; it is that of an earlier name if the checksum differs."""
    source = tmp_path / "source"
    source.mkdir()

    def second(name: bytes, wrong: int = 0) -> bytes:
        text = name.decode("cp932").encode()
        return struct.pack("<HHBI", 0x7075, 5 + len(text), 1, zlib.crc32(name) + wrong) + text

    name = "\u8868.png".encode("cp932")
    zipped(source / "a.zip", {name: image(0)}, second)
    zipped(source / "b.zip", {name: image(1)}, lambda name: second(name, 1))
    opened = Source.open(source, manifest)
    assert [*opened.sizes] == ["a.zip/\u8868.png", "b.zip/\u00f2/.png"]
    assert opened.read("a.zip/\u8868.png") == image(0)
    assert opened.notes == [
        "not UTF-8: 1 name in b.zip, read as code page 437, the first: b.zip/\u00f2/.png; "
        '`file_names` in the manifest states their encoding, as "cp932" (Japanese), "gb18030" (Chinese) or "cp1252"'
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "shift-giss", "rot13", "hex"])
def test_an_encoding_that_file_names_cannot_have_is_refused(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(f'task = "Mine"\nshape = "folders"\nfile_names = "{encoding}"\n')
    with pytest.raises(ManifestError, match=f"file_names: '{encoding}' is not an encoding of file names"):
        load(tmp_path / "m.toml")


def test_names_that_are_not_in_the_stated_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('task = "Mine"\nshape = "folders"\nfile_names = "cp932"\n')
    put(tmp_path / "source", b"gutartig/M\xfcller.png")
    with pytest.raises(SourceError, match=r"not text in cp932; found M%FCller.png; correct `file_names`"):
        Source.open(tmp_path / "source", load(tmp_path / "m.toml"))


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
        "gutartig/y.qptiff",
        "gutartig/z.kfb",
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
    assert "not used: 2 images (1 .svs, 1 .qptiff), the first gutartig/x.svs: matched by no pattern" in told
    assert "1 slide in a format that is not read (KFBio), the first: gutartig/z.kfb" in told
    assert "not used: 1 file of annotations or tables (1 .xml), the first a.xml: matched by no pattern" in told
    assert "hidden" not in told
    assert "notes.txt" not in told


def test_images_in_hidden_folders_are_reported_but_not_those_that_programs_keep(
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


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TAR.ZST", "a.tgz", "a.rar", "a.7z", "a.7z.001", "a.zip.002"])
def test_a_compressed_archive_is_known_by_its_name(name: str) -> None:
    assert COMPRESSED.search(name)


@pytest.mark.parametrize("name", ["a.tar.idx", "a.tar.md5", "a.tar.sha256", "a.tar.json", "a.target"])
def test_a_file_about_an_archive_is_none(name: str) -> None:
    """As the index of Megatron-Energon beside each shard is: it was to be unpacked."""
    assert not COMPRESSED.search(name)


def test_several_copies_in_the_cache_are_one_note() -> None:
    first, second = copy_note("a.zip/1.npy"), copy_note("a.zip/2.npy")
    assert copies_counted(["other", first]) == ["other", first]
    other, copies = copies_counted([first, "other", second])
    assert other == "other"
    assert copies.startswith("2 files are read from copies that were unpacked into the cache (.dpconvert-cache")
    assert copies.endswith("; the first: a.zip/1.npy")
