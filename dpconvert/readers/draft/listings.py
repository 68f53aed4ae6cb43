"""Tables beside images: which of them names the images, and by which of its columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from dpconvert.errors import ReadError
from dpconvert.readers.draft.masks.mask_files import masks_of
from dpconvert.readers.draft.survey import Survey
from dpconvert.readers.draft.toml import quoted, some
from dpconvert.readers.draft.tree import endings
from dpconvert.readers.endings import Endings, FromRoot, whole
from dpconvert.readers.layouts.table import TEMPLATE, UPWARDS
from dpconvert.readers.nearby import Nearby
from dpconvert.source.record import hashed

Row = dict[str, str]
MOST_ROWS = 200  # looked at for how rows name images
ENOUGH = 0.9  # of the images, or of the rows
BETWEEN = ("/", "_", "-", "")


@dataclass(frozen=True)
class Listing:
    """A table whose rows name images here: the template, and row by row the image, '' without one."""

    file: str
    template: str
    rows: list[Row]
    images: list[str]
    columns: frozenset[str] = field(default_factory=frozenset)

    @property
    def matched(self) -> int:
        return len(set(self.images) - {""})

    def values(self, column: str) -> list[str]:
        """What the rows of images that are here say in a column."""
        return [row[column] for row, image in zip(self.rows, self.images, strict=True) if image]


def listings(survey: Survey) -> tuple[list[Listing], list[str]]:
    """The tables that name images, each in one way; and what is not clear about others."""
    found, unclear = [], []
    masks = masks_of(survey)
    images = [name for name in survey.images if name not in masks]
    strict, loose = Endings(images, bare=False), Endings(images)
    nearby = Nearby.of(survey.tables)
    for name in _without_submissions(survey.tables):
        try:
            rows = survey.rows(name)
        except ReadError as error:
            unclear.append(str(error))
            continue
        best = _best(rows, images, strict, nearby[name]) or _best(rows, images, loose, nearby[name])
        if len({tuple(images) for _, images in best}) > 1:
            ways = some((quoted(template) for template, _ in best), 4)
            unclear.append(f"{name} may name images in several ways: {ways}. Say in [layout] which one is `file`")
        if best:
            template, images = best[0]
            used = frozenset(part[1] for part in TEMPLATE.parse(template) if part[1])
            found.append(Listing(name, template, rows, images, used))
    return found, unclear


def _without_submissions(tables: Iterable[str]) -> list[str]:
    """The tables but for those of answers to a competition, whose labels are none, where others are here."""
    found = [name for name in tables if "submission" not in PurePosixPath(name).name.lower()]
    return found or list(tables)


def _best(rows: list[Row], images: Sequence[str], endings: Endings, nearby: Nearby) -> list[tuple[str, list[str]]]:
    """The templates that name the most images, with the image of each row; none where they name few."""
    tried = _sample(rows)
    scored: dict[str, int] = {}
    for template in _templates(rows, images):
        scored[template] = len({image for row in tried if (image := _image(template, row, endings, nearby))})
    most = max(scored.values(), default=0)
    if most < 2:
        return []
    best = [template for template, score in scored.items() if score == most]
    found = [(template, [_image(template, row, endings, nearby) for row in rows]) for template in best]
    return [(t, of) for t, of in found if len({*of} - {""}) >= ENOUGH * min(len(images), _named(t, rows))]


def _named(template: str, rows: list[Row]) -> int:
    """How many different images rows name; several rows may be about one."""
    return len({_filled(template, row) for row in rows})


def _sample(rows: list[Row]) -> list[Row]:
    """Rows from the first to the last, in an order that no pattern of the table's follows."""
    return rows if len(rows) <= MOST_ROWS else sorted(rows, key=lambda row: hashed(*row.values()))[:MOST_ROWS]


def _templates(rows: list[Row], images: Sequence[str]) -> Iterator[str]:
    """Ways in which columns may make the names of these images, the plainest first."""
    columns = [column for column in (rows[0] if rows else {}) if column and not set(column) & set("{}[].:!")]
    suffixes = ["." + ending for ending in endings(images)]
    stems = {PurePosixPath(name).stem for name in images}
    widths = {len(stem) for stem in stems} if all(map(str.isdecimal, stems)) else set()
    padded = [f":0{width}" for width in widths if len(widths) == 1 and width > 1]
    for column in columns:
        yield f"{{{column}}}"
        has_decimals = any(whole(row[column]) != row[column] for row in rows)
        without = [f"{pad or ':'}d" for pad in ("", *padded) if has_decimals]
        yield from (f"{{{column}{pad}}}{suffix}" for suffix in suffixes for pad in ("", *padded, *without))
    for (one, other), between in itertools.product(itertools.permutations(columns, 2), BETWEEN):
        yield f"{{{one}}}{between}{{{other}}}"
        yield from (f"{{{one}}}{between}{{{other}}}{suffix}" for suffix in suffixes)


def _image(template: str, row: Row, endings: Endings, nearby: Nearby) -> str:
    wanted = UPWARDS.sub("", _filled(template, row).replace("\\", "/"))
    found = FromRoot(endings.find).find(wanted) if wanted and PurePosixPath(wanted).stem else []
    found = nearby.choose(found) if len(found) > 1 else found
    return found[0] if len(found) == 1 else ""


def _filled(template: str, row: Row) -> str:
    """The name that a row has by a template; '' where its cells make none."""
    try:
        return TEMPLATE.vformat(template, (), row)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        return ""
