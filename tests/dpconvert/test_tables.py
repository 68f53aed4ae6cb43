"""Tables as RFC 4180 and spreadsheets write them, against the standard library and values worked out by hand."""

from __future__ import annotations

import csv
import io
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from dpconvert import card as cards
from dpconvert.annotations.parsing.table import Dialect, Table, TableRow, column, number
from dpconvert.card import TaskCard
from dpconvert.errors import ManifestError, ReadError, SourceError, UserError
from dpconvert.manifest.catalog import load
from dpconvert.readers import with_defaults
from dpconvert.readers.layouts.table import TEMPLATE, Layout, stated_image
from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import run

CELL = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=6) | st.sampled_from(
    ['a "b" c', "x;y", "1,5", "two\nlines", '"', "tab\there"]
)


def cells(data: bytes, dialect: Dialect = Dialect()) -> list[tuple[int, dict[str, str]]]:  # noqa: B008
    return [(row.line, dict(row.cells)) for row in Table(data, "t.csv", dialect)]


@given(
    st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_the_standard_library_writes_is_read_back(
    rows: list[tuple[str, str, str]], delimiter: str, encoding: str
) -> None:
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("file", "remark", "label"), *rows])
    found = cells(text.getvalue().encode(encoding))
    wanted = [tuple(unicodedata.normalize("NFC", cell).strip() for cell in row) for row in rows]
    assert [tuple(row.values()) for _, row in found] == wanted


@pytest.mark.parametrize(
    ("text", "columns", "wanted", "comments"),
    [
        ("# by us, v2, x\n#\n\nf,l\na,1\n# mid\nb,2\n", ["f", "l"], [(5, "a"), (7, "b")], 3),
        ("#f,l\na,1\n", ["#f", "l"], [(2, "a")], 0),
        ("# by us\n#f;l\na;1\n", ["#f", "l"], [(3, "a")], 1),
        ("sep=;\n# by us\nf;l\na;1\n", ["f", "l"], [(4, "a")], 1),
        ('# it\'s "odd\nf,l\na,"1\n2"\nb,2\n', ["f", "l"], [(3, "a"), (5, "b")], 1),
        ("f,l\n#1.png,2\n", ["f", "l"], [(2, "#1.png")], 0),
        ("f\n#1.png\n", ["f"], [(2, "#1.png")], 0),
    ],
)
def test_lines_that_begin_with_a_number_sign_are_comments_unless_they_have_the_cells_of_a_row(
    text: str, columns: list[str], wanted: list[tuple[int, str]], comments: int
) -> None:
    table = Table(text.encode(), "t.csv")
    assert [(row.line, next(iter(row.cells.values()))) for row in table] == wanted
    assert (table.columns, table.comments) == (columns, comments)


@given(st.lists(st.text('ab"\n,; ', max_size=5), min_size=2, max_size=6))
def test_rows_begin_where_the_file_says(remarks: list[str]) -> None:
    assume(all(remark.strip() for remark in remarks))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "remark"))
    starts = []
    for at, remark in enumerate(remarks):
        starts.append(text.getvalue().count("\n") + 1)
        writer.writerow((f"{at}.png", remark))
    assert [line for line, _ in cells(text.getvalue().encode())] == starts


def test_a_quoted_quote_far_down_moves_no_column() -> None:
    lines = ["file,remark,label"] + [f'{n}.png,"no; remark",benign' for n in range(900)]
    lines[800] = '799.png,"""firm"", on palpation",benign'
    text = "\n".join(lines)
    assert cells(text.encode()) == [(n, row) for n, row in enumerate(csv.DictReader(io.StringIO(text)), start=2)]


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ('"size, in mm, as seen";label', "5;benign"),
        ("file\tsize, mm\tlabel, x\tz", "a\t5\tbenign\t1"),
        ("sep=;\nfile, a, b;label", "a;benign"),
        ("file|label", "a|benign"),
        ('"a\n;;;b",label', "a,benign"),
    ],
)
def test_the_delimiter_is_what_the_head_holds_most_of_outside_quotes(head: str, row: str) -> None:
    (found,) = cells(f"{head}\r\n{row}\r\n".encode())
    assert "benign" in found[1].values()


def test_a_delimiter_that_the_head_leaves_open_is_requested() -> None:
    data = b"name, old;label\na;benign\n"
    with pytest.raises(ReadError, match=r"is unclear.*`delimiter`"):
        cells(data)
    assert cells(data, Dialect(delimiter=";")) == [(2, {"name, old": "a", "label": "benign"})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_the_encoding_is_known_by_its_marks(encoding: str) -> None:
    table = Table("file,label\nMüller.png,bösartig\n".encode(encoding), "t.csv")
    assert [dict(row.cells) for row in table] == [{"file": "Müller.png", "label": "bösartig"}]
    assert any("Windows-1252" in note for note in table.notes()) == (encoding == "cp1252")


def test_the_manifest_names_an_encoding_that_has_no_mark() -> None:
    data = "file,label\nMüller.png,bösartig\n".encode("mac-roman")
    assert cells(data, Dialect(encoding="mac-roman")) == [(2, {"file": "Müller.png", "label": "bösartig"})]
    with pytest.raises(ReadError, match="neither UTF-8 nor Windows-1252"):
        cells(b"file,label\n\x81,a\n")
    with pytest.raises(ReadError, match="not text in this encoding; found ascii"):
        cells(data, Dialect(encoding="ascii"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"file,label,label\n", "two columns are named 'label'"),
        (b"file,label\na.png,x,benign\n", "line 2 has more cells than the header"),
        (b'file,label\na.png,"benign\nb.png,x\n', "line 2: not a readable table: unexpected end of data"),
        (b'file,label\n"a".png,benign\n', "line 2: not a readable table"),
        (b"file,label\na.png,benign\0\n", "a NUL character in a text; it is damaged"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\xd0\xcf\x11\xe0rest", "an Excel workbook of before 2007"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not text but a PNG image"),
        (b"II*\0\x08\0\0\0", "not text but a TIFF image"),
    ],
)
def test_what_is_no_table_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ReadError, match=words):
        cells(data)


def test_rows_without_text_are_counted_and_short_ones_filled_up() -> None:
    table = Table(b"\nfile;label;\n;;\n\na;benign\n  \n", "t.csv")
    assert [(row.line, dict(row.cells)) for row in table] == [(5, {"file": "a", "label": "benign", "": ""})]
    assert table.notes() == ["4 empty rows of t.csv passed over"]


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [("400.5", "", 400.5), ("400,5", "", 400.5), ("-1,25", ",", -1.25), ("1,234", ",", 1.234), ("3e2", "", 300.0)],
)
def test_numbers_with_either_decimal_mark(text: str, decimal: str, value: float) -> None:
    assert number(text, decimal) == value


@pytest.mark.parametrize(("text", "decimal"), [("1,234", ""), ("1.234,5", ""), ("1,5", "."), ("1.5", ","), ("x", "")])
def test_numbers_that_may_mean_two_things_are_none(text: str, decimal: str) -> None:
    with pytest.raises(ValueError, match=r"decimal|not a number|thousands"):
        number(text, decimal)


# --- the shape "table"

HEAD = 'task = "Mine"\nclasses = ["benign", "malignant"]\nshape = "table"\n'
LAYOUT = '[layout]\nfile = "{file}"\nlabel = "label"\n'
Convert = Callable[..., TaskCard]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """`convert(table, images, layout)` writes labels.csv and 8 x 8 images, and gives the card."""

    def converted(table: str | bytes, images: str, more: str = "") -> TaskCard:
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        for at, name in enumerate(images.split()):
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (at, 0, 0)).save(path)
        (source / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "my.toml").write_text(HEAD + LAYOUT + more)
        return run(with_defaults(load(tmp_path / "my.toml")), source, tmp_path / "out")

    return converted


def labels(tmp_path: Path) -> dict[str, int]:
    rows = read_index(tmp_path / "out" / "Mine" / cards.INDEX_NAME).to_pylist()
    return {row["source"]: row["label"] for row in rows}


def test_an_image_listed_twice_is_said_and_refused_where_its_rows_differ(convert: Convert, tmp_path: Path) -> None:
    card = convert("file,label\na.png,benign\nb.png,malignant\na.png,benign\n", "a.png b.png")
    assert labels(tmp_path) == {"a.png": 0, "b.png": 1}
    assert "1 row of labels.csv repeating another row" in card.notes
    with pytest.raises(SourceError, match=r"line 4: a.png is listed twice.*labels.csv, line 2"):
        convert("file,label\na.png,benign\nb.png,malignant\nA.png,malignant\n", "a.png b.png")


def test_columns_files_and_classes_are_found_whatever_their_case(convert: Convert, tmp_path: Path) -> None:
    convert("File,LABEL\nim/A.PNG,Benign\n.\\im\\b.png,MALIGNANT\n", "im/a.png im/b.png")
    assert labels(tmp_path) == {"im/a.png": 0, "im/b.png": 1}


def test_numbers_beside_a_gap_are_the_same_classes_and_sets(convert: Convert, tmp_path: Path) -> None:
    table = "file,label,fold\na.png,1.0,0.0\nb.png,2.0,1.0\nc.png,,\n"
    more = (
        'split = "fold"\nlabels = {1 = "benign", 2 = "malignant"}\nsplits = {0 = "train", 1 = "test"}\nmissing = true\n'
    )
    convert(table, "a.png b.png c.png", more)
    assert labels(tmp_path) == {"a.png": 0, "b.png": 1}


def test_case_counts_where_two_files_differ_in_nothing_else(convert: Convert, tmp_path: Path) -> None:
    convert("file,label\na.png,benign\nA.png,malignant\n", "a.png A.png")
    assert labels(tmp_path) == {"a.png": 0, "A.png": 1}
    with pytest.raises(SourceError, match="several images of this name"):
        convert("file,label\na.PNG,benign\n", "")


def test_bare_names_in_several_folders_mean_the_images_near_the_table(convert: Convert, tmp_path: Path) -> None:
    for name, rows in {"train": ("benign", "malignant"), "test": ("malignant", "benign")}.items():
        (tmp_path / "source" / name).mkdir(parents=True)
        text = "".join(f"{number}.png,{label}\n" for number, label in enumerate(rows))
        (tmp_path / "source" / name / "all.csv").write_text(f"file,label\n{text}")
    told = "\n[files.table]\npattern = 'all.csv$'\n"
    convert("", "train/0.png train/1.png test/0.png test/1.png", told)
    assert labels(tmp_path) == {"train/0.png": 0, "train/1.png": 1, "test/0.png": 1, "test/1.png": 0}
    (tmp_path / "source" / "test" / "1.png").unlink()
    with pytest.raises(SourceError, match=r"test/all.csv, line 3: the only image of this name lies elsewhere"):
        convert("", "", told)


def test_images_in_no_row_and_rows_without_a_label_are_counted(convert: Convert, tmp_path: Path) -> None:
    table = "file,label\na.png,benign\nb.png,malignant\nc.png,\n"
    with pytest.raises(SourceError, match=r"line 4: no label in column 'label'; .*missing = true"):
        convert(table, "a.png b.png c.png d.png e.png")
    card = convert(table, "", "missing = true\n")
    assert labels(tmp_path) == {"a.png": 0, "b.png": 1}
    assert "1 row of labels.csv without a label, left out" in card.notes
    assert "not used: 2 images in no row of a table, the first d.png" in card.notes


def test_an_image_without_a_group_is_a_group_of_its_own(convert: Convert) -> None:
    card = convert(
        "file,label,patient\na.png,benign,\nb.png,malignant,\nc.png,benign,P1\n",
        "a.png b.png c.png",
        'group = "patient"\n',
    )
    assert sum(split.groups for split in card.splits.values()) == 3
    assert "2 rows of labels.csv without a group, each image a group of its own" in card.notes


def test_a_group_that_reads_as_missing_is_reported(convert: Convert) -> None:
    table = "file,label,patient\na.png,benign,NA\nb.png,malignant,NA\nc.png,benign,P1\n"
    (note,) = (note for note in convert(table, "a.png b.png c.png", 'group = "patient"\n').notes if "'NA'" in note)
    assert note.startswith("the group 'NA' reads as if none were known: its 2 images count as one group")


@pytest.mark.parametrize("error", ["#N/A", "#DIV/0!", "#NAME?"])
def test_an_error_of_a_spreadsheet_is_no_patient_but_may_stand_in_other_columns(convert: Convert, error: str) -> None:
    table, files = f"file,label,patient\na.png,benign,P1\nb.png,malignant,{error}\n", "a.png b.png"
    with pytest.raises(SourceError, match=r"labels.csv, line 3: column 'patient' holds an error of a spreadsheet"):
        convert(table, files, 'group = "patient"\n')
    convert(table, files)


@pytest.mark.parametrize("written", ['="benign"', '"=""benign"""', "benign\u200b", "\ufeff benign\u00a0"])
def test_a_text_that_excel_keeps_as_a_formula_is_that_text(convert: Convert, tmp_path: Path, written: str) -> None:
    convert(f'file,label\n="007.png",{written}\n"=""8.png""",malignant\n', "007.png 8.png")
    assert labels(tmp_path) == {"007.png": 0, "8.png": 1}


def test_a_label_that_none_of_those_named_equals_is_reported_with_them(convert: Convert) -> None:
    with pytest.raises(ManifestError, match=r"line 3: label not in `layout.labels`; expected '0', '1'; found '1.5'"):
        convert("file,label\na.png,0\nb.png,1.5\n", "a.png b.png", 'labels = {0 = "benign", 1 = "malignant"}\n')


def test_a_formula_is_no_label(convert: Convert) -> None:
    with pytest.raises(SourceError, match=r"line 2: column 'label' holds a formula, not its value; found =B2"):
        convert("file,label\na.png,=B2\nb.png,malignant\n", "a.png b.png")


@pytest.mark.parametrize("label", ["#N/A", "N/A", "?", "-", "unknown"])
def test_a_label_that_reads_as_missing_is_refused_with_what_leaves_it_out(
    convert: Convert, tmp_path: Path, label: str
) -> None:
    table, files = f"file,label\na.png,benign\nb.png,malignant\nc.png,{label}\n", "a.png b.png c.png"
    with pytest.raises(
        SourceError, match=r"leave out such rows by `skip`|say skip = .* in \[layout\]; if it is a class"
    ):
        convert(table, files, "missing = true\n")
    convert(table, files, f'skip = ["{label}"]\n')
    assert labels(tmp_path) == {"a.png": 0, "b.png": 1}


@pytest.mark.parametrize(
    "layout", ['delimiter = "x"\n', 'encoding = "klingon"\n', 'decimal = ";"\n', 'missing = "none"\n']
)
def test_a_layout_that_no_table_can_have_is_refused(convert: Convert, layout: str) -> None:
    with pytest.raises(ManifestError):
        convert("file,label\na.png,benign\n", "a.png", layout)


def test_a_file_template_that_is_a_column_s_name_is_reported() -> None:
    layout = Layout(file="image", label="label")
    with pytest.raises(ManifestError, match=r'expected file = "\{image\}"; found file = "image"'):
        stated_image({"image": "a.png", "label": "benign"}, layout, "t.csv, line 2")


def test_a_readme_beside_the_table_is_no_table(convert: Convert, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "README.txt").write_text("These images, as they are.\n")
    convert("file,label\na.png,benign\nb.png,malignant\n", "a.png b.png")
    assert len(labels(tmp_path)) == 2


def test_the_line_of_a_fault_is_that_of_the_file(convert: Convert) -> None:
    rows = "".join(f'{name}.png,"two\nlines",benign\n' for name in "ab")
    with pytest.raises(UserError, match=r"labels\.csv, line 6: no image of this name; expected c\.png"):
        convert(f"file,remark,label\n{rows}c.png,x,benign\n", "a.png b.png")


# --- templates of file names


@pytest.mark.parametrize(
    ("template", "cell", "name"),
    [
        ("{id:03}", "7", "007"),
        ("{id:03}", "0123", "0123"),
        ("{id:03d}", "7", "007"),
        ("{id:03d}", "7.0", "007"),
        ("{id:04}", "-7", "-007"),
        ("{id:d}", "7.0", "7"),
        ("{id:0>3}", "7", "007"),
        ("{id:03}", "", ""),
        ("{id}", "7", "7"),
        ("{id!r:06}", "7", "000'7'"),
    ],
)
def test_a_number_in_a_template_is_padded_from_the_left(template: str, cell: str, name: str) -> None:
    assert TEMPLATE.vformat(template, (), {"id": cell}) == name


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_padding_is_that_of_numbers_in_python(number: int, width: int) -> None:
    padded = f"{number:0{width}}"
    assert TEMPLATE.vformat(f"{{id:0{width}}}", (), {"id": str(number)}) == padded
    assert TEMPLATE.vformat(f"{{id:0{width}d}}", (), {"id": f"{number}.0"}) == padded


def test_a_template_that_needs_a_number_refuses_text(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "source" / "007.png")
    (tmp_path / "source" / "labels.csv").write_text("id,label\nseven,a\n")
    (tmp_path / "my.toml").write_text(
        'task = "Mine"\nshape = "table"\n[layout]\nfile = "{id:03d}.png"\nlabel = "label"\n'
    )
    with pytest.raises(ManifestError, match=r"does not fit the table's columns \(not a whole number: 'seven'"):
        run(with_defaults(load(tmp_path / "my.toml")), tmp_path / "source", tmp_path / "out")


def test_a_column_named_with_braces_is_reported_without_them() -> None:
    row = TableRow(2, {"file": "a", "score": "1"})
    with pytest.raises(ManifestError, match=r'no column .\{score\}.; found file, score; here .* braces: "score"'):
        column(row, "{score}", "t.csv, line 2")


# tables that are joined


JOINED = """task = "Mine"
shape = "table"
[files.joined]
pattern = 'more[^/]*\\.csv$'
[layout]
file = "{file}"
label = "label"
group = "patient"
missing = true
"""


def joined(tmp_path: Path, labels: str, more: str, manifest: str = JOINED + 'join = "case"\n') -> TaskCard:
    (tmp_path / "source").mkdir(exist_ok=True)
    for n in range(6):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / "source" / f"{n}.png")
    (tmp_path / "source" / "labels.csv").write_text(labels)
    (tmp_path / "source" / "more.csv").write_text(more)
    (tmp_path / "my.toml").write_text(manifest)
    return run(with_defaults(load(tmp_path / "my.toml")), tmp_path / "source", tmp_path / "out")


def test_columns_of_another_table_are_added_by_a_column_of_both(tmp_path: Path) -> None:
    """Whole numbers with decimals, another order, a row without a partner, one that is not used, and repeated rows."""
    labels = "file,case\n" + "".join(f"{n}.png,{n // 2 + 1}.0\n" for n in range(5)) + "5.png,\n"
    more = "patient,Case,label\nP9,9,x\nP3,3,b\nP2,2,a\nP1,1,b\nP1,1,b\n"
    card = joined(tmp_path, labels, more)
    rows = read_index(tmp_path / "out" / "Mine" / "index.parquet").to_pylist()
    assert {row["source"]: (card.classes[row["label"]], row["group"]) for row in rows} == {
        f"{n}.png": ("bab"[n // 2], f"my:P{n // 2 + 1}") for n in range(5)
    }
    assert {note for note in card.notes if "joined" in note} == {
        "1 row without a partner in the joined table",
        "1 row of the joined table not used, the first more.csv, line 2",
    }


def test_several_tables_add_their_columns(tmp_path: Path) -> None:
    labels = "file,case\n" + "".join(f"{n}.png,{n // 2}\n" for n in range(6))
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "more_patients.csv").write_text("case,patient\n0,P0\n1,P1\n2,P2\n")
    card = joined(tmp_path, labels, "case,label\n2,c\n1,b\n0,a\n")
    rows = read_index(tmp_path / "out" / "Mine" / "index.parquet").to_pylist()
    assert {row["source"]: (card.classes[row["label"]], row["group"]) for row in rows} == {
        f"{n}.png": ("abc"[n // 2], f"my:P{n // 2}") for n in range(6)
    }


@pytest.mark.parametrize(
    ("more", "manifest", "told"),
    [
        (
            "case,patient\n1,P1\n1,P2\n",
            "",
            "more.csv, line 3: two rows differ about one 'case'; found 1, also in more.csv",
        ),
        ("case,Label\n1,b\n", "", "column 'Label' differs from the one of the joined table; found 'a', and 'b'"),
        ("case,patient\n01,P1\n", "", "found '1', and '01' in more.csv, line 2; write it alike in both tables"),
        ("case,patient\n1-Jan,P1\n", "", "no row has a partner in the joined table; expected a 'case' such as '1-Jan'"),
        ("case,label\n1,b\n", "", "column 'label' differs from the one of the joined table"),
        ("id,patient\n1,P1\n", "", "more.csv: no column 'case'"),
        ("case,patient\n1,P1\n", JOINED, "[files.joined] and `join` in [layout] are stated together"),
    ],
)
def test_tables_that_cannot_be_joined_are_refused(more: str, manifest: str, told: str, tmp_path: Path) -> None:
    labels = "file,case,label\n" + "".join(f"{n}.png,1,a\n" for n in range(6))
    with pytest.raises(UserError) as error:
        joined(tmp_path, labels, more, manifest or JOINED + 'join = "case"\n')
    assert told in str(error.value)


LINES = b"""{"file": "1.png", "label": ["a", "b"], "n": 1}

{"n": 2.5, "file": " 2.png", "label": null, "ok": true}
"""


def test_json_lines_are_rows() -> None:
    table = Table(LINES, "t.jsonl")
    assert table.columns == ["file", "label", "n", "ok"]
    assert [(row.line, dict(row.cells)) for row in table] == [
        (1, {"file": "1.png", "label": "a;b", "n": "1", "ok": ""}),
        (3, {"file": "2.png", "label": "", "n": "2.5", "ok": "true"}),
    ]
    assert table.notes() == ["1 empty row of t.jsonl passed over"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": 1}\n[2]\n', "line 2: no JSON object"),
        (b'{"a": 1\n', "line 1: not readable as JSON"),
        (b'{"a": 1, "a": 2}\n', "stated twice"),
        (b'{"a": ["x;y", "z"]}\n', "a list with a value that holds ';'"),
        (b'{"a": "\xe4"}\n', "not in UTF-8"),
    ],
)
def test_json_lines_that_are_no_table_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(ReadError, match=said):
        list(Table(data, "t.jsonl"))
