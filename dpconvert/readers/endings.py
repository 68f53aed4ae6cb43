"""Which files the rows of tables mean: by the ends of their names; and what to do about a name that no file has."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import unquote

from dpconvert import names
from dpconvert.plural import counted
from dpconvert.readers.pairing import IMAGE

ABSOLUTE = re.compile(r"(?i)[/\\]|[a-z]:[/\\]")
URL = re.compile(r"(?i)file:/*(?=/|[a-z]:/)")
ENDING = re.compile(rf"(?i)\.(?:{IMAGE}|svs|ndpi|mrxs|scn|bif|dcm|czi|vsi)$")
ROUNDED = re.compile(r"(?i)\d([.,]\d+)?e[+-]?\d+")
MOST_DIGITS = 15  # of a number that a spreadsheet keeps
DECIMALS_OF_WHOLE = re.compile(r"(\d+)[.,]0+", re.ASCII)
AS_TEXT = "format its column as text before the names are entered, and save the table"


class Endings:
    """Files by every trailing part of their names, without regard to case where that leaves one.

    Where no name has an ending, archives count as folders, `one/1.png` being `one.zip/1.png`, and bytes that are not
    UTF-8 as Windows-1252, as in tables; then names are compared without the endings of images, if `bare`.
    """

    def __init__(self, files: Iterable[str], *, bare: bool = True) -> None:
        self._bare = bare
        self._exact: dict[str, list[str]] = defaultdict(list)
        self._folded: dict[str, list[str]] = defaultdict(list)
        self._unpacked: dict[str, list[str]] = defaultdict(list)
        self._stems: dict[str, list[str]] = defaultdict(list)
        self._others: dict[str, str] = {}  # name with another ending than its file -> file
        for name in files:
            for ending in _endings(name):
                self._exact[ending].append(name)
                self._folded[names.folded(ending)].append(name)
            unpacked = names.readable(names.as_folders(name))
            for ending in _endings(unpacked):
                if unpacked != name:
                    self._unpacked[names.folded(ending)].append(name)
                self._stems[names.folded(ENDING.sub("", ending))].append(name)

    def find(self, wanted: str) -> list[str]:
        """The files whose names have this ending."""
        folded = names.folded(wanted)
        found = self._exact.get(wanted) or self._folded.get(folded) or self._unpacked.get(folded)
        if found or not self._bare:
            return found or []
        found = self._stems.get(folded, [])
        if not found and (stem := ENDING.sub("", folded)) != folded:
            found = self._stems.get(stem, [])
            self._others.update({wanted: found[0]} if found else {})
        return found

    def notes(self) -> Iterator[str]:
        """Yield what a user should know."""
        if self._others:
            name, file = next(iter(self._others.items()))
            images = counted(len(self._others), "image")
            yield f"{images} found by the name without its ending, which tables state otherwise: {name} is {file}"

    def advice(self, wanted: str) -> str:
        """Return what to do about a name that no file has: a spreadsheet may have taken it for a number or a date."""
        bare = ENDING.sub("", PurePosixPath(wanted).name)
        if ROUNDED.fullmatch(bare) or (bare.isdecimal() and len(bare) > MOST_DIGITS):
            return f"a spreadsheet took this name for a number, and rounded it: {AS_TEXT} again"
        if names.reads_date(bare):
            return f"a spreadsheet took this name for a date: {AS_TEXT} again"
        number = whole(bare)
        if near := self._of_number(wanted):
            width = f"{len(near[0]):02}" if near[0].startswith("0") else ""
            form = f":{width}{'d' if number != bare else ''}"
            file = self._stems[near[0]][0]
            return (
                f"{file} is here: let `file` in [layout] write numbers so, as in "
                f'file = "{{number{form}}}{PurePosixPath(file).suffix}", or write names as they are into the table'
            )
        return "if some images are not here, say `missing = true` in [layout]"

    def near(self, wanted: str) -> list[str]:
        """Return the files whose names are this one but for what a spreadsheet does to numbers: zeros and decimals."""
        return [file for stem in self._of_number(wanted) for file in self._stems[stem]]

    def _of_number(self, wanted: str) -> list[str]:
        """The names without endings, of their last part only, that are this number."""
        number = whole(ENDING.sub("", PurePosixPath(wanted).name))
        return self._numbers.get(number.lstrip("0") or "0", []) if number.isdecimal() else []

    @cached_property
    def _numbers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for stem in filter(str.isdecimal, self._stems):
            found[stem.lstrip("0") or "0"].append(stem)
        return dict(found)


class FromRoot:
    """Files as tables name them: by the end of their names, of paths from the root of some machine too.

    Of such a path what comes before the files' own names is cut, the same for all rows.
    """

    def __init__(self, find: Callable[[str], list[str]]) -> None:
        self._find = find
        self._cut: str | None = None

    def find(self, stated: str) -> list[str]:
        """The files that are meant."""
        if URL.match(stated):
            stated = unquote(URL.sub("", stated))
        name = names.file_name(stated)
        found = self._find(name)
        parts = name.split("/")
        for n in range(1, len(parts)) if ABSOLUTE.match(stated) and not found else ():
            if found := self._find("/".join(parts[n:])):
                cut = "/".join(parts[:n])
                self._cut = self._cut or cut
                return found if cut == self._cut else []
        return found

    def notes(self) -> list[str]:
        """What a user should know."""
        return [f"the table's paths begin with {self._cut}/, which is taken for this source"] if self._cut else []


def whole(name: str) -> str:
    """Return a whole number without the decimals that a spreadsheet gave it (7.0 or 7,0 is 7), else the name."""
    return found[1] if (found := DECIMALS_OF_WHOLE.fullmatch(name)) else name


def _endings(name: str) -> Iterator[str]:
    parts = PurePosixPath(name).parts
    return ("/".join(parts[start:]) for start in range(len(parts)))
