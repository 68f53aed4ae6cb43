"""Delimited text as RFC 4180 has it: bytes in, rows with the lines that they begin in out. Every table is read here.

Cells in double quotes may hold delimiters, line ends and doubled quotes; blanks around cells do not count. The
delimiter is the one that the first row holds most of outside quotes, unless the manifest or a line `sep=;` of Excel's
names it. A text that is written as a formula, `="007"`, so that Excel keeps it, is that text. Rows without any text are
passed over and counted, and so are comments: lines that begin with `#` and have not the cells of a row. Excel's
workbooks are read too, a sheet as a table, and JSON lines, an object as a row.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dpconvert import names
from dpconvert.annotations.parsing import json_rows, workbook
from dpconvert.annotations.parsing.lines import LONGEST, WINDOWS, encoding_of, lines
from dpconvert.annotations.parsing.workbook import is_workbook
from dpconvert.errors import ManifestError, ReadError
from dpconvert.plural import counted

DELIMITERS = ",;\t|"
MOST_COLUMNS = 10_000
QUOTED = re.compile(r'"[^"]*"')
AS_FORMULA = re.compile(r'="((?:[^"]|"")*)"')
GROUPED = re.compile(r"\s*[-+]?\d{1,3}(?:([.,'\u2019\u00a0\u2009\u202f ])\d{3}(?:\1\d{3})*)(?:[.,]\d+)?\s*", re.ASCII)
SEP = re.compile(r"(?i)\s*\"?sep=(.)\"?\s*$")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How tables are written, as far as a manifest says so; '' is found out for each.

    decimal: '.' or ','. Without it a number may have either, but not both. sheet: of a workbook.
    """

    delimiter: str = ""
    encoding: str = ""
    decimal: str = ""
    sheet: str = ""


class Comment(list[str]):
    """The one cell of a line that is a comment."""


class Cells(dict[str, str]):
    """Column -> text. A column is found without regard to case where only one is meant."""

    def __missing__(self, column: str) -> str:
        found = names.match(column, self)
        if found is None:
            raise KeyError(column)
        return self[found]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table: the number of its first line in the file, from 1, and its cells."""

    line: int
    cells: Cells


class Table:
    """A table with a head: iterate over it for its rows. `empty` and `comments` count what was passed over so far.

    Raises:
        ReadError: not such a table: two columns of one name, a row longer than the head, a quote that never ends.
    """

    def __init__(self, data: bytes, name: str, dialect: Dialect = Dialect()) -> None:
        self.name, self.empty, self.comments = name, 0, 0
        as_text = not dialect.encoding and not is_workbook(data)
        self.hidden = workbook.hidden_rows(data, dialect.sheet) if is_workbook(data) else 0
        self.windows = as_text and encoding_of(data, name) == WINDOWS
        self._records = records(data, name, dialect)
        self.columns = next(self._filled(), (0, list[str]()))[1]
        _check_head(self.columns, name)

    def __iter__(self) -> Iterator[TableRow]:
        for line, cells in self._filled():
            if any(cells[len(self.columns) :]):
                raise ReadError(
                    f"line {line} has more cells than the header",
                    where=self.name,
                    expected=len(self.columns),
                    found=len(cells),
                    remedy="put cells that hold the delimiter into double quotes"
                    if len(self.columns) > 1
                    else "the first row must name the columns: remove what stands above it",
                )
            padded = itertools.chain(cells, itertools.repeat(""))
            yield TableRow(line, Cells(zip(self.columns, padded, strict=False)))

    def notes(self) -> list[str]:
        """What a user should know once all rows are read."""
        found = [f"{counted(self.empty, 'empty row')} of {self.name} passed over"] if self.empty else []
        if self.comments:
            found.append(f"{counted(self.comments, 'comment')} of {self.name} passed over (lines with # in front)")
        if self.hidden:
            found.append(f"{counted(self.hidden, 'hidden row')} of {self.name} read like the others")
        if self.windows:
            found.append(f"{self.name} is not UTF-8 and is read as Windows-1252; `encoding` in [layout] names another")
        return found

    def _filled(self) -> Iterator[tuple[int, list[str]]]:
        for line, cells in self._records:
            if isinstance(cells, Comment):
                self.comments += 1
            elif any(cells):
                yield line, cells
            else:
                self.empty += 1


def rows_of_program(data: bytes, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(where it is, column -> text) of every row of a table that a program wrote, whose head may begin with #.

    Raises:
        ReadError: not such a table.
    """
    table = Table(data, name)
    table.columns = [column.removeprefix("#") for column in table.columns]
    for row in table:
        yield f"{name}, line {row.line}", {**row.cells}


def head_of(data: bytes, name: str) -> set[str]:
    """The columns of what may be a table; none of what is not."""
    try:
        found = next((row for _, row in records(data, name) if any(row) and not isinstance(row, Comment)), [])
    except (ReadError, ManifestError):
        return set()
    return {column.removeprefix("#") for column in found}


def records(data: bytes, name: str, dialect: Dialect = Dialect()) -> Iterator[tuple[int, list[str]]]:
    """(first line from 1, stripped cells) of every row, empty ones, comments and the head included.

    Raises:
        ReadError: not text, or quotes that are not those of RFC 4180.
    """
    if json_rows.is_lines(name):
        yield from json_rows.records(data, name)
        return
    if is_workbook(data):
        yield from workbook.records(data, name, dialect.sheet)
        return
    text, before, marked = lines(data, name, dialect.encoding), 0, ""
    above, head = _to_first_row(text)
    if mark := SEP.match("".join(head)):
        before, marked = len(above) + len(head), mark[1]
        above, head = _to_first_row(text)
    delimiter = dialect.delimiter or marked or _delimiter("".join(head), name)
    comments, above = _comments(above, head, delimiter)
    yield from ((before + at, Comment([names.bare(line)])) for at, line in enumerate(comments, 1) if line.strip())
    before, head = before + len(comments), above + head
    if (found := "".join(head).count(delimiter)) >= MOST_COLUMNS:
        raise ReadError("too many columns", where=name, expected=f"at most {MOST_COLUMNS}", found=found)
    reader = csv.reader(itertools.chain(head, text), delimiter=delimiter, strict=True, skipinitialspace=True)
    columns = 0
    while True:
        line = before + reader.line_num + 1
        if (cells := _next(reader, name, line)) is None:
            return
        row = [_plain(cell) for cell in cells]
        columns = columns or len(row)
        yield line, Comment(row) if columns > 1 and len(row) == 1 and row[0].startswith("#") else row


def number(text: str, decimal: str = "") -> float:
    """A number with a decimal point, or a decimal comma where `decimal` says ',' or nothing else can be meant.

    Raises:
        ValueError: it is none; or '1,234' without `decimal`, which may be a thousand or little more than one.
    """
    if not decimal and re.fullmatch(r"\s*[-+]?\d{1,3},\d{3}\s*", text, re.ASCII):
        raise ValueError(f"{text!r}: decimals or thousands; say `decimal` in [layout]")
    if decimal == "," or (not decimal and "." not in text and text.count(",") == 1):
        plain = text.replace(".", "?").replace(",", ".", 1)
    else:
        plain = text
    if not re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", plain, re.ASCII):
        if GROUPED.fullmatch(text):
            raise ValueError(f"{text!r} has a separator of thousands; write numbers without it")
        raise ValueError(f"not a number: {text!r}" + (f" with the decimal separator {decimal!r}" if decimal else ""))
    return float(plain)


def column(table: Table | TableRow, wanted: str, where: str) -> str:
    """The name of a column as the table writes it.

    Raises:
        ManifestError: there is no such column, or several that differ in case only.
    """
    columns = table.cells if isinstance(table, TableRow) else table.columns
    if wanted in columns:
        return wanted
    found = names.match(wanted, columns)
    if found is None:
        bare = names.match(wanted.strip("{}"), columns)
        remedy = "if these are not its columns, state the delimiter: `delimiter` in [layout]"
        if bare is not None:
            remedy = f'here a column is named without braces: "{bare}"'
        raise ManifestError(f"no column {wanted!r}", where=where, found=", ".join(columns), remedy=remedy)
    return found


def _plain(cell: str) -> str:
    """The text of a cell, without blanks and invisible characters around it."""
    formula = AS_FORMULA.fullmatch(text := names.bare(cell))
    return text if formula is None else names.bare(formula[1].replace('""', '"'))


def _first_row(text: Iterator[str]) -> list[str]:
    """The lines of the first row that is not blank, with the blank ones before it: quotes may hold line ends."""
    row, quotes, size = list[str](), 0, 0
    for line in text:
        row.append(line)
        quotes, size = quotes + line.count('"'), size + len(line)
        if (line.strip() and quotes % 2 == 0) or size > LONGEST:
            break
    return row


def _to_first_row(text: Iterator[str]) -> tuple[list[str], list[str]]:
    """The lines before the first row that are blank or begin with #, and that row; all are the row if no other is."""
    above = list[str]()
    for line in text:
        if line.strip() and not line.lstrip().startswith("#"):
            return above, _first_row(itertools.chain([line], text))
        above.append(line)
    return [], above


def _comments(above: list[str], head: list[str], delimiter: str) -> tuple[list[str], list[str]]:
    """Divide the lines above a row into comments and what belongs to the table: a head such as `#file,label`."""
    last = next((at for at in range(len(above) - 1, -1, -1) if above[at].strip()), None)
    if last is None:
        return [], above
    cells = (next(csv.reader(row, delimiter=delimiter, skipinitialspace=True), []) for row in ([above[last]], head))
    is_head = len({len(row) for row in cells}) == 1
    return (above[:last], above[last:]) if is_head else (above, [])


def _delimiter(head: str, name: str) -> str:
    bare = QUOTED.sub("", head)
    counts = {delimiter: bare.count(delimiter) for delimiter in DELIMITERS}
    most = max(counts.values())
    best = [delimiter for delimiter, count in counts.items() if count == most]
    if most and len(best) > 1:
        raise ReadError(
            "the delimiter of its columns is unclear",
            where=name,
            found=repr(bare.strip())[:80],
            remedy="name it in the manifest: `delimiter` in [layout]",
        )
    return best[0]


def _check_head(columns: list[str], name: str) -> None:
    twice = [column for column, count in Counter(filter(None, columns)).items() if count > 1]
    if twice:
        raise ReadError(
            f"two columns are named {twice[0]!r}", where=name, found=", ".join(columns), remedy="rename one of them"
        )


def _next(reader: Iterator[list[str]], name: str, line: int) -> list[str] | None:
    """The next row, whose cells may be long; the limit is one of the whole process, and left as it was."""
    before = csv.field_size_limit(LONGEST)
    try:
        return next(reader, None)
    except csv.Error as error:
        raise ReadError(
            f"line {line}: not a readable table: {error}",
            where=name,
            remedy='double the quotes inside a quoted cell: "a ""b"" c"',
        ) from None
    finally:
        csv.field_size_limit(before)
