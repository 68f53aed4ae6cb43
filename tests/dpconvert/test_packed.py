"""Archives that are unpacked once: compressed tars, 7-Zip files, archives inside archives, as others write them."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

import py7zr
import pytest
from PIL import Image

from dpconvert.errors import OutputError, ReadError, SourceError
from dpconvert.manifest.model import Manifest
from dpconvert.source import cache, packed
from dpconvert.source.files import Source

MANIFEST = Manifest(name="mine", task="Mine", classes=["no", "yes"], shape="folders")
FILES = {"a/no/0.png": 10, "a/yes/1.png": 200, "a/readme.txt": 3}


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


CONTENT = {name: png(value) for name, value in FILES.items()}


def tar(path: Path, mode: str) -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in CONTENT.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def zipped(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def seven(path: Path) -> None:
    with py7zr.SevenZipFile(path, "w") as archive:
        for name, data in CONTENT.items():
            archive.writef(io.BytesIO(data), name)


def nested_zip(path: Path) -> None:
    path.write_bytes(zipped({"inner.zip": zipped(CONTENT)}))


def nested_tar(path: Path) -> None:
    inner = path.with_name("inner.tar.gz")
    tar(inner, "w:gz")
    with tarfile.open(path, "w") as archive:
        archive.add(inner, "part/inner.tar.gz")
    inner.unlink()


KINDS = {
    "x.tar.gz": lambda path: tar(path, "w:gz"),
    "x.tgz": lambda path: tar(path, "w:gz"),
    "x.tar.bz2": lambda path: tar(path, "w:bz2"),
    "x.TAR.XZ": lambda path: tar(path, "w:xz"),
    "x.7z": seven,
    "x.zip": nested_zip,
    "x.tar": nested_tar,
}


def opened(root: Path) -> Source:
    return Source.open(root, MANIFEST)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_files_of_a_packed_archive_are_read_as_if_it_were_a_folder(
    name: str, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KINDS[name](tmp_path / name)
    monkeypatch.chdir(tmp_path.parent)  # as of `--source DIR`
    source = opened(Path(tmp_path.name) if relative else tmp_path)
    assert all(file.startswith(f"{name}/") for file in source.sizes)
    found = {"a/" + file.rpartition("/a/")[2]: source.read(file) for file in source.sizes}
    assert found == CONTENT
    assert [note for note in source.notes if f"{name}" in note and cache.FOLDER in note]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / cache.FOLDER).iterdir()}
    again = opened(tmp_path)
    assert again.sizes == source.sizes
    assert again.digest() == source.digest()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_archive_that_lies_unpacked_is_left_alone(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar.gz", "w:gz")
    (tmp_path / "x" / "no").mkdir(parents=True)
    (tmp_path / "x" / "no" / "0.png").write_bytes(png(10))
    assert set(opened(tmp_path).sizes) == {"x.tar.gz", "x/no/0.png"}
    assert not (tmp_path / cache.FOLDER).exists()


def test_what_lies_unpacked_beside_a_packed_archive_counts_once(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar.gz", "w:gz")
    for name, data in CONTENT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert set(opened(tmp_path).sizes) == set(CONTENT)


def test_a_damaged_archive_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    for name in ("x.tar.gz", "x.tar.xz", "x.7z"):
        whole = tmp_path / name
        KINDS[name if name in KINDS else "x.TAR.XZ"](whole)
        whole.write_bytes(whole.read_bytes()[:-40])
        with pytest.raises(ReadError, match=r"x\..*not a readable .*download it again"):
            opened(tmp_path)
        assert not [path for path in (tmp_path / cache.FOLDER).iterdir() if not path.name.endswith(".lock")]
        whole.unlink()


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "most_unpacked", lambda stored: 100)
    for name in ("x.tar.gz", "x.7z"):
        KINDS[name](tmp_path / name)
        with pytest.raises(ReadError, match="unpacks to more than 100 bytes"):
            opened(tmp_path)
        (tmp_path / name).unlink()


def test_a_member_outside_its_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("/evil.png"), io.BytesIO())
    with pytest.raises(ReadError, match="outside the archive"):
        opened(tmp_path)


def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar(tmp_path / "x.tar.gz", "w:gz")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="name a folder with room in the variable DPCONVERT_CACHE"):
        opened(tmp_path)


def test_without_py7zr_an_archive_of_7_zip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seven(tmp_path / "x.7z")
    monkeypatch.setitem(sys.modules, "py7zr", None)
    source = opened(tmp_path)
    assert set(source.sizes) == {"x.7z"}
    with pytest.raises(SourceError, match=r"pip install 'dpconvert\[7z\]'"):
        ask_for_images(source)


def ask_for_images(source: Source) -> None:
    from dpconvert.readers import with_defaults

    source.manifest = with_defaults(source.manifest)
    source.need("images")


def test_links_inside_a_tar_are_the_files_that_they_lead_to(tmp_path: Path) -> None:
    """tar keeps a file with two names once, and the other name as a link to it."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("a/0.png")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"image"))
        for name, kind, leads in (
            ("b/1.png", tarfile.LNKTYPE, "a/0.png"),
            ("a/2.png", tarfile.SYMTYPE, "0.png"),
            ("b/3.png", tarfile.SYMTYPE, "../a/0.png"),
            ("b/4.png", tarfile.SYMTYPE, "4.png"),
            ("b/5.png", tarfile.SYMTYPE, "/etc/passwd"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, leads
            archive.addfile(link)
    source = opened(tmp_path)
    assert set(source.sizes) == {f"x.tar/{name}.png" for name in ("a/0", "b/1", "a/2", "b/3")}
    assert all(source.read(name) == b"image" for name in source.sizes)


def test_an_encrypted_zip_is_refused_when_its_files_are_listed(tmp_path: Path) -> None:
    data = bytearray(zipped(CONTENT))
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the mark in the first entry of the central directory
    (tmp_path / "images.zip").write_bytes(data)
    with pytest.raises(ReadError, match=r"images.zip: archive member is encrypted: a/no/0.png; unpack it"):
        Source.open(tmp_path, MANIFEST)


def test_thumbnails_of_a_storage_system_are_no_images_of_the_source(tmp_path: Path) -> None:
    for name, data in CONTENT.items():
        for place in (tmp_path / name, tmp_path / Path(name).parent / "@eaDir" / "1.png" / "SYNOPHOTO_THUMB_M.png"):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    assert set(Source.open(tmp_path, MANIFEST).sizes) == set(CONTENT)


def test_a_zip_archive_in_parts_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.z01").write_bytes(b"PK\x07\x08PK\x03\x04" + bytes(99))
    (tmp_path / "a.zip").write_bytes(bytes(99))
    with pytest.raises(ReadError, match=r"in several parts.*found a\.z01; join the parts with `zip -s 0 a\.zip"):
        Source.open(tmp_path, MANIFEST)
