"""The head of a table of points: which columns hold x, y and the label; and tables of points that are each beside an
image.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from dpconvert.annotations.point_boxes import with_boxes
from dpconvert.annotations.points import LABELS
from dpconvert.errors import ReadError
from dpconvert.readers.draft import coordinates, label_kinds
from dpconvert.readers.draft.survey import Survey, stem

UNIT = r"px|pixels?"
MIDDLE = r"cent(?:er|re)|centroid|coord\w*|pos\w*"
AXES = {
    axis: re.compile(
        rf"(?i){axis}|c{axis}|{axis}[-_ ]?(?:{MIDDLE}|px|pixels?)|(?:{MIDDLE})[-_ ]?{axis}(?:[-_ ]?(?:px|pixels?))?"
    )
    for axis in "xy"
}
MICROMETRES = re.compile(r"(?i)[\W_]+(?:[µμu]m|microns?|micromet(?:er|re)s?)[\W_]*$")  # at the end of a column
IMAGES = ("image", "filename", "file", "slide")  # in a head of a file that is about one image


def axes_of(columns: Sequence[str]) -> dict[str, str]:
    """x and y -> the columns that hold them, where each is one."""
    for bare in (str, lambda column: MICROMETRES.sub("", column)):
        found = {axis: [one for one in columns if pattern.fullmatch(bare(one))] for axis, pattern in AXES.items()}
        if axes := {axis: of[0] for axis, of in found.items() if len(of) == 1}:
            return axes
    pairs = coordinates.pairs(columns)
    return dict(zip("xy", pairs[0], strict=True)) if len(pairs) == 1 else {}


def has_boxes(columns: Sequence[str]) -> bool:
    """Whether columns hold two corners, which need no names."""
    return not {"x", "y"} <= {*map(str.casefold, columns)} and {"x", "y"} <= {*with_boxes(columns, "none", "")}


def label_of(values: Mapping[str, Sequence[str]], taken: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The column of labels, where it is clear; else those that may be it.

    values: column -> its cells. taken: columns that hold something else.
    """
    labels = [column for column in values if column.casefold() in LABELS]
    few = [
        column
        for column, cells in values.items()
        if column not in taken and len(set(cells)) > 1 and not label_kinds.is_measured(column, cells)
    ]
    chosen = labels if len(labels) == 1 else few if len(few) == 1 and not labels else []
    return ({"label": chosen[0]}, ()) if chosen else ({}, tuple(few))


def called_on(survey: Survey, images: Collection[str]) -> tuple[str, list[str]]:
    """What stands behind the names of images in the names of tables of points, as in `1_detections.csv`; and these."""
    tables = [name for name, table in survey.tables.items() if len(axes_of(table.columns)) == len(AXES)]
    behind = {
        stem(name)[len(image) :] for name in tables for image in images if stem(name).casefold().startswith(image)
    }
    for suffix in sorted(behind - {""}):
        cut = [stem(name).removesuffix(suffix).casefold() for name in tables if stem(name).endswith(suffix)]
        if len(cut) == len(tables) and {*cut} <= {*images}:
            return suffix, tables
    return "", []


def names_in(survey: Survey, files: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What the head of these tables, which is one, calls x, y and the label, and columns that may be the label.

    Nothing where it calls them x and y, which needs no saying, or does not tell them.
    """
    if not {*files} <= {*survey.tables} or len({tuple(survey.tables[name].columns) for name in files}) > 1:
        return {}, ()
    columns = [column for column in survey.tables[files[0]].columns if column]
    axes = {} if has_boxes(columns) else axes_of(columns)
    try:
        rows = [row for name in files for row in survey.rows(name)]
    except ReadError:
        return {}, ()
    if len(axes) < len(AXES) or not rows or {*AXES} <= {*map(str.casefold, columns)}:
        return {}, ()
    pictures = [column for column in columns if column.casefold() in IMAGES]
    label, other = label_of({column: [row[column] for row in rows] for column in columns}, {*axes.values(), *pictures})
    return {**axes, **label}, other
