"""Coordinates in the columns of a table with one row per image: points on the images, or their places on slides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress

from dpconvert.annotations.points import LABELS
from dpconvert.errors import ReadError
from dpconvert.readers.draft.listings import Listing
from dpconvert.readers.draft.survey import Survey
from dpconvert.readers.draft.toml import some, table

LOOKED_AT = 20  # images whose size is compared with the coordinates
ORDERED = (  # of scikit-image, centroid-0 is the row
    ("col", "row"),
    ("column", "row"),
    ("cols", "rows"),
    ("left", "top"),
    ("lon", "lat"),
    ("centroid-1", "centroid-0"),
)


def pairs(columns: Iterable[str]) -> list[tuple[str, str]]:
    """The columns of x and y: those whose names differ in these letters alone, and others that come in pairs.

    A column may be of two pairs only if its name holds several letters x.
    """
    named = {column.casefold(): column for column in columns}
    found = [
        (column, named[other])
        for plain, column in named.items()
        for at, letter in enumerate(plain)
        if letter == "x" and (other := f"{plain[:at]}y{plain[at + 1 :]}") in named
    ]
    return found + [(named[x], named[y]) for x, y in ORDERED if {x, y} <= named.keys()]


def questions(survey: Survey, listing: Listing) -> tuple[list[str], list[str]]:
    """What to ask, and what to remark, of columns that hold coordinates of the images that are here."""
    asked, remarks = [], []
    for x, y in pairs(listing.rows[0]):
        places = _numbers(listing, x, y)
        if not places:
            continue
        columns = f"The columns {x!r} and {y!r} of {listing.file}"
        if _inside(survey, places):
            asked.append(
                f"{columns} lie within the images, so they may be points or boxes on them, with the label of the row: "
                f'if so, this needs shape = "points" and {_names(listing, x, y)}. If they are places of the images on '
                "their slides, nothing need change"
            )
        else:
            remarks.append(
                f"{columns} lie beyond the images: they are taken for places of the images on their slides, and are "
                "not used."
            )
    return asked[:1], remarks[:1]


def _names(listing: Listing, x: str, y: str) -> str:
    """What the shape points needs to know of the columns."""
    if len(listing.columns) > 1:
        columns = some(column for column in listing.rows[0] if column in listing.columns)
        return f"one column that names the image, in place of {columns}"
    labels = [column for column in listing.rows[0] if column.casefold() in LABELS]
    named = {"image": "".join(listing.columns), "x": x, "y": y, **({"label": labels[0]} if len(labels) == 1 else {})}
    return f"names = {table(named)} under [layout]"


def _numbers(listing: Listing, x: str, y: str) -> list[tuple[str, float, float]]:
    """Image, x and y of each row; empty if some are not numbers, or if they are fewer than two different places."""
    found = []
    for row, image in zip(listing.rows, listing.images, strict=True):
        if image:
            try:
                place = float(row[x].replace(",", ".")), float(row[y].replace(",", "."))
            except ValueError:
                return []
            if not all(map(math.isfinite, place)):
                return []
            found.append((image, *place))
    return found if len({place[1:] for place in found}) > 1 else []


def _inside(survey: Survey, places: Sequence[tuple[str, float, float]]) -> bool:
    """Whether every place lies in its image, as far as images are looked at."""
    for image, x, y in itertools.islice(places, LOOKED_AT):
        with suppress(ReadError):
            opened = survey.source.open_image((image,), 0)
            if not (0 <= x <= opened.width and 0 <= y <= opened.height):
                return False
    return True
