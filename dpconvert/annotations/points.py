"""Points in tables: delimited text, with decimal points or commas, by the order of the columns or by their head.

JSON and MATLAB files of points are read by `point_arrays`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import shapely

from dpconvert import names
from dpconvert.annotations.geometry import Annotation
from dpconvert.annotations.parsing.coordinates import coordinate, decimal_mark, is_number
from dpconvert.annotations.parsing.table import Comment, Dialect
from dpconvert.annotations.parsing.units import (
    Unit,
    check_names,
    check_stated,
    in_lengths,
    is_length,
    is_of_unit,
)
from dpconvert.annotations.point_boxes import EXTENT, BoxForm, place_of, with_boxes
from dpconvert.annotations.point_lines import Cells, point_cells, with_delimiter
from dpconvert.errors import ReadError
from dpconvert.plural import counted

NAMED = ("x", "y", "label", "image")
KEYS = "*"  # the name of the image, where the keys of a JSON object are the images
WIDEST = 3  # cells of a line that nothing names
LABELS = ("label", "class", "type", "category", "kind")  # in a head
ABOUT_UNITS = re.compile(r"(?i)\b(units?|coord\w*|positions?)\b")  # in a line above the points


@dataclass(frozen=True, slots=True)
class Form:
    """How points stand in a file.

    columns: what stands where: x, y, label, image, or anything else to pass over. Empty for what the head names, else
        x, y and, if `label` is not given, label.
    names: what the head (or JSON) calls them instead: x, y, label, image -> name.
    delimiter: "" for blanks, None for what divides the lines into numbers. skip: lines before the points, or before
        the head where columns are named. label: of points without one. decimal: "." or ","; "" for what is written.
    check_head: refuse columns that the head calls otherwise. encoding: of the text, "" for what its bytes say.
    sheet: of a workbook, "" for the only one with rows. boxes: what x and y are beside a width and a height.
    unit: of the coordinates; "" for pixels, unless the file says otherwise, which is refused.
    """

    columns: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    delimiter: str | None = None
    skip: int = 0
    label: str = ""
    decimal: str = ""
    check_head: bool = True
    encoding: str = ""
    sheet: str = ""
    boxes: BoxForm = ""
    unit: Unit = ""

    @property
    def of_all_images(self) -> bool:
        """Whether the file holds the points of several images and names the image of each."""
        return "image" in self.columns or "image" in self.names


@dataclass(frozen=True, slots=True)
class PointRow:
    """A point or a box: where in the file it stands, label, and the image where the file names it.

    place: x and y in pixels; of a box left, top, right and bottom.
    """

    line: int
    place: Sequence[float]
    label: str
    image: str = ""

    def annotation(self) -> Annotation:
        """The point or box as an annotation, with its line as id."""
        shape = shapely.box(*self.place) if len(self.place) == 4 else shapely.Point(self.place)
        return Annotation(shape, self.label, str(self.line))


def read_text(
    data: bytes, name: str, columns: list[str], *, delimiter: str | None = None, skip: int = 0, label: str = ""
) -> list[Annotation]:
    """One point a line; `columns` names what stands where: x, y, label, or anything else to pass over.

    delimiter: None for blanks. skip: lines of head. label: of points without a column for it.

    Raises:
        ReadError: a line that does not hold two finite numbers where they should be.
    """
    form = Form(columns, delimiter=delimiter or "", skip=skip, label=label, decimal=".", check_head=False, boxes="none")
    return [row.annotation() for row in read_rows(data, name, form)]


def read_rows(data: bytes, name: str, form: Form) -> list[PointRow]:
    """Return the points of a text with one point per line.

    Raises:
        ReadError: a line that does not hold two finite numbers where they should be, columns that the head calls
            otherwise, or numbers with commas that may be decimal or of thousands.
    """
    form = replace(form, columns=with_boxes(form.columns, form.boxes, name))
    dialect = Dialect(form.delimiter or "", form.encoding, sheet=form.sheet)
    if form.delimiter is None:
        axes = None if form.names or not form.columns else [form.columns.index(axis) for axis in "xy"]
        dialect = with_delimiter(data, name, dialect, form.skip, axes)
        form = replace(form, delimiter=dialect.delimiter)
    form, table = _headed(list(point_cells(data, name, dialect)), form, name)
    where = {column: form.columns.index(column) for column in (*NAMED, *EXTENT) if column in form.columns}
    for number, cells in table:
        if len(cells) <= max(where.values()):
            raise ReadError(
                f"line {number} has {counted(len(cells), 'column')}", where=name, expected=", ".join(form.columns)
            )
    units = [at for at, column in enumerate(form.columns) if is_of_unit(column.strip("()"))]
    for number, cells in table if units else ():
        check_stated((("unit", cells[at]) for at in units if at < len(cells)), f"{name}, line {number}", form.unit)
    lengths = [column for column in ("x", "y", *EXTENT) if column in where]
    decimal = form.decimal or decimal_mark([cells[where[one]] for _, cells in table for one in lengths], name)
    return [
        PointRow(
            number,
            place_of(
                {one: coordinate(cells[where[one]], decimal, name, number) for one in lengths},
                form.boxes,
                name,
                f"line {number}",
            ),
            label=cells[where["label"]] if "label" in where else form.label,
            image=cells[where["image"]] if "image" in where else "",
        )
        for number, cells in table
    ]


def _headed(table: list[Cells], form: Form, name: str) -> tuple[Form, list[Cells]]:
    """The form with the columns that the head names, and the lines of points.

    Raises:
        ReadError: the head calls the columns otherwise, or is shorter than the lines.
    """
    before = [row for row in table if row[0] <= form.skip]
    rest = [row for row in table if row[0] > form.skip and not isinstance(row[1], Comment)]
    _check_units([row for row in table if row[0] <= form.skip or isinstance(row[1], Comment)], form, name)
    before = [row for row in before if not isinstance(row[1], Comment)]
    if form.names:
        head, rest = (rest[0][1], rest[1:]) if rest else ([], [])
        form = replace(form, columns=_by_name(head, form, name) if head else NAMED)
        return form, _no_longer(rest, head, form, name)
    head = with_boxes([cell.casefold() for cell in before[-1][1]] if before else [], form.boxes, name)
    places = [(form.columns or NAMED).index(axis) for axis in "xy"]
    check_names((before[-1][1][place] for place in places if before and place < len(head)), name, form.unit)
    if not head and rest and not any(map(is_number, rest[0][1][:2])):  # a head that nobody said to skip
        first = with_boxes([cell.casefold() for cell in rest[0][1]], form.boxes, name)
        head, rest = (first, rest[1:]) if {"x", "y"} <= set(first) else ([], rest)
    if not {"x", "y"} <= set(head):
        if not form.columns:
            form = replace(form, columns=NAMED[:2] if form.label else NAMED[:3])
            _check_width(rest, name)
        return form, _no_halves(rest, form, name)
    rest = _no_longer(rest, head, form, name)
    if not form.columns:
        columns = _with_label(head, form, name)
        _check_twice(columns, head, name)
        return replace(form, columns=columns), rest
    if form.check_head and any(head.index(axis) != form.columns.index(axis) for axis in "xy"):
        raise ReadError(
            "the header has x and y in other columns than `columns` states",
            where=name,
            expected=", ".join(form.columns),
            found=", ".join(head),
            remedy="correct `columns` in the manifest's [layout], or say `check_head = false` if the header is wrong",
        )
    return form, rest


def _with_label(head: list[str], form: Form, name: str) -> list[str]:
    """The head with the column of the labels by our name.

    Raises:
        ReadError: no column is named label, and several may be one.
    """
    found = [word for word in LABELS if word in head]
    if len(found) > 1 and found[0] != "label" and not form.label:
        raise ReadError(
            "several columns that may hold the labels",
            where=name,
            found=", ".join(found),
            remedy=f'name one in the manifest\'s [layout]: names = {{label = "{found[0]}"}}',
        )
    return ["label" if cell in found[:1] else cell for cell in head]


def _check_twice(columns: Sequence[str], head: list[str], name: str) -> None:
    """Refuse a head in which two columns hold x, y, the labels or the images."""
    if twice := [column for column in NAMED if columns.count(column) > 1]:
        raise ReadError(
            f"two columns that hold {twice[0]}", where=name, found=", ".join(head), remedy="rename one of them"
        )


def _check_units(before: list[Cells], form: Form, name: str) -> None:
    """Refuse what the names of columns, or the lines that are skipped, say to be lengths."""
    check_names((form.names.get(axis, "") for axis in "xy"), name, form.unit)
    for number, cells in before if not form.unit else ():
        text = " ".join(cells)
        if ABOUT_UNITS.search(text) and is_length(text):
            raise in_lengths(text, f"{name}, line {number}")


def _check_width(rest: list[Cells], name: str) -> None:
    """Refuse lines with more cells than x, y and label, of which nothing says what they hold: a box, for example."""
    for number, cells in rest:
        if any(cells[WIDEST:]):
            raise unnamed(f"line {number} has {len(cells)} cells, and no header names them", name)


def unnamed(what: str, name: str) -> ReadError:
    """Return the error for points with more than x, y and label."""
    return ReadError(
        what,
        where=name,
        expected=", ".join(NAMED[:WIDEST]),
        remedy='say what they hold in the manifest\'s [layout], as in columns = ["x", "y", "score", "label"] or '
        '["xmin", "ymin", "xmax", "ymax", "label"]',
    )


def _no_longer(rest: list[Cells], head: list[str], form: Form, name: str) -> list[Cells]:
    """Lines that have no more cells than their head: a decimal comma makes two of one."""
    for number, cells in rest if form.delimiter == "," else ():
        if len(cells) > len(head) and any(cells[len(head) :]):
            raise ReadError(
                f"line {number} has {len(cells)} cells",
                where=name,
                expected=f"{len(head)}, as in its header",
                found=",".join(cells)[:60],
                remedy="decimal commas need quotes, or another delimiter",
            )
    return rest


def _no_halves(rest: list[Cells], form: Form, name: str) -> list[Cells]:
    """Lines whose two numbers cannot be four halves of decimal commas."""
    halves = form.delimiter == "," and len(form.columns) == 2 and len(rest) > 0
    if halves and all(len(cells) == 4 and all(map(str.isdecimal, cells)) for _, cells in rest):
        raise ReadError(
            "four whole numbers per line, which may be two with decimal commas",
            where=name,
            expected=", ".join(form.columns),
            found=",".join(rest[0][1])[:60],
            remedy="name all four in `columns`, or separate them by another delimiter",
        )
    return rest


def _by_name(head: list[str], form: Form, name: str) -> list[str]:
    """The head in our own words."""
    _check_twice([our for cell in head for our, theirs in form.names.items() if theirs == cell], head, name)
    named = {our: names.match(theirs, head) for our, theirs in form.names.items()}
    absent = [form.names[our] for our, column in named.items() if column is None]
    if absent:
        raise ReadError(f"no column {absent[0]!r}", where=name, found=", ".join(head))
    ours = {column: our for our, column in named.items()}
    found = [
        ours.get(cell, plain if (plain := cell.casefold()) in NAMED and plain not in named else f"({cell})")
        for cell in head
    ]
    found = with_boxes(found, form.boxes, name)
    _check_twice(found, head, name)
    if not {"x", "y"} <= set(found):
        missing = next(axis for axis in "xy" if axis not in found)
        raise ReadError(
            f"the header has no column {missing}",
            where=name,
            found=", ".join(head),
            remedy=f'name it in the manifest\'s [layout]: names = {{{missing} = "..."}}',
        )
    return found
