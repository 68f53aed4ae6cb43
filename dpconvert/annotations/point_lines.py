"""The rows of a table of points: cells as `parsing.table` reads them, or what blanks divide, without comments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from dpconvert import names
from dpconvert.annotations.parsing.coordinates import is_number
from dpconvert.annotations.parsing.lines import lines
from dpconvert.annotations.parsing.table import Comment, Dialect, records
from dpconvert.annotations.parsing.workbook import is_workbook
from dpconvert.errors import ReadError

SAMPLED = 100  # rows, from which the delimiter is determined
DELIMITERS = ("\t", ";", ",", "|", "")
Cells = tuple[int, list[str]]  # number of the line, its cells


def point_cells(data: bytes, name: str, dialect: Dialect) -> Iterator[Cells]:
    """The rows that hold anything, and their lines; `Comment` is one that holds no cells.

    A `#` before the names of the columns does not count. dialect: its delimiter is "" for blanks.

    Raises:
        ReadError: not text, or quotes that are not those of RFC 4180.
    """
    is_spaced = not dialect.delimiter and not is_workbook(data)
    found = _spaced(data, name, dialect.encoding) if is_spaced else records(data, name, dialect)
    is_head = True
    for number, cells in found:
        if not any(cells):
            continue
        if is_head and not isinstance(cells, Comment):
            cells, is_head = _without_mark(cells), False
        yield number, cells


def with_delimiter(data: bytes, name: str, dialect: Dialect, skip: int, axes: list[int] | None) -> Dialect:
    """The dialect with what divides the lines so that x and y are numbers; of several the first of DELIMITERS, and if
    none does, the most frequent one of the first row.

    skip: lines before the points. axes: the columns of x and y; None for any two.
    """
    for delimiter in DELIMITERS:
        found = replace(dialect, delimiter=delimiter)
        try:
            rows = (c for n, c in point_cells(data, name, found) if n > skip and not isinstance(c, Comment))
            sample = list(itertools.islice(rows, SAMPLED))
        except ReadError:  # quotes that are none with this delimiter
            continue
        points = sample[1:] or sample  # the first line may be a head
        if points and all(_has_numbers(cells, axes) for cells in points):
            return found
    text = "" if is_workbook(data) else next(lines(data, name, dialect.encoding), "")
    return replace(dialect, delimiter=max(",;\t|", key=text.count))


def _spaced(data: bytes, name: str, encoding: str) -> Iterator[Cells]:
    """Lines in cells that blanks divide; one that begins with `#` is a head if its cells fit the next line's."""
    numbered = enumerate(lines(data, name, encoding), start=1)
    rows = [(number, cells) for number, line in numbered if (cells := line.split())]
    for at, (number, cells) in enumerate(rows):
        bare = [cell for cell in (cells[0].removeprefix("#"), *cells[1:]) if cell]
        if not cells[0].startswith("#") or (len(bare) > 1 and all(map(is_number, bare[:2]))):
            yield number, cells
            continue
        width = next((len(row) for _, row in rows[at + 1 :] if not row[0].startswith("#")), 0)
        yield number, cells if len(cells) == width else bare if len(bare) == width else Comment([" ".join(cells)])


def _without_mark(cells: list[str]) -> list[str]:
    """The names of columns without the `#` that numpy and R write before them; other rows as they are."""
    if len(cells) < 2 or not cells[0].startswith("#") or any(map(is_number, (cells[0].strip("# "), *cells[1:]))):
        return cells
    return [names.bare(cells[0].removeprefix("#")), *cells[1:]]


def _has_numbers(cells: list[str], axes: list[int] | None) -> bool:
    """Whether there are numbers at these places, or at two at least."""
    if axes is None:
        return sum(map(is_number, cells)) >= 2
    return len(cells) > max(axes) and all(is_number(cells[axis]) for axis in axes)
