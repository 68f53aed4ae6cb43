"""Reads the files that list the images of each set: which name is listed for which set.

train.txt                       a name on each line; the pattern has the named group `split`
dataset.json                    an object with a list of names for each set, as MONAI's data lists have
splits_0.csv                    a column of names for each set, as CLAM's have
split.csv                       a row for each image, whose columns `sets` in [layout] names
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from dpconvert import names
from dpconvert.annotations.parsing.lines import lines
from dpconvert.annotations.parsing.table import Table
from dpconvert.card import Split
from dpconvert.errors import ManifestError, ReadError, SourceError, cut
from dpconvert.readers.layout_keys import SetLists
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile

OF_ONE_SET = {"", "images"}  # lists in the JSON of one set, such as COCO's
TABLE = re.compile(r"(?i)\.(csv|tsv|xls[xm])$")
FIELDS = "image", "file", "file_name", "filename", "path"  # of an object that stands for an image
FILE = re.compile(r".*\.[A-Za-z][A-Za-z0-9]{1,6}(?=[\s,;]|$)")
MORE = re.compile(r"[,;\t]|\s+-1$|\s{2,}1$")  # after a name without an ending


class SetEntry(NamedTuple):
    """A name that a file lists, the set that it is listed for, and the file."""

    name: str
    split: Split
    file: str


def entries_of(source: Source, found: MatchedFile, layout: SetLists) -> Iterator[SetEntry]:
    """What a file of [files.sets] lists, in order.

    Raises:
        ManifestError: nothing says how to read it.
        SourceError: a set has an unknown name.
        ReadError: it cannot be read.
    """
    data, of = source.read(found.name), layout.set_of(found.get("split"), found.name)
    if TABLE.search(found.name) or layout.sets:
        yield from _of_table(data, found.name, layout, of)
    elif of is not None and not found.name.lower().endswith(".json"):
        yield from (SetEntry(name, of, found.name) for name in names_in_lines(data, found.name))
    elif not found.name.lower().endswith(".json"):
        raise ManifestError(
            f"[files.sets]: nothing says which set {found.name} lists",
            where=source.manifest.path,
            remedy="name the set in the pattern, as (?P<split>train|val|test)",
        )
    else:
        lists = dict(lists_in_json(data, found.name))
        sets = {key: split for key in lists if key and (split := _known(layout, key)) is not None}
        if of is not None:
            sets |= dict.fromkeys(lists.keys() & OF_ONE_SET, of)
        if not sets:
            raise ManifestError(
                f"[files.sets]: nothing says which set {found.name} lists",
                where=source.manifest.path,
                expected="a list of names for each set, as in {'train': [...]}, or (?P<split>...) in the pattern",
                found=", ".join(repr(cut(key, 30)) for key in [*lists][:3]) or "no list",
            )
        for key, split in sets.items():
            yield from (SetEntry(name, split, found.name) for name in lists[key])


def _known(layout: SetLists, text: str) -> Split | None:
    """The set that a key or a column names; None for what is no name of a set."""
    try:
        return layout.set_of(text)
    except SourceError:
        return None


def _of_table(data: bytes, name: str, layout: SetLists, of: Split | None) -> Iterator[SetEntry]:
    """Rows of an image and its set, as `sets` in [layout] names the columns; else columns of names, one for each set;
    else, of a file of one set, the names in its first column of files, or its first one with a name.
    """
    table = Table(data, name)
    if layout.sets:
        yield from _of_rows(table, layout, of)
        return
    columns = {column: split for column in table.columns if (split := _known(layout, column)) is not None}
    if columns:
        rows = list(table)
        for column, split in columns.items():
            yield from (SetEntry(text, split, name) for row in rows if (text := row.cells[column]))
        return
    if of is None:
        raise ManifestError(
            f"[files.sets]: nothing says which columns of {name} name the image and its set",
            where=name,
            found=", ".join(map(repr, filter(None, table.columns))),
            remedy='name them in [layout], as in sets = {image = "image", split = "set"}',
        )
    rows = list(table)
    columns_of_names = [column for column in table.columns if column]  # one without a name holds the numbers of rows
    of_files = (column for column in columns_of_names if any(FILE.fullmatch(row.cells[column]) for row in rows))
    head = next(of_files, next(iter(columns_of_names), ""))
    cells = [head, *(row.cells[head] for row in rows)]  # the first row may be a name, too
    yield from (SetEntry(text, of, name) for text in cells if text)


def _of_rows(table: Table, layout: SetLists, of: Split | None) -> Iterator[SetEntry]:
    image_column, split_column = layout.sets["image"], layout.sets.get("split", "")
    for column in filter(None, (image_column, split_column)):
        if names.match(column, table.columns) is None:
            raise ReadError(
                f"no column {column!r}, which `sets` in [layout] names",
                where=table.name,
                found=", ".join(map(repr, filter(None, table.columns))),
            )
    for row in table:
        image, where = row.cells[image_column], f"{table.name}, line {row.line}"
        split = layout.set_of(row.cells[split_column], where) if split_column else of
        if image and split is not None:
            yield SetEntry(image, split, table.name)


def names_in_lines(data: bytes, name: str) -> list[str]:
    """The names that a text lists, one on a line. Labels after a name and the flags of Pascal VOC do not count.

    Raises:
        ReadError: it is no text.
    """
    found = [names.bare(line).strip('"') for line in lines(data, name) if line.strip()]
    return [of_file[0] if (of_file := FILE.match(line)) else MORE.split(line)[0] for line in found]


def lists_in_json(data: bytes, name: str) -> Iterator[tuple[str, list[str]]]:
    """Each set that JSON names, and what it lists of it; '' for a list without a name.

    Raises:
        ReadError: it is not JSON.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ReadError(f"not JSON: {error}", where=name) from None
    if isinstance(content, list):
        yield "", list(_names(content))
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, list):
            yield key, list(_names(value))


def _names(items: Iterable[Any]) -> Iterator[str]:
    """The images that elements of a list name: by themselves, by a field, or by a list of one."""
    for item in items:
        if isinstance(item, dict):
            item = next((item[key] for key in FIELDS if key in item), "")
        item = item[0] if isinstance(item, list) and len(item) == 1 else item
        if isinstance(item, str) and item:
            yield item
