"""Shape "table": a CSV or TSV file that names pictures and their labels.

[files.table], [files.images]; [layout] takes
  file   how a row names its picture, a template over the columns: "{slide}/{uid}.png" or "{image ID:0>3}.bmp";
         matched against the end of the files' names
  label  column of the label; `labels` maps its values to class names; rows with a value that it lacks are an error,
         those listed in `skip` are left out
  group, split   columns (optional)
  missing  true: rows without a picture are passed over and counted
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from dpconvert.annotations.parsing.lines import lines
from dpconvert.card import Model
from dpconvert.errors import ManifestError, ReadError, SourceError
from dpconvert.manifest.model import FileKind
from dpconvert.plural import counted
from dpconvert.readers.pairing import as_split, layout_of, stem
from dpconvert.source.files import Source
from dpconvert.source.record import Picture

FILES = {
    "table": FileKind(pattern=r"(?i)^[^/]+\.(csv|tsv|txt)$", what="table of pictures", example="labels.csv"),
    "images": FileKind(pattern=r"(?i)\.(png|jpe?g|tiff?|bmp)$", what="pictures", example="images/0001.png"),
}

MOST_COLUMNS = 10_000


class Layout(Model):
    """`[layout]` of a manifest of this shape."""

    file: str
    label: str
    labels: dict[str, str] = {}
    skip: list[str] = []
    group: str = ""
    split: str = ""
    missing: bool = False


def pictures(source: Source) -> Iterator[Picture]:
    layout = layout_of(source.manifest, Layout)
    images = _by_ending([found.name for found in source.need("images")])
    for table in source.need("table"):
        absent = 0
        for line, row in enumerate(rows(source, table.name), start=2):
            where = f"{table.name}, line {line}"
            if cell(row, layout.label, where) in layout.skip:
                continue
            wanted = _file(row, layout, where)
            if layout.missing and wanted not in images:
                absent += 1
            else:
                yield _picture(row, layout, wanted, images, where)
        if absent:
            source.notes.append(f"{counted(absent, 'row')} of {table.name} without a picture here")


def _file(row: dict[str, str], layout: Layout, where: str) -> str:
    try:
        return layout.file.format(**row)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ManifestError(f"file: {layout.file!r} does not fit the table's columns ({error})", where=where) from None


def _picture(row: dict[str, str], layout: Layout, wanted: str, images: dict[str, list[str]], where: str) -> Picture:
    matches = images.get(wanted, [])
    if len(matches) != 1:
        what = "no picture of this name" if not matches else "several pictures of this name"
        raise SourceError(what, where=where, expected=wanted, found=", ".join(matches[:3]) or None)
    value = cell(row, layout.label, where)
    if layout.labels and value not in layout.labels:
        raise ManifestError("label not in `layout.labels`", where=where, found=repr(value))
    label = layout.labels.get(value, value)
    group = cell(row, layout.group, where) if layout.group else matches[0]
    split = as_split(cell(row, layout.split, where)) if layout.split else None
    return Picture(stem(matches[0]), (matches[0],), group, label=label, split=split)


def rows(source: Source, name: str) -> Iterator[dict[str, str]]:
    """The lines of a table with a head, separated by commas, semicolons or tabs: column -> text.

    Raises:
        ReadError: not a readable table.
    """
    data = source.read(name)
    try:
        dialect: Any = csv.Sniffer().sniff(data[:8192].decode("utf-8-sig", "replace"), delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel
    try:
        reader = csv.DictReader(lines(data, name), dialect=dialect)
        if len(reader.fieldnames or ()) > MOST_COLUMNS:
            found = len(reader.fieldnames or ())
            raise ReadError("too many columns", where=name, expected=f"at most {MOST_COLUMNS}", found=found)
        for row in reader:
            yield {str(k).strip(): str(v or "").strip() for k, v in row.items() if k is not None}
    except csv.Error as error:
        raise ReadError(f"not a readable table: {error}", where=name) from None


def cell(row: dict[str, str], column: str, where: str) -> str:
    """A row's text in a column.

    Raises:
        ManifestError: there is no such column.
    """
    if column not in row:
        raise ManifestError(f"no column {column!r}", where=where, found=", ".join(row))
    return row[column]


def _by_ending(names: list[str]) -> dict[str, list[str]]:
    """Every trailing part of a name -> the names that end with it."""
    endings: dict[str, list[str]] = {}
    for name in names:
        parts = PurePosixPath(name).parts
        for start in range(len(parts)):
            endings.setdefault("/".join(parts[start:]), []).append(name)
    return endings
