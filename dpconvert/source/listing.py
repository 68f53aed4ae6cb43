"""List the files of a folder and the members of its zip and tar archives: names, sizes and places."""

from __future__ import annotations

import itertools
import lzma
import os
import posixpath
import re
import shlex
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dpconvert import names
from dpconvert.errors import ReadError, SourceError
from dpconvert.image.unread import is_folder, unread
from dpconvert.source import bounded, unused
from dpconvert.source.arrays import elements
from dpconvert.source.bounded import Bounded
from dpconvert.source.name_encoding import NameEncoding, Reading
from dpconvert.source.written import OF_SHARDS, is_written

MOST_VISITS = 1000  # of one folder, by links
MOST_LINKS = 16  # from one to the next
IGNORED = re.compile(r"(^|/)(\.|__MACOSX/|@eaDir/|Thumbs\.db$|desktop\.ini$)")
HIDDEN = re.compile(
    r"(?i)^(?!(.*/)?(\._|__MACOSX/|@eaDir/|\.(git|[\w-]*cache|ipynb_checkpoints|thumbnails|trash[\w-]*)/))(.*/)?\.[^/]+/"
)
"""In a folder that begins with a dot, but none where systems and programs keep copies and thumbnails."""
ENCRYPTED = 0x1  # bit of a zip member's flags
MEMBER_LIMIT = 4 << 30
RATIO_LIMIT = 1000
DAMAGED = (  # raised by `zipfile` for damaged archives (found by experiment)
    OSError,
    zipfile.BadZipFile,
    RuntimeError,
    ValueError,
    KeyError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)


class Place(NamedTuple):
    """The location of a file, if its name does not give it: `file` on disk, and the offset or member in an archive."""

    file: str
    offset: int | None = None
    member: str | None = None

    @property
    def packed(self) -> bool:
        return self.offset is not None or self.member is not None


Listed = tuple[str, int, Place | None]  # name, size, place


def walk(
    root: Path,
    hidden: list[str] | None = None,
    encoding: NameEncoding | None = None,
    written: list[str] | None = None,
) -> Iterator[Listed]:
    """Yield all files. Links to folders are followed, except those back to a folder above.

    hidden: to which the names of files in folders that begin with a dot are added; these are passed over. encoding: how
    names that are not UTF-8 are read. written: to which the folders of finished and begun conversions are added, which
    are then passed over.

    Raises:
        SourceError: a folder cannot be listed, or links lead to one again and again.
    """
    encoding = encoding or NameEncoding()
    above: dict[str, frozenset[tuple[int, int]]] = {}
    visits: Counter[tuple[int, int]] = Counter()
    shown_as: dict[str, tuple[str, Reading]] = {}
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_cannot_list):
        stat = os.stat(folder)  # noqa: PTH116
        here, parents = (stat.st_dev, stat.st_ino), above.pop(folder, frozenset())
        relative = Path(folder).relative_to(root)
        if here in parents or _passed_over(root, relative, written):
            subfolders.clear()
            continue
        visits[here] += 1
        if visits[here] > MOST_VISITS:
            raise SourceError(f"links lead to this folder more than {MOST_VISITS} times", where=folder)
        prefix, above_it = shown_as.pop(folder, ("", str))
        readable = encoding.of_place([*subfolders, *files], folder, above_it)
        for name in [folder for folder in subfolders if unread(folder) or is_folder(folder)]:  # of thousands of files
            subfolders.remove(name)
            files.append(name)
        down = parents | {here}
        for name in subfolders:
            own = str if name.isascii() else readable
            shown_as[os.path.join(folder, name)] = f"{prefix}{readable(name)}/", own  # noqa: PTH118
        above.update((os.path.join(folder, name), down) for name in subfolders)  # noqa: PTH118
        for file in files:
            name = (relative / file).as_posix()
            if IGNORED.search(name):
                if hidden is not None and HIDDEN.match(name):
                    hidden.append(names.file_name(name))
                continue
            path = Path(folder, file)
            if path.is_fifo() or path.is_socket():  # reading one would wait for ever
                continue
            shown = names.file_name(f"{prefix}{readable(file)}")
            if name.lower().endswith(".zip"):
                yield from zip_members(path, name, encoding, shown)
            elif name.lower().endswith(".tar"):
                yield from tar_members(path, name, encoding, shown)
            else:
                yield shown, _size(path), None if shown == name else Place(name)


def _passed_over(root: Path, folder: Path, written: list[str] | None) -> bool:
    """Whether a folder below the root holds a task that a conversion wrote; it is added to `written`, if given."""
    if written is None or not folder.parts or not is_written(root / folder):
        return False
    written.append(names.file_name(folder.as_posix()))
    return True


def without_written(
    root: Path, shape: str | None, hidden: list[str], encoding: NameEncoding
) -> tuple[list[Listed], list[str]]:
    """List all files but those of tasks that conversions have written; return the folders of these, too.

    They are listed where nothing else is here that may be read, and for a shape that reads shards.
    """
    if shape in OF_SHARDS:
        return list(walk(root, hidden, encoding)), []
    written: list[str] = []
    here = list(walk(root, hidden, encoding, written))
    if written and not any(unused.may_be_read(name) for name, _, _ in here):
        hidden.clear()
        return list(walk(root, hidden, encoding)), []
    return here, written


def check_names(listed: list[Listed], root: Path) -> None:
    """Refuse two files whose names look equal: the output could not distinguish them."""
    for (one, _, first), (other, _, second) in itertools.pairwise(listed):
        places = [place or Place(one) for place in (first, second)]
        if one == other and _own_name(places[0]) != _own_name(places[1]):
            raise SourceError(
                "two files of one name, written in different characters",
                where=root / one,
                found=" and ".join(repr(_own_name(place)) for place in places),
                remedy="rename one of them",
            )


def _own_name(place: Place) -> str:
    return place.file if place.member is None else place.member


def _cannot_list(error: OSError) -> None:
    raise SourceError(f"cannot be listed: {error.strerror}", where=error.filename)


def _size(path: Path) -> int:
    try:
        if path.is_dir():  # a slide
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise SourceError(
                "a symbolic link to a file that is not here",
                where=path,
                found=str(path.readlink()),
                remedy="copy the file there, or remove the link",
            ) from None
        raise SourceError(f"cannot be read: {error.strerror}", where=path) from None


def zip_members(path: Path, name: str, encoding: NameEncoding, shown: str = "") -> Iterator[Listed]:
    """Yield the members of an archive. name: its path. shown: its name in the source, if not the same."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except DAMAGED as error:
        if part := next((one for one in (path.with_suffix(".z01"), path.with_suffix(".Z01")) if one.exists()), None):
            joined = shlex.join(["zip", "-s", "0", path.name, "--out", f"{path.stem}-whole.zip"])
            raise ReadError(
                "a zip archive in several parts, which is not read",
                where=path,
                found=part.name,
                remedy=f"join the parts with `{joined}` and move them away, or unpack them",
            ) from None
        raise ReadError(f"not a readable zip archive: {error}", where=path, remedy="download it again") from None
    named: dict[str, zipfile.ZipInfo] = {}
    folder = shown or name
    for member, text in zip(members, encoding.in_zip(members, folder, path), strict=True):
        if member.filename.endswith("/") or IGNORED.search(member.filename):
            continue
        _check_inside(member.filename, path)
        known = named.setdefault(member.filename, member)
        if known is not member:
            if (known.CRC, known.file_size) != (member.CRC, member.file_size):
                raise _two_members(member.filename, path)
            continue
        if member.flag_bits & ENCRYPTED:
            raise ReadError(
                f"archive member is encrypted: {member.filename}", where=path, remedy="unpack it with its password"
            )
        limit = min(MEMBER_LIMIT, RATIO_LIMIT * max(member.compress_size, 1024))
        if member.file_size > limit and not elements.ARRAYS.search(member.filename):  # those are never held in memory
            raise ReadError(f"archive member unpacks to {member.file_size} bytes: {member.filename}", where=path)
        yield names.file_name(f"{folder}/{text}"), member.file_size, Place(name, member=member.filename)


def tar_members(path: Path, name: str, encoding: NameEncoding, shown: str = "") -> Iterator[Listed]:
    """Yield the members of an archive, as `zip_members` does."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=Bounded(file), mode="r:") as archive:  # type: ignore[call-overload]
            members = archive.getmembers()
    except (*DAMAGED, *bounded.DAMAGED) as error:
        raise ReadError(f"not a readable tar archive: {error}", where=path, remedy="download it again") from None
    by_name = {posixpath.normpath(member.name): member for member in members}
    named: dict[str, int] = {}
    readable = encoding.of_place(by_name, path)
    for member in members:
        inner = member.name.removeprefix("./")
        held = _linked(member, by_name)
        if held is not None and held.isreg() and not held.issparse() and not IGNORED.search(inner):
            _check_inside(inner, path)
            if named.setdefault(inner, held.offset_data) != held.offset_data:
                raise _two_members(inner, path)
            yield names.file_name(f"{shown or name}/{readable(inner)}"), held.size, Place(name, held.offset_data)


def _two_members(member: str, path: Path) -> ReadError:
    return ReadError(
        f"two members of one name: {member}", where=path, remedy="unpack it, and keep the right one as a file"
    )


def _linked(member: tarfile.TarInfo, by_name: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """Return the member that holds the data: itself, or the target of a link inside the archive; else None."""
    for _ in range(MOST_LINKS):
        if not (member.islnk() or member.issym()):
            return member
        folder = posixpath.dirname(member.name) if member.issym() else ""
        held = by_name.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
        if held is None:
            return None
        member = held
    return None


def _check_inside(member: str, path: Path) -> None:
    if not member or member.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member):
        raise ReadError(f"archive member outside the archive: {member}", where=path)
