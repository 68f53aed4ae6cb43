"""The rows of a sheet of an Excel workbook (.xlsx): bytes in, what `table.records` gives of delimited text out.

Whole numbers are written without a point, dates as ISO 8601 has them; of a formula, the value that was stored with it
counts, and what stands in merged cells counts for each row that they span. The format: ECMA-376, Office Open XML, part
1, SpreadsheetML.
"""

from __future__ import annotations

import datetime
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from dpconvert import names
from dpconvert.annotations.parsing.lines import LONGEST, MOST
from dpconvert.errors import ManifestError, ReadError

ZIP = b"PK\x03\x04"
BOOK = "xl/workbook.xml"
FORMULA = re.compile(rb"<(\w+:)?f[ />]")
MERGED = re.compile(rb"<(\w+:)?mergeCell ")
HIDDEN = re.compile(rb"""<(\w+:)?row [^>]*\bhidden=["'](1|true)["']""")
UNCALCULATED = re.compile(rb"""\bfullCalcOnLoad\s*=\s*["'](1|true)["']""")  # written by programs that do not calculate
MOST_BYTES = 1 << 30  # that the parts of a workbook may unpack to
DAMAGED = (  # what `zipfile` and openpyxl raise on damaged workbooks, found by damaging some
    OSError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    SyntaxError,
    RuntimeError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
)


def is_workbook(data: bytes) -> bool:
    """Whether these bytes are a workbook, and no other zip archive."""
    if not data.startswith(ZIP):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return BOOK in archive.namelist()
    except DAMAGED:
        return False


def records(data: bytes, name: str, sheet: str = "") -> list[tuple[int, list[str]]]:
    """(number from 1, stripped cells) of every row of a sheet; of the only one that holds anything without `sheet`.

    Raises:
        ReadError: damaged, too large, or with a formula whose value is not stored.
        ManifestError: no such sheet, or several hold rows and none is named.
    """
    _check_size(data, name)
    try:
        with _opened(data) as book:
            found = _sheet(book, name, sheet)
            rows = list(_bounded(found.iter_rows(), name))
            if _holds(data, FORMULA):
                _check_formulas(data, found.title, rows, name)
            texts = [[_text(cell.value, name) for cell in cells] for _, cells in rows]
            if _holds(data, MERGED):
                _fill_merged(data, found.title, texts)
            return list(enumerate(texts, start=1))
    except DAMAGED as error:
        raise ReadError(f"not a readable workbook: {error}", where=name, remedy="save it as CSV, in UTF-8") from None


def hidden_rows(data: bytes, sheet: str = "") -> int:
    """Return how many rows with cells, hidden by hand or by a filter, the sheet has that `records` reads."""
    try:
        if not _holds(data, HIDDEN):
            return 0
        with _opened(data, streamed=False) as book:
            filled = [one for one in book.worksheets if any(any(row) for row in one.iter_rows(values_only=True))]
            title = names.match(sheet, book.sheetnames) if sheet else None
            found = [book[title]] if title else filled if not sheet and len(filled) == 1 else []
            return sum(
                any(cell.value is not None for cell in one[number])
                for one in found
                for number, row in one.row_dimensions.items()
                if row.hidden
            )
    except DAMAGED:  # which `records` reports
        return 0


@contextmanager
def _opened(data: bytes, *, values: bool = True, streamed: bool = True) -> Iterator[Any]:
    """Open a workbook for the values of its cells, or for their formulas. streamed: without what follows the cells."""
    from openpyxl import load_workbook  # takes a while

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what openpyxl does not write back
        with closing(load_workbook(io.BytesIO(data), read_only=streamed, data_only=values)) as book:
            yield book


def _is_open(cell: Any, *, calculated: bool) -> bool:
    """Whether a formula in this cell has no value; one whose value is an empty text has the type "str".

    XlsxWriter stores 0 as the value of each formula and asks the program that opens the workbook to calculate.
    """
    return (cell.value is None and cell.data_type != "str") or (not calculated and cell.value == 0)


def _holds(data: bytes, what: re.Pattern[bytes]) -> bool:
    """Whether this occurs in a sheet."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sheets = (part for part in archive.namelist() if part.startswith("xl/worksheets/") and part.endswith(".xml"))
        return any(what.search(archive.read(part)) for part in sheets)


def _fill_merged(data: bytes, sheet: str, rows: list[list[str]]) -> None:
    """Write the text of merged cells, which is stored in the first of them only, into each row that they span."""
    filled = [any(cells) for cells in rows]
    with _opened(data, streamed=False) as book:
        for merged in book[sheet].merged_cells.ranges:
            column, first = merged.min_col - 1, merged.min_row - 1
            text = rows[first][column] if first < len(rows) and column < len(rows[first]) else ""
            for row in (row for row in range(first + 1, min(merged.max_row, len(rows))) if filled[row]):
                rows[row] += [""] * (column + 1 - len(rows[row]))
                rows[row][column] = text


def _check_formulas(data: bytes, sheet: str, rows: list[tuple[int, Any]], name: str) -> None:
    """Refuse a formula without a value, as programs leave it that write a workbook without calculating.

    Raises:
        ReadError: there is one.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        calculated = not UNCALCULATED.search(archive.read(BOOK))
    with _opened(data, values=False) as book:
        book[sheet].reset_dimensions()
        for (_, cells), written in zip(rows, book[sheet].iter_rows(), strict=False):
            for cell, formula in zip(cells, written, strict=False):
                if formula.data_type == "f" and _is_open(cell, calculated=calculated):
                    raise ReadError(
                        f"cell {formula.coordinate} holds a formula whose value is not stored",
                        where=name,
                        found=str(getattr(formula.value, "text", formula.value))[:40],
                        remedy="open the workbook in Excel or LibreOffice and save it, or save it as CSV, in UTF-8",
                    )


def _bounded(rows: Iterable[Any], name: str) -> Iterator[tuple[int, Any]]:
    for number, row in enumerate(rows, start=1):
        if number > MOST:
            raise ReadError("too many rows", where=name, expected=f"at most {MOST}")
        yield number, row


def _check_size(data: bytes, name: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except DAMAGED as error:
        raise ReadError(f"not a readable workbook: {error}", where=name) from None
    if size > MOST_BYTES:
        raise ReadError(f"a workbook that unpacks to {size} bytes", where=name, remedy="save it as CSV, in UTF-8")


def _sheet(book: Any, name: str, wanted: str) -> Any:
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    for sheet in sheets.values():
        sheet.reset_dimensions()  # which some writers state wrongly
    if wanted:
        title = names.match(wanted, sheets)
        if title is None:
            raise ManifestError(f"no sheet {wanted!r}", where=name, found=", ".join(sheets))
        return sheets[title]
    filled = [title for title, sheet in sheets.items() if any(any(row) for row in sheet.iter_rows(values_only=True))]
    if len(filled) > 1:
        raise ManifestError(
            "several sheets hold rows",
            where=name,
            found=", ".join(filled),
            remedy="name one in the manifest: `sheet` in [layout]",
        )
    if not filled:
        raise ReadError("a workbook without a row", where=name)
    return sheets[filled[0]]


def _text(cell: Any, name: str) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    text = names.bare(names.nfc(str(cell)))
    if len(text) > LONGEST:
        raise ReadError(f"a cell of more than {LONGEST >> 20} MiB", where=name)
    return text
