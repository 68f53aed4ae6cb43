"""How names of files are read that are not UTF-8: on disk, in tar archives, and in zip archives without a mark for it.

Short names in other encodings may be UTF-8 by chance. So those of one archive or folder are in one encoding: if any of
them is not UTF-8, all are in the one that the manifest states. A zip archive may hold a second name of a member in
UTF-8, as Info-ZIP, WinRAR and WinZip write it; that is then its name.
The format: PKWARE's APPNOTE, appendix D and section 4.6.9 (Unicode Path Extra Field).
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike

from dpconvert import names
from dpconvert.errors import SourceError
from dpconvert.plural import counted

UTF8_NAME = 0x800  # bit of a zip member's flags
UNICODE_PATH = 0x7075  # extra field
ADVICE = '`file_names` in the manifest states their encoding, as "cp932" (Japanese), "gb18030" (Chinese) or "cp1252"'
ABOUT_NAMES = re.compile(r"no |names no |\d+ images? in no |does not list ")
Reading = Callable[[str], str]


@dataclass
class NameEncoding:
    """Reads names in `encoding`, '' if the manifest states none.

    escaped: names whose bytes were escaped. guessed: archive -> names that were read as code page 437.
    """

    encoding: str = ""
    escaped: list[str] = field(default_factory=list)
    guessed: dict[str, list[str]] = field(default_factory=dict)

    def of_place(self, written: Iterable[str], where: str | PathLike[str], above: Reading = str) -> Reading:
        """Return what reads the names of one folder or archive, all of which are given as the system writes them.

        above: what read the name of the folder itself; its files are in the same encoding. The result raises a
        SourceError for a name that is not text in the encoding.
        """
        if above is str and not any(map(names.UNDECODABLE.search, written)):
            return str
        return partial(self._in_encoding, where) if self.encoding else self._as_it_is

    def in_zip(self, members: Sequence[zipfile.ZipInfo], archive: str, where: str | PathLike[str]) -> list[str]:
        """Return the names of members. Archives made on macOS hold UTF-8 without the mark for it.

        Raises:
            SourceError: one is not text in the encoding.
        """
        raw = [_raw(member) for member in members]
        reads = self.of_place([name for name in raw if name is not None], where)
        if self.encoding or reads is str:
            return [_written(one) if name is None else reads(name) for one, name in zip(members, raw, strict=True)]
        found = []
        for member, name in zip(members, raw, strict=True):
            is_guessed = name is not None and names.UNDECODABLE.search(name) is not None
            found.append(_written(member) if name is None or is_guessed else name)
            if is_guessed:
                self.guessed.setdefault(archive, []).append(names.file_name(f"{archive}/{found[-1]}"))
        return found

    def _in_encoding(self, where: str | PathLike[str], name: str) -> str:
        try:
            return name.encode("utf-8", "surrogateescape").decode(self.encoding)
        except UnicodeError:
            raise SourceError(
                f"a file name that is not text in {self.encoding}",
                where=where,
                found=names.escaped(name),
                remedy="correct `file_names` in the manifest",
            ) from None

    def _as_it_is(self, name: str) -> str:
        if names.UNDECODABLE.search(name):
            self.escaped.append(names.file_name(name))
        return name

    def notes(self) -> Iterator[str]:
        """Yield what a user should know of names whose encoding nothing states."""
        for archive, found in self.guessed.items():
            number = counted(len(found), "name")
            yield f"not UTF-8: {number} in {archive}, read as code page 437, the first: {found[0]}; {ADVICE}"
        if found := self.escaped:
            number = counted(len(found), "name")
            yield f"not UTF-8: {number} of files or folders, bytes written as in %FC, the first: {found[0]}; {ADVICE}"


def explained(error: SourceError, encoding: NameEncoding) -> SourceError:
    """Return the error of a reader, with what is known of names that are not UTF-8 if it is about a name."""
    notes = list(encoding.notes())
    if not notes or not ABOUT_NAMES.match(error.what):
        return error
    remedy = "; ".join([*([error.remedy] if error.remedy else []), *notes])
    return SourceError(error.what, where=error.where, expected=error.expected, found=error.found, remedy=remedy)


def _written(member: zipfile.ZipInfo) -> str:
    return _unicode_path(member) or member.orig_filename.partition("\0")[0]


def _raw(member: zipfile.ZipInfo) -> str | None:
    """Return a name as a system would write it that nothing marks as UTF-8; None for one that is clear."""
    written = _written(member)
    if member.flag_bits & UTF8_NAME or written.isascii() or _unicode_path(member) is not None:
        return None
    return written.encode("cp437").decode("utf-8", "surrogateescape")


def _unicode_path(member: zipfile.ZipInfo) -> str | None:
    """Return the name in the extra field for it, if it is that of the name in the header; else None."""
    extra, at = member.extra, 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        data, at = extra[at + 4 : at + 4 + size], at + 4 + size
        own = data[1:5] == struct.pack("<I", zlib.crc32(_in_header(member)))
        if kind == UNICODE_PATH and data[:1] == b"\x01" and own and len(data) > 5:
            try:
                return data[5:].decode()
            except UnicodeError:
                return None
    return None


def _in_header(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & UTF8_NAME else "cp437")
