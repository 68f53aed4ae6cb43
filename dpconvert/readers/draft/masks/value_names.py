"""Files beside masks that say what values or colours are called: nnU-Net's dataset.json, tables of colours, and others.

Cityscapes, CamVid   64 128 64 <tab> Animal         Kaggle       name,r,g,b
CVAT                 tumour:255,0,0::               ITK-SNAP     1 255 0 0 1 1 1 "tumour"
nnU-Net              {"labels": {"tumour": 1}}      others       {"1": "tumour"}, or 1,tumour
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dpconvert.errors import ReadError
from dpconvert.names import plain
from dpconvert.readers.draft.survey import Survey

FILE = re.compile(r"(?i)\.(json|txt|csv|tsv|label|names)$")
LARGEST = 1 << 16  # bytes
MOST = 256  # names
NOT_ANNOTATED = re.compile(r"(?i)void|ignored?|unlabel+ed|unannotated|not[-_ ]annotated|don'?t[-_ ]care|excluded?")
APART = r"[\s,;:=]+"
LINE = re.compile(
    rf'(?P<before>(?:[\d.]+{APART})*)(?P<name>"[^"]+"|[^\W\d][^,;:="]*?)(?P<after>(?:{APART}[\d.]+)*)[\s,;:]*'
)
CHANNELS = 3
NAMES = ("name", "class", "label", "class_name", "class name")  # of columns, in lower case
COLOURS = (("r", "g", "b"), ("red", "green", "blue"))


@dataclass(frozen=True)
class ValueNames:
    """The name of each value, number or "#rrggbb", in the order of the file."""

    file: str
    names: Mapping[str, str]


def value_names(survey: Survey, values: Iterable[str], classes: Iterable[str] = ()) -> ValueNames | None:
    """The names of all these values, if one file states them or all that do agree; None elsewhere.

    classes: those of whole images, which a file may number, too; it says nothing of masks then.
    """
    wanted, of_images = {*values}, {*map(plain, classes)}
    found = [
        ValueNames(file, names)
        for file in survey.names
        if FILE.search(file) and survey.source.sizes[file] <= LARGEST
        for names in _ways(survey, file)
        if wanted
        and wanted <= names.keys()
        and len({*names.values()}) > 1
        and of_images.isdisjoint(map(plain, names.values()))
    ]
    agree = all(one.names[value] == found[0].names[value] for one in found for value in wanted)
    return found[0] if found and agree else None


def _ways(survey: Survey, file: str) -> Iterator[dict[str, str]]:
    try:
        text = survey.source.read(file).decode("utf-8-sig")
    except (ReadError, UnicodeError):
        return
    if file.lower().endswith(".json"):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return
        yield from filter(None, map(_of_json, _tables(content)))
        return
    rows = survey.rows(file) if file in survey.tables else []
    by_line = (_of_lines(text, colours=colours) for colours in (False, True))
    yield from filter(None, (*by_line, _of_rows(rows)))


def _tables(content: Any) -> Iterator[Mapping[str, Any]]:
    """The objects that may say it: the whole, and `labels` or `classes` in it."""
    if isinstance(content, dict):
        yield content
        yield from (found for key in ("labels", "classes", "names") if isinstance(found := content.get(key), dict))


def _of_json(table: Mapping[str, Any]) -> dict[str, str]:
    """{"tumour": 1}, {"1": "tumour"}, {"tumour": [255, 0, 0]}; nothing if a member is neither."""
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, str) and key.isdecimal():
            number, name = str(int(key)), value
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 0 and not key.isdecimal():
            number, name = str(value), key
        elif _is_colour(value) and not key.isdecimal():
            number, name = _colour(value), key
        else:
            return {}
        if not name.strip() or found.setdefault(number, name.strip()) != name.strip():
            return {}
    return found if len(found) <= MOST else {}


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == CHANNELS
        and all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 256 for one in value)
    )


def _colour(channels: Iterable[int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _of_lines(text: str, *, colours: bool) -> dict[str, str]:
    """Lines of a name, and of a number or three channels before or after it; nothing if one has no such form."""
    found: dict[str, str] = {}
    rows = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for at, line in enumerate(rows):
        match = LINE.fullmatch(line)
        numbers = re.findall(r"[\d.]+", match["before"] + match["after"]) if match else []
        if at == 0 and not numbers:
            continue  # the head
        value = _value(numbers, colours=colours)
        if match is None or not value or found.setdefault(value, match["name"].strip('"')) != match["name"].strip('"'):
            return {}
    return found if len(found) <= MOST else {}


def _value(numbers: list[str], *, colours: bool) -> str:
    """The number or the colour that a line is about; '' if its numbers are not those of one."""
    channels = {3: numbers, 4: numbers[1:], 7: numbers[1:4]}.get(len(numbers), []) if colours else []
    if channels and all(one.isdecimal() and int(one) < 256 for one in channels):
        return _colour(map(int, channels))
    is_numbered = not colours and len(numbers) in (1, 4, 7) and numbers[0].isdecimal()
    return str(int(numbers[0])) if is_numbered else ""


def _of_rows(rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """A table whose head names red, green and blue, and a name; nothing for another."""
    found: dict[str, str] = {}
    for row in rows:
        cells = {column.strip().casefold(): cell.strip() for column, cell in row.items() if cell}
        name = next((cells[key] for key in NAMES if key in cells), "")
        channels = next(([cells[key] for key in keys] for keys in COLOURS if {*keys} <= cells.keys()), [])
        if not name or not channels or not all(one.isdecimal() and int(one) < 256 for one in channels):
            return {}
        if found.setdefault(_colour(map(int, channels)), name) != name:
            return {}
    return found
