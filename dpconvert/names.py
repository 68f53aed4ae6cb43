"""Names compared as people see them: the one owner of Unicode forms, case and what a name is allowed to leave out.

A letter with an accent is one character (NFC) or two (NFD, as macOS writes it); both are the same name here. Everything
that is read, from files' names to manifests, is brought to NFC where it comes in.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

from dpconvert.errors import UsageError

UNDECODABLE = re.compile("[\udc80-\udcff]")  # how Python keeps the bytes of a file name that is not UTF-8


def nfc(text: str) -> str:
    """The text with composed characters (Unicode normalization form C)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def file_name(name: str) -> str:
    """A file's name with '/' between its parts and without './', in NFC.

    Each byte that is not UTF-8 becomes '%' and two hexadecimal digits, so that every name can be written down.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return nfc(escaped("/".join(parts)))


def escaped(name: str) -> str:
    """A name of the operating system as text: '%FC' for a byte FC that is not UTF-8."""
    return UNDECODABLE.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", name)


def folded(name: str) -> str:
    """Equal for names that differ in case or Unicode form only."""
    return nfc(nfc(name).casefold())


def plain(name: str) -> str:
    """Equal for names that differ in case, Unicode form, '-' and '_' only."""
    return folded(name).replace("-", "").replace("_", "")


def match(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is `name`: exactly, else but for case where no second one is; None without any."""
    same = [one for one in known if folded(one) == folded(name)]
    exact = [one for one in same if nfc(one) == nfc(name)]
    found = exact or same
    return found[0] if len(found) == 1 else None


def closest(name: str, known: Iterable[str], what: str) -> str:
    """The one of `known` that is `name` but for case, '-' and '_'.

    Raises:
        UsageError: none is; the nearest are named.
    """
    by_name = {plain(candidate): candidate for candidate in known}
    if plain(name) in by_name:
        return by_name[plain(name)]
    near = [by_name[found] for found in difflib.get_close_matches(plain(name), by_name, n=3, cutoff=0.5)]
    remedy = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(by_name.values()) or 'none'}"
    raise UsageError(f"no {what} named {name!r}", remedy=remedy)
