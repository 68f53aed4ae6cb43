"""Comparison of names as people see them: the only module that handles Unicode forms, case and equivalent characters.

An accented letter is one character (NFC) or two (NFD, as macOS writes it); this module treats both as the same name.
All input, from file names to manifests, is converted to NFC when it is read.
"""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable

from dpconvert.errors import UsageError

MISSING = frozenset(
    (
        "",
        "?",
        "na",
        "nan",
        "null",
        "nil",
        "none",
        "missing",
        "unknown",
        "unk",
        "undefined",
        "unspecified",
        "unlabelled",
        "unlabeled",
        "nolabel",
        "notavailable",
        "notapplicable",
        "notknown",
        "notspecified",
        "tbd",
    )
)
SIGNS = re.compile(r"[\s#/\\._*()\[\]<>{}\u2010-\u2015-]+")  # that a text is written with, as in '#N/A' and '<n.a.>'
DECIMAL = re.compile(r"[-+]?\d{1,6}(\.\d{0,6})?", re.ASCII)
WHOLE = re.compile(r"([-+]?\d{1,9})(?:\.0*)?", re.ASCII)
DECIMALS_OF_WHOLE = re.compile(r"(\d+)\.0+", re.ASCII)
AROUND = string.whitespace + "\u200b\u2060\ufeff"  # with spaces of no width
YES_NO = {"true": "1", "yes": "1", "false": "0", "no": "0"}
ZEROS = re.compile(r"(?<!\d)(?<!\d[.,])0+(?=\d)")  # before a whole number
MONTH = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
DATE = re.compile(  # as spreadsheets write what they took for one, in English
    rf"(?i)\d{{1,2}}-({MONTH})[a-z]*(-\d+)?|({MONTH})-\d{{1,4}}|\d{{4}}-\d\d-\d\d(T00:00:00)?|\d\d?/\d\d?/\d{{2,4}}"
)
PACKED = re.compile(r"(?i)\.(?:zip|7z|tar(?:\.(?:gz|bz2|xz))?|tgz|tbz2?|txz)(?=/)")  # of an archive among folders
ESCAPED = re.compile(r"(?:%[89A-F][0-9A-F])+")  # bytes as `escaped` writes them
UNDECODABLE = re.compile("[\udc80-\udcff]")  # Python's form of the bytes of a file name that are not UTF-8


def nfc(text: str) -> str:
    """Return the text with composed characters (Unicode normalization form C)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def unaccented(text: str) -> str:
    """Return the text with letters in place of accented ones: 'Übung' -> 'Ubung'."""
    apart = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


def bare(text: str) -> str:
    """Return the text without blanks and invisible characters around it."""
    return text.strip().strip(AROUND).strip()


def file_name(name: str) -> str:
    """Return the name of a file in NFC, with '/' as separator and without './'.

    Each byte that is not UTF-8 becomes '%' and two hexadecimal digits, so that every name can be written.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return nfc(escaped("/".join(parts)))


def escaped(name: str) -> str:
    """Return a name of the operating system as text: '%FC' for a byte FC that is not UTF-8."""
    return UNDECODABLE.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", name)


def readable(name: str) -> str:
    """Return a name with escaped bytes as the characters that they are in UTF-8, else in Windows-1252: 'M%FCller'."""
    if "%" not in name:
        return name
    return nfc(ESCAPED.sub(lambda found: _character(found[0]), name))


def _character(bytes_of_it: str) -> str:
    raw = bytes.fromhex(bytes_of_it.replace("%", ""))
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return bytes_of_it


def is_of_names(encoding: str) -> bool:
    """Whether file names may have this encoding: Python knows it, and ASCII stays what it is."""
    try:
        return b"a/1.png".decode(encoding) == "a/1.png"
    except (LookupError, ValueError):
        return False


def as_folders(name: str) -> str:
    """Return the name of a file with archives called as the folders that they unpack to: 'a.zip/1.png' -> 'a/1.png'."""
    return PACKED.sub("", name)


def folded(name: str) -> str:
    """Return a key that is equal for names that differ only in case or Unicode form."""
    return nfc(nfc(name).casefold())


def plain(name: str) -> str:
    """Return a key that is equal for names that differ only in case, Unicode form, blanks, '-' and '_'."""
    return "".join(folded(name).replace("-", "").replace("_", "").split())


def seen(name: str) -> str:
    """Return a key that is equal for names that people take for one.

    It is without case, invisible characters, widths of blanks, and zeros before numbers.
    """
    visible = "".join(
        "-" if unicodedata.category(letter) == "Pd" else letter
        for letter in unicodedata.normalize("NFKC", name)
        if letter.isspace() or unicodedata.category(letter) not in ("Cf", "Cc")
    )
    return folded(ZEROS.sub("", " ".join(visible.split())))


def reads_missing(label: str) -> bool:
    """Whether a label reads as if it said that there is none: `N/A`, `#N/A`, `-`, `?`, `nan`, `unknown`."""
    return SIGNS.sub("", folded(label)).rstrip("?!") in MISSING


def reads_date(text: str) -> bool:
    """Whether a text reads as a date that a spreadsheet made of it, such as `1-Feb` of `1-2`, or `2024-03-01`."""
    return DATE.fullmatch(text) is not None


def alike(label: str) -> str:
    """Return a key that is equal for labels that may be one: those that look the same, 1 and 1.0, 1 and true."""
    text = seen(label)
    return f"{float(text):g}" if DECIMAL.fullmatch(text) else YES_NO.get(text, text)


def whole(text: str) -> str:
    """Return a whole number without decimals, which programs write in a column with gaps (7.0 is 7), else the text."""
    return found[1] if (found := DECIMALS_OF_WHOLE.fullmatch(text)) else text


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts numbers within names in their order: Structure 2 before Structure 10."""
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d{1,15})", text))


def match(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that equals `name`, else the only one that equals it except for case; else None.

    The width of blanks within names counts only where two differ in nothing else. Of whole numbers, decimals count only
    where two differ in nothing else: programs write 1 as 1.0 beside a gap.
    """
    known = list(known)
    same = [one for one in known if folded(one) == folded(name)]
    if not same and len(words := folded(name).split()) > 1:
        same = [one for one in known if folded(one).split() == words]
    if not same and (number := WHOLE.fullmatch(name)):
        same = [one for one in known if (other := WHOLE.fullmatch(one)) and other[1] == number[1]]
    exact = [one for one in same if nfc(one) == nfc(name)]
    found = exact or same
    return found[0] if len(found) == 1 else None


def closest(name: str, known: Iterable[str], what: str, listing: str | None = None) -> str:
    """Return the one of `known` that equals `name` except for case, blanks, '-' and '_'.

    listing: what to say if none is near, in place of all that are known.

    Raises:
        UsageError: none equals it; the message gives the nearest.
    """
    by_name = {plain(candidate): candidate for candidate in known}
    if plain(name) in by_name:
        return by_name[plain(name)]
    near = [by_name[found] for found in difflib.get_close_matches(plain(name), by_name, n=3, cutoff=0.5)]
    remedy = listing or f"known: {', '.join(by_name.values()) or 'none'}"
    if near:
        remedy = f"did you mean {' or '.join(near)}?"
    raise UsageError(f"no {what} named {name!r}", remedy=remedy)


def told_apart(names: list[str], numbered: Collection[int] = ()) -> list[str]:
    """The names, with their number in front of those that differ in nothing but case, and of those in `numbered`."""
    before = set(numbered)
    while True:
        found = [f"{number}_{name}".rstrip("_") if number in before else name for number, name in enumerate(names)]
        alike = Counter(name.casefold() for name in found)
        clashing = {number for number, name in enumerate(found) if alike[name.casefold()] > 1}
        if clashing <= before:
            return found
        before |= clashing
