"""Which other tables say more of the images of one table: patients and sets beside labels, or facts of each patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dpconvert.errors import ReadError
from dpconvert.names import alike
from dpconvert.readers.draft.listings import Listing, Row
from dpconvert.readers.draft.survey import Survey
from dpconvert.readers.draft.toml import some

COVERED = 0.9  # of the rows of images, which have a partner


@dataclass(frozen=True)
class Join:
    """A table that says more of the rows of another one: the column `by` that both have, and the columns it adds."""

    file: str
    by: str
    columns: tuple[str, ...]
    rows: dict[str, Row]

    def added(self, row: Row) -> Row:
        """A row of images with the columns of this table, empty without a partner."""
        found = self.rows.get(row[self.by], {})
        return row | {column: found.get(column, "") for column in self.columns}


def joined(survey: Survey, main: Listing, others: Sequence[Listing]) -> tuple[Listing, list[Join], list[str]]:
    """The table with the columns that others add to it, those tables, and what speaks against others that name images.

    All are joined by one column.
    """
    joins: list[Join] = []
    unclear: list[str] = []
    named = {other.file for other in others}
    for file in survey.tables:
        try:
            rows = survey.rows(file) if file != main.file else []
        except ReadError:
            continue
        if not rows:
            continue
        found = _join(main, file, rows, {column for join in joins for column in join.columns})
        if found is not None and found.by not in main.columns:  # numbers of patients may also be names of images
            named -= {file}
        if file in named and (differing := _differing(main, next(one for one in others if one.file == file))):
            unclear.append(
                f"{main.file} and {file} differ about the same images in the column {differing!r}. Name "
                "the right one in the pattern of [files.table], or correct the other"
            )
            continue
        if found is not None and all(join.by == found.by for join in joins):
            joins += [found] * bool(found.columns)
        elif file in named:
            unclear.append(
                f"Several tables name images: {some([main.file, file])}. Name the right one in the pattern of "
                "[files.table]"
            )
    rows = main.rows
    for join in joins:
        rows = [join.added(row) for row in rows]
    return replace(main, rows=rows), joins, unclear


def _differing(main: Listing, other: Listing) -> str:
    """A column of both tables that says different things of one image, or ''."""
    of_image = dict(zip(main.images, main.rows, strict=True))
    shared = [column for column in main.rows[0] if column in other.rows[0] and column]
    for image, row in zip(other.images, other.rows, strict=True):
        if image and (mine := of_image.get(image)):
            differing = [column for column in shared if alike(mine[column]) != alike(row[column])]
            if differing:
                return differing[0]
    return ""


def _join(main: Listing, file: str, rows: list[Row], taken: set[str]) -> Join | None:
    """How a table is joined: by the column of both that tells its rows apart and that nearly all images have."""
    shared = [column for column in main.rows[0] if column and column in rows[0]]
    new = tuple(column for column in rows[0] if column and column not in main.rows[0] and column not in taken)
    for by in shared:
        by_key = {row[by]: row for row in rows if row[by]}
        covered = sum(row[by] in by_key for row in main.rows)
        equal = all(by_key[row[by]] == row for row in rows if row[by])
        agree = all(
            alike(row[column]) == alike(by_key[row[by]][column])
            for row in main.rows
            if row[by] in by_key
            for column in shared
        )
        if len(by_key) > 1 and equal and agree and covered >= COVERED * len(main.rows):
            return Join(file, by, new, by_key)
    return None
