"""The files under one folder by their names, as bytes: those on disk, and those in zip and tar archives, in place."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dpconvert.errors import ReadError
from dpconvert.source.bounded import AT_ONCE
from dpconvert.source.listing import DAMAGED, Place

FAKE = ".dpconvert-fake"  # an empty file that marks what `dpconvert fake` drew; it belongs to no source
PART = 1 << 18  # bytes at the beginning, in the middle and at the end by which large files are compared


class Folder:
    """Files by name, with their sizes in bytes; archives are opened when first read.

    places: where a file lies if its name is not its path.
    """

    def __init__(self, root: Path, sizes: dict[str, int], places: dict[str, Place]) -> None:
        self.root, self.sizes, self.places = root, sizes, places
        self._archives: dict[str, zipfile.ZipFile] = {}

    @property
    def is_fake(self) -> bool:
        """Whether `dpconvert fake` drew these files."""
        return (self.root / FAKE).exists()

    def is_packed(self, name: str) -> bool:
        """Whether a file lies in an archive that is read in place."""
        return name in self.places and self.places[name].packed

    def checksum(self, name: str, *, whole: bool) -> int:
        """Return the CRC-32 of a file, taken from a zip archive for its members; of a large file, only parts count."""
        place, size = self.places.get(name, Place(name)), self.sizes[name]
        try:
            if place.member is not None:
                return self._archive(place.file).getinfo(place.member).CRC
            spans = [(0, size)] if whole or size <= 3 * PART else [(at, PART) for at in (0, size // 2, size - PART)]
            if (self.root / place.file).is_dir():  # a slide
                return _crc_of_folder(self.root / place.file)
            with (self.root / place.file).open("rb") as file:
                return _crc(file, [((place.offset or 0) + at, length) for at, length in spans])
        except DAMAGED as error:
            why = getattr(error, "strerror", None) or error
            raise ReadError(f"cannot be read: {why}", where=self.root / name) from None

    def read(self, name: str) -> bytes:
        """Return the bytes of one file.

        Raises:
            ReadError: the file cannot be read, or an archive's member is damaged.
        """
        try:
            place = self.lies(name)
            if place.offset is not None:
                return self._piece(place.file, place.offset, self.sizes[name])
            if place.member is not None:
                return _unpacked(self._archive(place.file), place.member)
            return (self.root / place.file).read_bytes()
        except DAMAGED as error:
            why = getattr(error, "strerror", None) or error
            raise ReadError(f"cannot be read: {why}", where=self.root / name) from None

    def lies(self, name: str) -> Place:
        """Return the path of a file on disk."""
        return self.places.get(name, Place(name))

    @contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """Open a stream of the bytes of one file; those of a member of a plain tar archive are held in memory."""
        lies = self.lies(name)
        if lies.member is not None:
            with self._archive(lies.file).open(lies.member) as stream:
                yield stream
        elif lies.offset is not None:
            yield io.BytesIO(self.read(name))
        else:
            with (self.root / lies.file).open("rb") as file:
                yield file

    def digest(self) -> str:
        """The sha256 over names and sizes, which changes whenever a file is added, removed or resized."""
        lines = (f"{name}\0{size}\n".encode("utf-8", "surrogateescape") for name, size in self.sizes.items())
        return hashlib.sha256(b"".join(lines)).hexdigest()

    def _piece(self, archive: str, offset: int, size: int) -> bytes:
        with (self.root / archive).open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise EOFError("the archive ends within this file")
        return data

    def _archive(self, file: str) -> zipfile.ZipFile:
        if file not in self._archives:
            self._archives[file] = zipfile.ZipFile(self.root / file)
        return self._archives[file]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archives": {}}


def _unpacked(archive: zipfile.ZipFile, member: str) -> bytes:
    """Return the bytes of a member, at most as many as the size that was checked when it was listed."""
    with archive.open(member) as file:
        return file.read(archive.getinfo(member).file_size)


def _crc_of_folder(folder: Path) -> int:
    """Return the CRC-32 of the names and contents of the files of a folder."""
    crc = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        crc = zlib.crc32(path.read_bytes(), zlib.crc32(str(path.relative_to(folder)).encode(), crc))
    return crc


def _crc(file: IO[bytes], spans: list[tuple[int, int]]) -> int:
    """Return the CRC-32 of parts of a file: (offset, length)."""
    crc = 0
    for offset, left in spans:
        file.seek(offset)
        while left > 0 and (data := file.read(min(left, AT_ONCE))):
            crc, left = zlib.crc32(data, crc), left - len(data)
    return crc
