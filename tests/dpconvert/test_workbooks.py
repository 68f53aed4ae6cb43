"""Excel workbooks as tables, written by pandas and openpyxl: what their cells are as text, and what is refused."""

from __future__ import annotations

import datetime
import io
import zipfile

import openpyxl
import pandas as pd
import pytest
from openpyxl.worksheet.formula import ArrayFormula

from dpconvert.annotations.parsing.table import Dialect, Table
from dpconvert.annotations.parsing.workbook import is_workbook
from dpconvert.errors import ManifestError, ReadError


def book(**sheets: list[list[object]]) -> bytes:
    """A workbook of these sheets, by openpyxl."""
    made = openpyxl.Workbook()
    made.remove(made.active)  # type: ignore[arg-type]
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def cells(data: bytes, dialect: Dialect | None = None) -> list[dict[str, str]]:
    return [dict(row.cells) for row in Table(data, "labels.xlsx", dialect or Dialect())]


def test_a_sheet_that_pandas_wrote_is_read_as_its_csv_is() -> None:
    frame = pd.DataFrame({"image": ["a.png", "b, c.png"], "n": [1, 20], "share": [0.5, 3.0], "on": [True, False]})
    written = io.BytesIO()
    frame.to_excel(written, index=False)
    assert cells(written.getvalue()) == [
        {"image": "a.png", "n": "1", "share": "0.5", "on": "True"},
        {"image": "b, c.png", "n": "20", "share": "3", "on": "False"},
    ]
    as_csv = [dict(row.cells) for row in Table(frame.to_csv(index=False).encode(), "labels.csv")]
    assert [row | {"share": ""} for row in cells(written.getvalue())] == [row | {"share": ""} for row in as_csv]


@pytest.mark.parametrize("sheet", ["", "one"])
def test_hidden_rows_are_read_and_counted(sheet: str) -> None:
    """A filter leaves out rows for the eye alone; pandas reads them, too."""
    made = openpyxl.load_workbook(io.BytesIO(book(One=[["a"], ["x"], ["y"], ["z"], []], Two=[])))
    for number in (3, 4, 7):
        made["One"].row_dimensions[number].hidden = True
    buffer = io.BytesIO()
    made.save(buffer)
    table = Table(buffer.getvalue(), "labels.xlsx", Dialect(sheet=sheet))
    assert [row.cells["a"] for row in table] == ["x", "y", "z"]
    assert table.notes()[-1:] == ["2 hidden rows of labels.xlsx read like the others"]


def test_a_title_above_the_head_is_reported() -> None:
    with pytest.raises(ReadError, match="the first row must name the columns: remove what stands above it"):
        cells(book(One=[["Cohort A"], ["file", "label"], ["a.png", "x"]]))


def test_cells_become_the_text_that_a_person_sees() -> None:
    when = datetime.datetime(2020, 10, 7)
    data = book(
        One=[["a", "b", "c", "d"], ["007", 7.0, when, None], [], [" x ", 1.25, datetime.time(3, 4), "Mu\u0308"]]
    )
    table = Table(data, "labels.xlsx")
    assert [list(row.cells.values()) for row in table] == [
        ["007", "7", "2020-10-07", ""],
        ["x", "1.25", "03:04:00", "Mü"],
    ]
    assert table.notes() == ["1 empty row of labels.xlsx passed over"]


def test_the_one_sheet_that_holds_rows_is_taken_and_several_are_asked_about() -> None:
    assert cells(book(Empty=[], Labels=[["a"], ["1"]])) == [{"a": "1"}]
    two = book(Train=[["a"], ["1"]], Test=[["a"], ["2"]])
    with pytest.raises(ManifestError, match=r"several sheets hold rows.*found Train, Test.*`sheet` in \[layout\]"):
        cells(two)
    assert cells(two, Dialect(sheet="test")) == [{"a": "2"}]
    with pytest.raises(ManifestError, match=r"no sheet 'val'; found Train, Test"):
        cells(two, Dialect(sheet="val"))


def test_a_damaged_workbook_is_reported_in_one_line() -> None:
    whole = book(One=[["a"], ["1"]])
    assert is_workbook(whole)
    broken = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(broken, "w") as new:
        for part in old.namelist():
            new.writestr(part, b"<broken" if "sheet1" in part else old.read(part))
    for data in (broken.getvalue(), book(One=[])):
        with pytest.raises(ReadError, match=r"labels\.xlsx: (not a readable workbook|a workbook without a row)"):
            cells(data)


def test_another_zip_archive_is_no_table() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("labels.csv", "a\n1\n")
    with pytest.raises(ReadError, match="not text but a zip archive"):
        cells(archive.getvalue())


def test_a_formula_whose_value_is_not_stored_is_refused_by_its_cell() -> None:
    written = book(One=[["file", "patient"], ["a.png", None], ["b.png", "=LEFT(A3,1)"]])
    with pytest.raises(ReadError, match=r"labels\.xlsx: cell B3 holds a formula whose value .*; found =LEFT"):
        cells(written)


@pytest.mark.parametrize(
    ("asks", "stored"), [(b'fullCalcOnLoad="1"', b"0"), (b"", b"0"), (b'fullCalcOnLoad="1"', b"7")]
)
def test_a_zero_of_a_formula_in_a_workbook_that_was_never_calculated_is_refused(asks: bytes, stored: bytes) -> None:
    whole, made = book(One=[["file", "label"], ["b.png", "=1-1"]]), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(made, "w") as new:
        for part in old.namelist():
            text = old.read(part).replace(b'fullCalcOnLoad="1"', asks)
            for empty in (b"<v></v>", b"<v />", b"<v/>"):
                text = text.replace(empty, b"<v>" + stored + b"</v>")
            new.writestr(part, text)
    if asks and stored == b"0":
        with pytest.raises(ReadError, match=r"cell B2 holds a formula whose value is not stored; found =1-1"):
            cells(made.getvalue())
    else:
        assert cells(made.getvalue()) == [{"file": "b.png", "label": stored.decode()}]


def test_an_array_formula_without_a_value_is_shown_as_it_is_written() -> None:
    written = book(One=[["file", "patient"], ["a.png", ArrayFormula("B2:B2", "=A2:A2")]])
    with pytest.raises(ReadError, match=r"cell B2 holds a formula .*; found =A2:A2;"):
        cells(written)


def test_a_formula_whose_value_is_stored_counts_with_that_value_an_empty_text_too() -> None:
    stored = {b"<v></v>": b"<v>p7</v>", b"<v />": b"<v>p7</v>", b"<v/>": b"<v>p7</v>"}
    for value in (b"p7", b""):
        whole, made = book(One=[["file", "patient"], ["b.png", "=LEFT(A2,1)"]]), io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(made, "w") as new:
            for part in old.namelist():
                text = old.read(part)
                if "sheet1" in part:
                    assert b"LEFT" in text
                    text = text.replace(b'<c r="B2"', b'<c r="B2" t="str"')
                    for empty in stored:
                        text = text.replace(empty, b"<v>" + value + b"</v>")
                new.writestr(part, text)
        assert cells(made.getvalue()) == [{"file": "b.png", "patient": value.decode()}]


def test_what_stands_in_merged_cells_counts_for_each_row_that_they_span() -> None:
    """Excel stores it in the first of them: the other images of a patient were groups of their own, in other sets."""
    made = openpyxl.Workbook()
    sheet = made.create_sheet("labels")
    for row in (["image", "patient", "label"], ["0.png", "P1", "a"], ["1.png"], ["2.png"], ["3.png", "P2", "b"]):
        sheet.append(row)
    sheet.append(["4.png", "P3", "c"])
    for merged in ("B2:B4", "C2:C4", "B6:C9", "D1:F1"):
        sheet.merge_cells(merged)
    buffer = io.BytesIO()
    made.save(buffer)
    found = [[row[name] for name in ("image", "patient", "label")] for row in cells(buffer.getvalue())]
    assert found == [
        ["0.png", "P1", "a"],
        ["1.png", "P1", "a"],
        ["2.png", "P1", "a"],
        ["3.png", "P2", "b"],
        ["4.png", "P3", ""],
    ]
