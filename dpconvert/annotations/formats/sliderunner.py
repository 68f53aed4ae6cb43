"""SlideRunner databases (SQLite) of MIDOG, CCMCT and CMC: several slides, level-0 pixels, y down.

https://github.com/DeepMicroscopy/SlideRunner. Types: 1 spot, 2 area (two corners), 3 polygon, 4 special spot, 5 circle
(two corners of its frame). The label is the class that was agreed upon. Deleted annotations are left out.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing
from typing import Any

import shapely

from dpconvert.annotations import marks
from dpconvert.annotations.geometry import Geometry, ellipse, polygon
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing.xml_tree import FARTHEST
from dpconvert.errors import ReadError

STEPS, MOST_STEPS = 1_000_000, 3_000  # instructions of the engine between two looks; looks
MOST_POSITIONS = 10_000_000
KINDS = {1: "spot", 2: "area", 3: "polygon", 4: "spot", 5: "circle"}


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the slides of the database.

    Raises:
        ReadError: The content is not such a database.
    """
    try:
        with closing(sqlite3.connect(":memory:")) as base:
            base.deserialize(data)
            base.execute("PRAGMA trusted_schema = OFF")
            base.execute("PRAGMA query_only = ON")
            base.set_progress_handler(_patience(), STEPS)
            return _slides(base, name)
    except (sqlite3.Error, OverflowError, ValueError) as error:
        raise ReadError(f"a database that cannot be read: {error}", where=name) from None


def _patience() -> Callable[[], bool]:
    """Return a progress handler that stops the engine when a query takes too long, as on a malicious file."""
    looks = itertools.count()
    return lambda: next(looks) > MOST_STEPS


def _slides(base: sqlite3.Connection, name: str) -> list[ListedImage]:
    classes = dict(base.execute("SELECT uid, name FROM Classes").fetchall())
    columns = {str(row[1]) for row in base.execute("PRAGMA table_info(Annotations)")}
    rows = base.execute(
        "SELECT a.slide, a.uid, a.type, a.agreedClass, c.coordinateX, c.coordinateY "
        "FROM Annotations a JOIN Annotations_coordinates c ON c.annoId = a.uid "
        + ("WHERE COALESCE(a.deleted, 0) = 0 " if "deleted" in columns else "")
        + "ORDER BY a.uid, c.orderIdx, c.uid"
    ).fetchmany(MOST_POSITIONS + 1)
    if len(rows) > MOST_POSITIONS:
        raise ReadError("too many positions", where=name, expected=f"at most {MOST_POSITIONS}")
    drawn: dict[Any, list[ListedShape]] = defaultdict(list)
    remarks: dict[Any, Counter[str]] = defaultdict(Counter)
    for (slide, uid, kind, agreed), group in itertools.groupby(rows, key=lambda row: row[:4]):
        points = [_position(row, name) for row in group]
        shape = _shape(kind, points, remarks[slide])
        if shape is not None:
            drawn[slide].append(ListedShape(shape, (str(classes.get(agreed) or ""),), str(uid)))
    slides = base.execute("SELECT uid, filename, width, height FROM Slides").fetchall()
    return [
        ListedImage(str(file), (float(w), float(h)) if w and h else None, drawn[uid], remarks[uid])
        for uid, file, w, h in slides
    ]


def _position(row: tuple[Any, ...], name: str) -> tuple[float, float]:
    x, y = row[4:]
    if not all(isinstance(value, int | float) and abs(value) < FARTHEST for value in (x, y)):
        raise ReadError("an invalid coordinate", where=name, found=f"({x!r}, {y!r})"[:60])
    return float(x), float(y)


def _shape(kind: Any, points: list[tuple[float, float]], remarks: Counter[str]) -> Geometry | None:
    shape = KINDS.get(kind, str(kind))
    if shape == "spot":
        return shapely.Point(points[0])
    if shape == "polygon":
        return polygon(points, remarks)
    if shape not in ("area", "circle") or len(points) < 2:
        marks.pass_over(shape, remarks)
        return None
    left, top, right, bottom = shapely.MultiPoint(points[:2]).bounds
    if shape == "circle":
        return ellipse((left, top, right, bottom), remarks)
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], remarks)
