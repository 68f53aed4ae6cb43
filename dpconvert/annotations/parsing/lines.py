"""Yields the lines of an untrusted text one by one, without holding all of them or a line of unlimited length."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from dpconvert import names
from dpconvert.errors import ManifestError, ReadError

MOST = 1_000_000  # the object made from a line takes about 600 bytes
LONGEST = 1 << 24  # characters; an outline of 10^6 vertices
UTF8, WINDOWS = "utf-8-sig", "cp1252"
MARKS = {
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF32_LE: "utf-32",  # begins like the mark of UTF-16
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
PIECE = 1 << 20
HEAD = 1 << 10
NO_TEXT = {
    b"PK\x03\x04": "a zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook of before 2007",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"SQLite format 3": "a SQLite database",
}


def lines(data: bytes, name: str, encoding: str = "") -> Iterator[str]:
    """The lines with their ends, in Unicode normalization form C. encoding: '' for that of `encoding_of`.

    Raises:
        ReadError: more than `MOST` lines, one longer than `LONGEST`, a NUL character, or not text in this encoding.
    """
    if (found := max(data.count(b"\n"), data.count(b"\r"))) > MOST:
        raise ReadError(
            "too many lines", where=name, expected=f"at most {MOST}", found=found, remedy="divide it into several files"
        )
    try:
        with io.TextIOWrapper(io.BytesIO(data), encoding or encoding_of(data, name), newline="") as text:
            while line := text.readline(LONGEST + 1):
                if len(line) > LONGEST:
                    raise ReadError(f"a line of more than {LONGEST >> 20} MiB", where=name)
                if "\0" in line:
                    raise ReadError("a NUL character in a text", where=name, remedy="it is damaged: export it again")
                yield names.nfc(line)
    except UnicodeError:
        raise ReadError(
            "not text in this encoding",
            where=name,
            found=encoding or "UTF-16",
            remedy="save it as UTF-8, or name its encoding in the manifest",
        ) from None


def encoding_of(data: bytes, name: str) -> str:
    """A text's encoding: what its first bytes mark (UTF-8, UTF-16, UTF-32), else UTF-8 if it is valid, else cp1252.

    UTF-16 without a mark is known by the zero bytes of its ASCII characters.

    Raises:
        ReadError: it is not text.
    """
    for mark, what in NO_TEXT.items():
        if data.startswith(mark):
            raise ReadError(f"not text but {what}", where=name, remedy="save it as CSV, in UTF-8")
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return encoding
    even, odd = data[:HEAD:2].count(0), data[1:HEAD:2].count(0)
    if max(even, odd) > len(data[:HEAD]) // 4:
        return "utf-16-be" if even > odd else "utf-16-le"
    if _decodes(data, "utf-8"):
        return UTF8
    if _decodes(data, WINDOWS):
        return WINDOWS
    raise ReadError(
        "neither UTF-8 nor Windows-1252 text",
        where=name,
        remedy="save it as UTF-8, or name its encoding in the manifest",
    )


def checked_encoding(encoding: str) -> str:
    """The name of an encoding that a manifest gives, '' for none.

    Raises:
        ManifestError: Python knows no text encoding of this name.
    """
    try:
        "".encode(encoding or "utf-8")
    except LookupError:
        raise ManifestError(
            "unknown encoding", found=repr(encoding), expected='"utf-8", "utf-16", "cp1252", "mac-roman" or the like'
        ) from None
    return encoding


def _decodes(data: bytes, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for start in range(0, len(data), PIECE):
            decoder.decode(data[start : start + PIECE])
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True
