"""JSON and XML in UTF-8, whatever they were written in.

JSON has no other encoding by RFC 8259, and XML states its own, but programs write both otherwise: as UTF-16 with or
without a mark, in an encoding of Windows, or as UTF-8 with a statement that it is UTF-16, as .NET does of texts in
memory. What is in no encoding that is marked, stated or valid is read as Windows-1252, like tables.
"""

from __future__ import annotations

import codecs
import re

from dpconvert.annotations.parsing.lines import MARKS, WINDOWS

STATED = re.compile(rb"""\s*<\?xml\b[^>]*?\bencoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""")
DECLARATION = re.compile(r"\s*<\?xml\b[^>]*\?>")
STARTS = (b"{", b"[", b"<")
AROUND = b"\xef\xbb\xbf \t\r\n"


def in_utf8(data: bytes) -> bytes:
    """Return JSON or XML in UTF-8, XML without a statement of another encoding; anything else as it is."""
    if (wide := _wide(data)) is not None:
        text = _decoded(data, wide)
        return (
            _encoded(text)
            if text is not None and text[:100].lstrip("\ufeff \t\r\n").startswith(("{", "[", "<"))
            else data
        )
    bare = data[:100].lstrip(AROUND)
    if bare[:1] not in STARTS:
        return data
    found = STATED.match(data.removeprefix(codecs.BOM_UTF8)) if bare.startswith(b"<") else None
    stated = _name(found[1].decode()) if found else "utf-8"
    if stated is None or (stated == "utf-8" and (data.isascii() or _decoded(data, "utf-8") is not None)):
        return data
    is_marked = data.startswith(codecs.BOM_UTF8) or stated.startswith(("utf-16", "utf-32"))  # then it is not so
    for encoding in (*(() if is_marked else (stated,)), "utf-8", WINDOWS):
        if (text := _decoded(data, encoding)) is not None:
            return _encoded(text)
    return data


def _wide(data: bytes) -> str | None:
    """The encoding of text of two or four bytes a character, by its mark, or by the zero bytes of its first one."""
    marked = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), None)
    if marked is not None:
        return marked if marked.startswith(("utf-16", "utf-32")) else None
    first = data[:2]
    if first[1:] == b"\0" and first[:1] in STARTS:
        return "utf-16-le"
    return "utf-16-be" if first[:1] == b"\0" and first[1:] in STARTS else None


def _name(encoding: str) -> str | None:
    """Python's name of an encoding; None for one that it does not know."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        return None


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):
        return None


def _encoded(text: str) -> bytes:
    return DECLARATION.sub("", text.removeprefix("\ufeff"), count=1).encode()
