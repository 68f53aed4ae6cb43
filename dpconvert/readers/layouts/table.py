"""Shape "table": a CSV or TSV file, or an Excel workbook, with a row for each image and its label.

[files.table] and [files.images] say which files these are; [files.joined], tables with further columns. Where no cell
names the group or split, the named groups `group` and `split` of the pattern of [files.table] (train.csv, test.csv)
do, or else those of [files.images].
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpconvert import names
from dpconvert.annotations.parsing.table import Cells, Table, TableRow, column
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.files import FileKind
from dpconvert.plural import counted
from dpconvert.readers.endings import Endings, FromRoot
from dpconvert.readers.joined import JoinedTables, tables_of
from dpconvert.readers.labels import ALL, InColumns, LabelColumns
from dpconvert.readers.layout_keys import (
    Attributes,
    Missing,
    SetLists,
    Tabular,
    layout_of,
    never_named,
    refuse_missing_none,
)
from dpconvert.readers.nearby import Nearby
from dpconvert.readers.pairing import IMAGE, stem
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

FILES = {
    "table": FileKind(
        pattern=r"(?i)^(?!readme|licen[cs]e|notice|citation)[^/]+\.(csv|tsv|txt|xls[xm])$",
        what="table of images",
        example="labels.csv",
    ),
    "images": FileKind(pattern=rf"(?i)\.{IMAGE}$", what="images", example="images/0001.png"),
}
MORE_FILES = ("joined", "sets")
ERRORS = {"#N/A", "#DIV/0", "#REF", "#VALUE", "#NAME", "#NUM", "#NULL"}
FORMULA = re.compile(r"=(?=.)")
TARGETS = ALL
GROUPS = {"sets": {"split"}, "joined": set[str](), "table": {"group", "split"}, "images": {"group", "split"}}
UPWARDS = re.compile(r"^(\.\./)+")
PADDED = re.compile(r"0(?P<width>[1-9]\d*)(?P<whole>d?)|(?P<plain>d)")
WHOLE = re.compile(r"([-+]?\d+)(\.0+)?", re.ASCII)


class Template(string.Formatter):
    """`str.format` over cells, which are text: `{id:03}` and `{id:03d}` fill up from the left, 7 to 007.

    By itself, Python fills up text from the right: `"{:03}".format("7")` is 700.
    """

    def format_field(self, value: Any, format_spec: str) -> str:
        """The cell by its format; with `d`, it must be a whole number, and 7.0 is 7.

        Raises:
            ValueError: The cell is not a whole number.
        """
        spec = PADDED.fullmatch(format_spec)
        if spec is None or not isinstance(value, str):
            return str(super().format_field(value, format_spec))
        if spec["plain"] or spec["whole"]:
            number = WHOLE.fullmatch(value)
            if number is None:
                raise ValueError(f"not a whole number: {value!r}")
            value = number[1]
        return value.zfill(int(spec["width"] or 0)) if value else ""


TEMPLATE = Template()


class Layout(LabelColumns, Tabular, SetLists, Attributes):
    """`[layout]` of a manifest of this shape."""

    file: str
    """Template over the columns that gives the image of a row, such as `"{slide}/{uid}.png"`, or `"{id:03}.bmp"`, which
    pads 7 to 007; compared with the end of file names.
    """
    group: str = ""
    """Column of the patient or slide; every image is its own group if not given."""
    split: str = ""
    """Column of the split."""
    join: str = ""
    """Column by which the rows of the tables of [files.joined] are added to those of [files.table], such as
    `"patient"`; both have it, and names of columns above may be of either.
    """
    missing: Missing = "error"
    """Rows without an image or a label: `"error"` (or `false`) refuses them, `"skip"` (or `true`) leaves them out and
    counts them; `"none"` is refused.
    """


@dataclass
class _ListedImages:
    """What the tables have said so far.

    files: the images that are here. endings: how rows name them. images: file -> what a row says of it, and where.
    labels: those met. skipped: files of rows that are left out. absent: where a row is -> the image that it names and
    that is not here. rows: how many of the present table's rows are worth a note. table: the present table. nearby:
    which images it means by names that several have.
    """

    files: dict[str, MatchedFile]
    endings: Endings
    images: dict[str, tuple[SourceImage, str]] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    rows: Counter[str] = field(default_factory=Counter)
    absent: dict[str, str] = field(default_factory=dict)
    table: MatchedFile | None = None
    nearby: Nearby = field(default_factory=lambda: Nearby(""))

    def named(self, part: str, file: str) -> str:
        """What the present table's name says, else that of an image."""
        return (self.table.get(part) if self.table else "") or self.files[file].get(part)


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    refuse_missing_none(source.manifest, layout.missing)
    columns = InColumns(source.manifest, layout, layout.decimal)
    files = {found.name: found for found in source.need("images")}
    endings = Endings(files)
    images, listed = FromRoot(endings.find), _ListedImages(files, endings)
    tables, joined = tables_of(source), JoinedTables.of(source, layout.join, layout.dialect)
    nearby, rows = Nearby.of(found.name for found in tables), 0
    for found in tables:
        listed.table, listed.nearby = found, nearby[found.name]
        table = Table(source.read(found.name), found.name, layout.dialect)
        for row in table:
            rows += 1
            where = f"{found.name}, line {row.line}"
            _add(joined.added(row, where), layout, columns, images, listed, where)
        listed.nearby.check()
        source.notes += [f"{counted(n, 'row')} of {found.name} {what}" for what, n in listed.rows.items() if n]
        source.notes += table.notes()
        listed.rows.clear()
    joined.check(rows)
    if listed.absent and not (listed.images or listed.skipped):
        _only([], listed.absent[first := next(iter(listed.absent))], first, endings)
    _refuse_changed(listed)
    _tell_unlisted(source, listed, layout)
    source.notes += [*joined.notes(), *images.notes(), *endings.notes(), *columns.notes()]
    source.notes += [*never_named(layout, ("labels", "skip", "none"), listed.labels), *layout.unmet()]
    for image, _ in listed.images.values():
        yield image


def _add(
    row: TableRow, layout: Layout, columns: InColumns, images: FromRoot, listed: _ListedImages, where: str
) -> None:
    """Add one row."""
    cells = columns.cells(lambda column: cell(row, column, where, layout.skip))
    listed.labels.update(columns.parts(cells))
    wanted = stated_image(row.cells, layout, where)
    found = listed.nearby.of_row(images.find(UPWARDS.sub("", wanted.replace("\\", "/"))), wanted, where)
    if columns.skipped(cells):
        listed.rows["that `skip` names, left out"] += columns.target != "class"
        listed.skipped.update(found)
    elif layout.missing == "skip" and not found:
        listed.rows["without an image here"] += 1
        listed.absent.setdefault(where, wanted)
    elif layout.missing == "skip" and columns.lacking(cells) is not None:
        listed.rows["without a label, left out"] += 1
        listed.skipped.update(found)
    else:
        label = columns.label(cells, where)
        _add_image(
            _source_image(row, layout, label, _only(found, wanted, where, listed.endings), listed, where), listed, where
        )


def _only(found: Sequence[str], wanted: str, where: str, endings: Endings) -> str:
    if len(found) != 1:
        what = "several images of this name" if found else "no image of this name"
        remedy = None if found else endings.advice(names.file_name(wanted))
        raise SourceError(
            what, where=where, expected=names.file_name(wanted), found=", ".join(found[:3]) or None, remedy=remedy
        )
    return found[0]


def _add_image(image: SourceImage, listed: _ListedImages, where: str) -> None:
    file = image.files[0]
    known, before = listed.images.setdefault(file, (image, where))
    if known != image:
        raise SourceError(f"{file} is listed twice, with different values", where=where, found=f"also in {before}")
    listed.rows["repeating another row"] += before != where


def _source_image(
    row: TableRow, layout: Layout, label: str, file: str, listed: _ListedImages, where: str
) -> SourceImage:
    group = (cell(row, layout.group, where) if layout.group else "") or listed.named("group", file)
    listed.rows["without a group, each image a group of its own"] += bool(layout.group and not group)
    split = (cell(row, layout.split, where) if layout.split else "") or listed.named("split", file)
    attributes = layout.values_of(lambda name: cell(row, name, where))
    return SourceImage(
        stem(file), (file,), group or file, label=label, split=layout.set_of(split, where), attributes=attributes
    )


def stated_image(row: Cells, layout: Layout, where: str) -> str:
    """The image that a row names."""
    if layout.file in row:
        raise ManifestError(
            "file: a column without braces is taken literally",
            where=where,
            expected=f'file = "{{{layout.file}}}"',
            found=f'file = "{layout.file}"',
        )
    return filled(layout.file, row, where, "file")


def filled(template: str, row: Cells, where: str, key: str) -> str:
    """The name that the cells of a row make by a template. key: that of [layout] which holds it.

    Raises:
        ManifestError: the template does not fit the columns.
        SourceError: it makes an empty name.
    """
    try:
        wanted = TEMPLATE.vformat(template, (), row)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ManifestError(
            f"{key}: {template!r} does not fit the table's columns ({error})", where=where, found=", ".join(row)
        ) from None
    if not names.file_name(wanted):
        raise SourceError("names no image", where=where, found=f"{template!r} gives an empty name")
    return wanted


def _refuse_changed(listed: _ListedImages) -> None:
    """Refuse rows whose image would be here, in no other row, if a spreadsheet had not changed its name."""
    used = listed.images.keys() | listed.skipped
    for where, wanted in listed.absent.items():
        if set(listed.endings.near(wanted)) - used:
            _only([], wanted, where, listed.endings)


def _tell_unlisted(source: Source, listed: _ListedImages, layout: Layout) -> None:
    """Refuse images in no row, or count them where the manifest says that images may lack a label."""
    used = listed.images.keys() | listed.skipped
    unlisted = [found.name for found in source.match("images") if found.name not in used]
    if unlisted and layout.missing == "error":
        raise SourceError(
            f"{counted(len(unlisted), 'image')} in no row of a table",
            where=unlisted[0],
            remedy="if only some images are labelled, say `missing = true` in [layout]; if these are no images of the "
            "task, narrow the pattern of [files.images]",
        )
    if unlisted:
        source.notes.append(
            f"not used: {counted(len(unlisted), 'image')} in no row of a table, the first {unlisted[0]}"
        )


def cell(row: TableRow, wanted: str, where: str, skip: Sequence[str] = ()) -> str:
    """A row's text in a column. skip: texts that may be whatever they are.

    Raises:
        ManifestError: The table has no such column.
        SourceError: The cell holds a formula, or an error of a spreadsheet, which is no value.
    """
    text = row.cells[column(row, wanted, where)]
    if text in skip:
        return text
    if FORMULA.match(text):
        raise SourceError(
            f"column {wanted!r} holds a formula, not its value",
            where=where,
            found=text,
            remedy="let the program that wrote the table write values",
        )
    if text.rstrip("!?") in ERRORS:
        raise SourceError(
            f"column {wanted!r} holds an error of a spreadsheet",
            where=where,
            found=text,
            remedy="correct the formula, empty the cell, or leave out such rows by `skip` in [layout]",
        )
    return text
