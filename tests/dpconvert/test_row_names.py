"""How rows of tables name images: with other endings, from other machines, and as spreadsheets changed the names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Answer
from tests.dpconvert.test_names import put

MANIFEST = """task = "Mine"
shape = "table"
classes = ["x", "y"]
[layout]
file = "{}"
label = "label"
{}
[split.strict]
share = [0.5, 0.25, 0.25]
"""
Convert = Callable[..., tuple[Answer, dict[str, int]]]


@pytest.fixture
def convert(tmp_path: Path, dpconvert: Callable[..., Answer]) -> Convert:
    """Check and convert images that a table of files and labels (x, y, x, y) names; what both say must agree."""

    def call(images: list[str], rows: list[str], file: str = "{file}", more: str = "") -> tuple[Answer, dict[str, int]]:
        source = tmp_path / "source"
        put(source, *images)
        cells = "".join(f"{row},{'xy'[n % 2]}\n" for n, row in enumerate(rows))
        (source / "labels.csv").write_text(f"file,label\n{cells}", encoding="utf-8")
        (tmp_path / "m.toml").write_text(MANIFEST.format(file, more))
        checked = dpconvert("check", tmp_path / "m.toml", "--source", source, "-q")
        made = dpconvert(tmp_path / "m.toml", "--source", source, "--out", tmp_path / "out", "--workers", 1)
        assert checked.code == made.code, (checked, made)
        if made.code:
            return made, {}
        index = read_index(tmp_path / "out" / "Mine" / "index.parquet").to_pylist()
        return made, {row["source"]: row["label"] for row in index}

    return call


PLAIN = ["a.png", "b.png", "c.png", "d.png"]


@pytest.mark.parametrize(
    ("images", "rows", "notes"),
    [
        (PLAIN, ["a", "b", "c", "d"], []),
        (PLAIN, ["a.JPG", "b.tif", "c", "d.png"], ["2 images found by the name without its ending"]),
        (["S.1.png", "S.2.png", "S.3.png", "S.4.png"], ["S.1", "S.2", "S.3", "S.4"], []),
        (
            ["p/a.tif.png", "p/b.tif.png", "q/a.tif.png", "q/b.tif.png"],
            ["p/a.tif", "p/b.tif", "q/a.tif", "q/b.tif"],
            [],
        ),
        (PLAIN, [f"file:///home/m%C3%BCller/set/{name}" for name in PLAIN], ["begin with home/m\u00fcller/set/"]),
        (PLAIN, [f"file:///C:/set/{name}" for name in PLAIN], ["begin with C:/set/"]),
        (PLAIN, [f"\\\\server\\share\\{name}" for name in PLAIN], ["begin with server/share/"]),
        (PLAIN, [f"D:\\set\\{name[0]}.TIF" for name in PLAIN], ["begin with D:/set/", "found by the name without"]),
    ],
)
def test_rows_name_images_without_their_endings_and_from_other_machines(
    images: list[str], rows: list[str], notes: list[str], convert: Convert
) -> None:
    made, found = convert(images, rows)
    assert found == {name: n % 2 for n, name in enumerate(images)}
    told = made.out + made.err
    assert all(note in told for note in notes), told
    assert ("without its ending" in told) == any("without" in note for note in notes)


def test_a_name_without_an_ending_that_two_images_have_is_refused(convert: Convert) -> None:
    assert "several images of this name; expected a; found a.png, a.tif" in convert([*PLAIN, "a.tif"], ["a"])[0].err


@pytest.mark.parametrize(
    ("image", "row", "advice"),
    [
        ("0007.png", "7", '0007.png is here: let `file` in [layout] write numbers so, as in file = "{number:04}.png"'),
        ("0007.png", "7.0", 'as in file = "{number:04d}.png"'),
        ("12345.png", "12345.0", 'as in file = "{number:d}.png"'),
        ("120000.png", "1.2E+05", "a spreadsheet took this name for a number, and rounded it"),
        ("5e10.png", "5.00E+10", "a spreadsheet took this name for a number"),
        ("12345678901234567.png", "12345678901234570", "a spreadsheet took this name for a number, and rounded it"),
        ("MARCH1.png", "1-Mar", "a spreadsheet took this name for a date"),
        ("SEPT2.png", "Sep-02", "a spreadsheet took this name for a date"),
        ("3-1-24.png", "2024-03-01", "a spreadsheet took this name for a date"),
        ("a.png", "b", "if some images are not here, say `missing = true`"),
    ],
)
def test_a_name_that_a_spreadsheet_changed_is_refused_with_the_remedy(
    image: str, row: str, advice: str, convert: Convert
) -> None:
    assert f"line 2: no image of this name; expected {row}; " in (answer := convert([image], [row])[0].err)
    assert advice in answer
    assert advice in convert([image], [row], more="missing = true")[0].err or "missing" in advice


def test_a_changed_name_is_refused_even_if_images_may_be_missing(convert: Convert) -> None:
    """Unless its image is in another row."""
    more = "missing = true"
    assert (
        "line 3: no image of this name; expected 7; 0007.png"
        in convert(["a.png", "0007.png"], ["a", "7"], more=more)[0].err
    )


def test_an_absent_image_whose_like_is_in_another_row_is_left_out(convert: Convert) -> None:
    made, found = convert(["0007.png", "b.png"], ["0007", "b", "7"], more="missing = true")
    assert (made.code, found) == (0, {"0007.png": 0, "b.png": 1})


@pytest.mark.parametrize(("form", "rows"), [(":04", "7 8 123 1234"), (":04d", "7.0 8 123.0 1234")])
def test_the_remedies_for_numbers_work(form: str, rows: str, convert: Convert) -> None:
    images = ["0007.png", "0008.png", "0123.png", "1234.png"]
    made, found = convert(images, rows.split(), f"{{file{form}}}.png")
    assert (made.code, found) == (0, {name: n % 2 for n, name in enumerate(images)})


@pytest.mark.parametrize(
    ("rows", "file"),
    [
        (["C:\\x\\0007.png", "C:\\x\\0008.png", "C:\\x\\0123.png", "C:\\x\\1234.png"], "{file}"),
        (["0007.jpg", "0008.jpg", "0123.jpg", "1234.jpg"], "{file}"),
        (["7.0", "8.0", "123.0", "1234.0"], "{file:04d}.png"),
    ],
)
def test_init_drafts_what_a_conversion_reads(
    rows: list[str], file: str, convert: Convert, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    convert(["0007.png", "0008.png", "0123.png", "1234.png"], rows, file)
    assert dpconvert("init", tmp_path / "source", "--out", tmp_path / "draft.toml").code == 0
    assert f'file = "{file}"' in (tmp_path / "draft.toml").read_text()


@pytest.mark.parametrize(
    ("label", "is_date"), [("1-Feb", True), ("Mar-01", True), ("2024-02-01", True), ("1-2", False)]
)
def test_a_label_that_a_spreadsheet_made_a_date_of_is_refused_unless_it_is_named(
    label: str, is_date: bool, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    put(tmp_path / "source", *PLAIN)
    rows = "".join(f"{name},{label if n % 2 else 'x'}\n" for n, name in enumerate(PLAIN))
    (tmp_path / "source" / "labels.csv").write_text(f"file,label\n{rows}")
    (tmp_path / "m.toml").write_text(MANIFEST.format("{file}", "").replace('classes = ["x", "y"]\n', ""))
    for words in (["check"], []):
        out = [] if words else ["--out", tmp_path / "out", "--workers", 1]
        answer = dpconvert(*words, tmp_path / "m.toml", "--source", tmp_path / "source", *out, "-q")
        assert answer.code == int(is_date), answer
        assert (f"b.png: the label '{label}' reads like a date, which spreadsheets make of" in answer.err) == is_date
    drafted = dpconvert("init", tmp_path / "source", "--out", tmp_path / "draft.toml")
    assert ("Classes that read as dates" in drafted.err) == is_date
    (tmp_path / "m.toml").write_text(MANIFEST.format("{file}", "").replace('"y"', f'"{label}"'))
    assert dpconvert("check", tmp_path / "m.toml", "--source", tmp_path / "source", "-q").code == 0


@pytest.mark.parametrize("name", ["labels.xls", "labels.ods", "labels.xlsb"])
def test_a_table_in_a_format_that_is_not_read_is_reported(
    name: str, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    put(tmp_path / "source", *PLAIN, name)
    (tmp_path / "m.toml").write_text(MANIFEST.format("{file}", ""))
    answer = dpconvert("check", tmp_path / "m.toml", "--source", tmp_path / "source", "-q")
    assert f"save {name} as CSV in UTF-8, or as .xlsx: its format is not read" in answer.err


def test_a_number_with_other_decimals_is_no_whole_number_without_them(convert: Convert) -> None:
    """12.05 is not 125: the row is missing, as it says; and the image that no row names is left out."""
    images = [*PLAIN, "125.png"]
    answer, found = convert(images, ["a", "b", "c", "12.05"], "{file}.png", "missing = true")
    assert answer.code == 0, answer.err
    assert set(found) == {"a.png", "b.png", "c.png"}
