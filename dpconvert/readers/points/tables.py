"""Tables whose rows name the images that their points are on."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from dpconvert import names
from dpconvert.annotations import Annotation
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.parsing.table import Dialect, Table
from dpconvert.annotations.point_arrays import content_of
from dpconvert.annotations.points import KEYS, PointRow
from dpconvert.errors import ManifestError, ReadError, SourceError
from dpconvert.plural import counted
from dpconvert.readers.endings import Endings, FromRoot
from dpconvert.readers.nearby import Nearby
from dpconvert.readers.pairing import no_partner, stem
from dpconvert.readers.points.layout import Layout, source_image_of
from dpconvert.readers.points.point_files import is_json, rows_of
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

OF_IMAGES = re.compile(r"(?i)(image|img|file|slide|picture|tile|patch)s?([ _-]?(name|id|path|file))?")


def images_of_tables(source: Source, layout: Layout) -> Iterator[SourceImage]:
    """Each image with its points in the tables."""
    images = source.need("images")
    by_ending = images_by_ending(images)
    endings = Endings(image.name for image in images)
    named = FromRoot(lambda name: by_ending.get(names.folded(name)) or endings.find(name))
    absent: dict[str, str] = {}  # image that is not here -> the first row that names it
    rows: dict[str, list[PointRow]] = defaultdict(list)
    files: dict[str, str] = {}
    elsewhere = 0
    nearby = Nearby.of(table.name for table in source.need("points"))
    for table in source.need("points"):
        for row in rows_of(annotation_files.unpacked(source.read(table.name), table.name), table.name, layout):
            where = f"{table.name}, line {row.line}"
            about = _image(row, named, nearby[table.name], where)
            if about is None:
                elsewhere += 1
                absent.setdefault(row.image, where)
            else:
                rows[about].append(row)
                files[about] = table.name
        nearby[table.name].check()
    for name, where in absent.items():
        if set(endings.near(name)) - rows.keys():
            raise SourceError("no image of this name", where=where, expected=name, remedy=_written(name, endings))
    if not rows:
        raise _none_here(source, elsewhere, absent)
    source.notes += [*named.notes(), *endings.notes()]
    if elsewhere:
        source.notes.append(f"{counted(elsewhere, 'point')} of the tables on no image here")
    alone = [image for image in images if image.name not in rows]
    if alone and layout.missing == "error":
        raise no_partner(source, "points in the tables", alone[0])
    if alone and layout.missing == "skip":
        source.notes.append(f"left out: {counted(len(alone), 'image')} without points, the first {alone[0].name}")
    for image in images:
        if image in alone and layout.missing == "skip":
            continue
        cells = [[row.line, row.place, row.label] for row in rows[image.name]]
        table_name = files.get(image.name, "")
        points_of_it = {"points": json.dumps(cells)} if cells else {}
        yield source_image_of(image, (table_name,) if table_name else (), layout, points_of_it)


def _none_here(source: Source, elsewhere: int, absent: Mapping[str, str]) -> SourceError:
    """The error if no image of the tables is in the source. absent: each image -> the first row that names it."""
    return SourceError(
        "no point of the table is on an image here",
        where=next(iter(source.match("points"))).name,
        found=f"{counted(elsewhere, 'point')}, the first on {next(iter(absent))}" if absent else "no point",
    )


def stored_points(text: str) -> list[Annotation]:
    """Return the points that `images_of_tables` keeps with an image, as annotations."""
    return [PointRow(*row).annotation() for row in json.loads(text)]


def _written(image: str, endings: Endings) -> str:
    return f"{endings.near(image)[0]} is here: write the names of images as they are into the table"


def _image(row: PointRow, named: FromRoot, nearby: Nearby, where: str) -> str | None:
    """The image that a row names."""
    matches = nearby.of_row(named.find(row.image), row.image, where)
    if len(matches) > 1:
        raise SourceError("several images of this name", where=where, found=", ".join(matches[:3]))
    return matches[0] if matches else None


def images_by_ending(images: list[MatchedFile]) -> dict[str, list[str]]:
    """Every end of an image's name, with and without its extension, and its group `name`."""
    endings: dict[str, set[str]] = defaultdict(set)
    for image in images:
        for name in (image.name, stem(image.name), *_as_folders(image.name)):
            parts = PurePosixPath(name).parts
            for start in range(len(parts)):
                endings[names.folded("/".join(parts[start:]))].add(image.name)
        if image.get("name"):
            endings[names.folded(image["name"])].add(image.name)
    return {ending: sorted(found) for ending, found in endings.items()}


def _as_folders(image: str) -> tuple[str, ...]:
    """The name of an image in an archive as if this were unpacked, with and without its extension; else none."""
    unpacked = names.as_folders(image)
    return () if unpacked == image else (unpacked, stem(unpacked))


def refuse_names_of_images(source: Source, name: str, layout: Layout) -> None:
    """Refuse a file whose points would be on all images, although a column or key of it names the image of each.

    Raises:
        SourceError: there is such a column.
    """
    images = source.match("images")
    by_ending = images_by_ending(images)
    taken = {"x", "y", "label", *layout.names.values(), *layout.columns}
    cells: dict[str, list[str]] = defaultdict(list)
    content = _json(source.read(name), name)
    keys = [key for key, value in content.items() if isinstance(value, list)] if isinstance(content, dict) else []
    if not layout.variable and any(names.folded(names.file_name(key)) in by_ending for key in keys):
        raise SourceError(
            "the keys name images here, while without saying so all points are on all images",
            where=name,
            found=", ".join(keys[:3]),
            remedy=f'say names = {{image = "{KEYS}"}} in [layout]',
        )
    for row in _cells(source.read(name), name, layout):
        for column, cell in row.items():
            if cell and names.folded(column) not in taken:
                cells[column].append(cell)
    for column, some in cells.items():
        here = sum(names.folded(names.file_name(cell)) in by_ending for cell in some)
        is_named = here > 0 and (here * 2 >= len(some) or OF_IMAGES.fullmatch(column) is not None)
        if is_named and max(len(images), len(set(some))) > 1:
            raise SourceError(
                f"{column!r} names an image here for each point, while without saying so all points are on all images",
                where=name,
                found=", ".join(sorted(set(some))[:3]),
                remedy=f'say names = {{image = "{column}"}} in [layout], or, without a header, '
                'columns = ["image", "x", "y"]',
            )


def _json(data: bytes, name: str) -> Any:
    """The content of a file of JSON or JSON lines; None for another one."""
    data = annotation_files.unpacked(data, name)
    try:
        return content_of(data, name) if is_json(data) else None
    except (ReadError, RecursionError):
        return None  # which `_read` reports, if it cannot read it either


def _cells(data: bytes, name: str, layout: Layout) -> list[dict[str, str]]:
    """The texts of each point in a table with a head, or in a JSON list; nothing in other files."""
    data = annotation_files.unpacked(data, name)
    try:
        if is_json(data):
            content = _json(data, name)
            content = content.get(layout.variable) if isinstance(content, dict) else content
            rows = [row for row in content if isinstance(row, dict)] if isinstance(content, list) else []
            return [{key: cell for key, cell in row.items() if isinstance(cell, str)} for row in rows]
        dialect = Dialect(layout.delimiter or "", layout.encoding, sheet=layout.sheet)
        return [dict(row.cells) for row in Table(data, name, dialect)]
    except (ReadError, ManifestError, ValueError, RecursionError):
        return []  # which `_read` reports, if it cannot read it either
