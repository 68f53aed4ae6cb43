"""Archives that cannot be read in place: compressed tars, 7-Zip files, and archives inside archives.

Each is unpacked once into the cache (`dpconvert.source.cache`), and its files are then named as if it were a
folder, like those of other archives. An archive that is unpacked already in a folder of its name is ignored.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dpconvert import names
from dpconvert.errors import ReadError
from dpconvert.source import cache, listing
from dpconvert.source.bounded import most_unpacked
from dpconvert.source.listing import Listed
from dpconvert.source.name_encoding import NameEncoding

TAR: dict[str, Callable[..., Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
COMPRESSED = re.compile(r"(?i)\.(?:tar\.(?P<kind>gz|bz2|xz)|t(?P<short>gz|bz2?|xz))$")
SHORT = {"gz": "gz", "bz": "bz2", "bz2": "bz2", "xz": "xz"}
INNER = re.compile(r"(?i)\.(zip|tar)$")
SEVEN = re.compile(r"(?i)\.7z$")
ANY = re.compile(r"(?i)\.(zip|tar|tar\.(gz|bz2|xz)|tgz|tbz2?|txz|7z)$")
DEEPEST = 3  # archives inside one another
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, ValueError)


def expanded(root: Path, listed: list[Listed], encoding: NameEncoding, deep: int = 0) -> tuple[list[Listed], list[str]]:
    """Return the files of a source, with packed archives replaced by their files, and notes for the user.

    Raises:
        ReadError: an archive is damaged, or unpacks to far more than it holds.
        OutputError: the cache cannot be written.
    """
    folders = _folders(listed)
    kept: list[Listed] = []
    notes: list[str] = []
    for one in listed:
        name = one[0]
        if not _packed(one) or ANY.sub("", name) in folders or deep == DEEPEST:
            kept.append(one)
            continue
        inside, inner_notes = expanded(root, list(_opened(root, one, encoding)), encoding, deep + 1)
        kept += inside
        notes += [cache.copy_note(name), *inner_notes]
    return kept, notes


def _packed(one: Listed) -> bool:
    name, _, place = one
    if SEVEN.search(name) and not (place and place.packed):
        return _seven() is not None
    return bool(COMPRESSED.search(name)) or (place is not None and place.packed and bool(INNER.search(name)))


def _folders(listed: list[Listed]) -> set[str]:
    """Return every folder that holds a file; empty if there are no archives."""
    if not any(ANY.search(name) for name, _, _ in listed):
        return set()
    return {
        "/".join(parts[:depth])
        for name, _, _ in listed
        for parts in [name.split("/")]
        for depth in range(1, len(parts))
    }


def _opened(root: Path, one: Listed, encoding: NameEncoding) -> Iterator[Listed]:
    """Return the files of a packed archive from the cache."""

    name, size, place = one
    where = place or listing.Place(name)
    original = root / where.file
    if SEVEN.search(name):
        yield from _of_folder(
            cache.unpacked(root, original, name, "", lambda to: _unpack_seven(original, to, name)), name
        )
        return
    found = COMPRESSED.search(name)
    write = _writer(root, one, found and SHORT[(found["kind"] or found["short"]).lower()])
    zipped = not found and name.lower().endswith(".zip")
    copy = cache.unpacked(root, original, name, ".zip" if zipped else ".tar", write, size)
    try:
        for inner, bytes_of_it, lies in (listing.zip_members if zipped else listing.tar_members)(copy, name, encoding):
            assert lies is not None
            yield inner, bytes_of_it, lies._replace(file=str(copy))
    except ReadError as error:
        raise ReadError(error.what, where=root / name, remedy=error.remedy) from None


def _writer(root: Path, one: Listed, kind: str | None) -> Callable[[Path], None]:
    name, size, _ = one

    def write(path: Path) -> None:
        try:
            with _stream(root, one) as stream:
                if kind is None:
                    cache.copied(stream, path, size, name)
                else:
                    with TAR[kind](stream) as inner:
                        cache.copied(inner, path, most_unpacked(size), name)
        except (*DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # not a fault of the archive
            raise ReadError(f"not a readable archive: {error}", where=root / name, remedy="download it again") from None

    return write


@contextmanager
def _stream(root: Path, one: Listed) -> Iterator[IO[bytes]]:
    """Open the bytes of an archive, which may lie in another one."""
    name, size, place = one
    path = root / (place.file if place else name)
    if place is not None and place.member is not None:
        with zipfile.ZipFile(path) as archive, archive.open(place.member) as stream:
            yield stream
        return
    with path.open("rb") as file:
        if place is not None and place.offset is not None:
            file.seek(place.offset)
            yield _Part(file, size)  # type: ignore[misc]
        else:
            yield file


class _Part:
    """The next `size` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _seven() -> Any:
    """Return the module py7zr, if it is installed."""
    try:
        import py7zr
    except ImportError:
        return None
    return py7zr


def _unpack_seven(original: Path, folder: Path, name: str) -> None:
    py7zr = _seven()
    try:
        with py7zr.SevenZipFile(original) as archive:
            size, most = archive.archiveinfo().uncompressed, most_unpacked(original.stat().st_size)
            if size > most:
                raise ReadError(f"unpacks to more than {most} bytes", where=original, remedy="unpack it yourself")
            folder.mkdir()
            archive.extractall(folder)
    except (*DAMAGED, struct.error, py7zr.exceptions.ArchiveError) as error:
        raise ReadError(f"not a readable 7-Zip archive: {error}", where=original, remedy="download it again") from None


def _of_folder(folder: Path, name: str) -> Iterator[Listed]:

    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and not listing.IGNORED.search(inner):
            yield names.file_name(f"{name}/{inner}"), path.stat().st_size, listing.Place(str(path))
