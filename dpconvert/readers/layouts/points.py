"""Shape "points": images with points on them, in a file for each image or in one table for all.

A file of points is delimited text, JSON, a MATLAB array, or the output of an annotation program (GeoJSON of QuPath,
COCO, Pascal VOC, ASAP, ImageScope, LabelMe, CVAT, VIA, Label Studio, Darwin). [files.images] and [files.points] are
paired by their named group `name`. A file whose pattern has no `name` serves all images, and so does a table with a
column of images, which `image` in `names` or `columns` says; images are named by the end of their file names, with or
without the extension. [files.images] may also name `group` and `split`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

from pydantic import field_validator

from dpconvert import names
from dpconvert.annotations import Annotation, Annotations, LabelMask, point_arrays, points, programs
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.parsing import matlab73
from dpconvert.annotations.parsing.table import Dialect, Table
from dpconvert.annotations.points import Form, PointRow
from dpconvert.errors import ManifestError, ReadError, SourceError
from dpconvert.image import Image
from dpconvert.manifest.files import FileKind
from dpconvert.plural import counted
from dpconvert.readers import named_images
from dpconvert.readers.nearby import Nearby
from dpconvert.readers.pairing import IMAGE, FromRoot, Idle, Missing, SplitNames, layout_of, no_partner, paired, stem
from dpconvert.readers.slide_annotations import refuse_names_in_geojson
from dpconvert.source.files import MatchedFile, Source
from dpconvert.source.record import SourceImage

FILES = {
    "images": FileKind(pattern=rf"(?i)(?P<name>[^/]+)\.{IMAGE}$", what="images", example="images/0001.png"),
    "points": FileKind(
        pattern=r"(?i)(?P<name>[^/]+)\.(csv|tsv|txt|(geo)?json|mat|xml)$",
        what="files of points",
        example="points/0001.csv",
    ),
}
GROUPS = {"images": {"name", "group", "split"}, "points": {"name"}}
OF_TEXT = "delimiter", "skip", "decimal", "check_head"
OF_IMAGES = re.compile(r"(?i)(image|img|file|slide|picture|tile|patch)s?([ _-]?(name|id|path|file))?")
MATLAB = b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file", matlab73.START


class Layout(SplitNames):
    """`[layout]` of a manifest of this shape."""

    columns: list[str] = []
    """What the columns of a file without a header hold, such as `["x", "y", "label"]`; `image` names the image."""
    names: dict[Literal["x", "y", "label", "image"], str] = {}
    """What the header or JSON calls them, such as `{x = "Centroid X", y = "Centroid Y"}`."""
    delimiter: str | None = None
    """Character between columns, `""` for blanks; found in the file if not given."""
    skip: int = 0
    """Number of header lines to skip."""
    decimal: Literal["", ".", ","] = ""
    """Decimal separator; commas are decimal if not given and unambiguous."""
    check_head: bool = True
    """Whether a header that contradicts `columns` is an error."""
    variable: str = ""
    """Array of points in a MATLAB file, perhaps in a structure (`cells.points`), or the list in a JSON object."""
    label_variable: str = ""
    """Array of their labels in a MATLAB file: numbers, or texts in a cell or char array."""
    label: str = ""
    """Label of all points if no column holds it."""
    labels: dict[str, str] = {}
    """Label in the files -> label."""
    label_field: str = ""
    """Attribute of VIA that holds the labels; files with labels in several are refused if not given."""
    missing: Missing = "error"
    """Images without points: `"error"` (or `false`) refuses them, `"skip"` (or `true`) leaves them out and counts
    them, `"none"` says that they show none.
    """

    @field_validator("columns")
    @classmethod
    def _places(cls, columns: list[str]) -> list[str]:
        if columns and not {"x", "y"} <= set(columns):
            raise ValueError("x and y must be among the columns")
        return columns

    def form(self) -> Form:
        """The form of the points in a file."""
        return Form(
            columns=self.columns,
            names={str(ours): theirs for ours, theirs in self.names.items()},
            delimiter=self.delimiter,
            skip=self.skip,
            label=self.label,
            decimal=self.decimal,
            check_head=self.check_head,
        )


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    if layout.form().of_all_images:
        yield from _of_tables(source, layout)
    else:
        naming = _naming(source)
        if all("name" not in found.parts for found in source.need("points")):
            yield from _of_files(source, layout, naming)
        else:
            yield from _paired(source, layout, naming)


def _naming(source: Source) -> named_images.Naming:
    """Which files of points name which images here."""
    found = {found.name: named_images.images_of(source, found.name) for found in source.need("points")}
    listings = {name: named for name, named in found.items() if named is not None}
    naming = named_images.Naming(listings, (image.name for image in source.need("images")))
    naming.check(source)
    return naming


def _of_files(source: Source, layout: Layout, naming: named_images.Naming) -> Iterator[SourceImage]:
    """Each image with the files that name it; those that name none are about all images."""
    shared = tuple(found.name for found in source.match("points") if found.name not in naming.files)
    alone = list[str]()
    called = {name: image.name for image in source.match("images") for name in (image.name, stem(image.name))}
    for name in shared:
        refuse_names_in_geojson(source, name, called)
        _refuse_names_of_images(source, name, layout)
    for image in source.need("images"):
        files = (*shared, *naming.of(image.name))
        if not files and layout.missing == "error":
            raise no_partner(source, "points in the files", image)
        if not files and layout.missing == "skip":
            alone.append(image.name)
        else:
            yield _source_image(image, files, layout)
    if alone:
        source.notes.append(f"left out: {counted(len(alone), 'image')} without points, the first {alone[0]}")


def _refuse_names_of_images(source: Source, name: str, layout: Layout) -> None:
    """Refuse a file whose points would be on all images, although a column or key of it names the image of each.

    Raises:
        SourceError: there is such a column.
    """
    images = source.match("images")
    by_ending = _by_ending(images)
    taken = {"x", "y", "label", *layout.names.values(), *layout.columns}
    cells: dict[str, list[str]] = defaultdict(list)
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


def _cells(data: bytes, name: str, layout: Layout) -> list[dict[str, str]]:
    """The texts of each point in a table with a head, or in a JSON list; nothing in other files."""
    data = annotation_files.unpacked(data, name)
    try:
        if _is_json(data):
            told = json.loads(data)
            told = told.get(layout.variable) if isinstance(told, dict) else told
            rows = [row for row in told if isinstance(row, dict)] if isinstance(told, list) else []
            return [{key: cell for key, cell in row.items() if isinstance(cell, str)} for row in rows]
        return [dict(row.cells) for row in Table(data, name, Dialect(delimiter=layout.delimiter or ""))]
    except (ReadError, ManifestError, ValueError, RecursionError):
        return []  # which `_read` reports, if it cannot read it either


def _paired(source: Source, layout: Layout, naming: named_images.Naming) -> Iterator[SourceImage]:
    """Each image with the file of its name, else with the one that names it."""
    pairs = [
        (image, naming.of(image.name) if own is None else (own.name, *naming.of(image.name)))
        for image, own in paired(source, "images", "points", missing="none")
    ]
    alone = [image for image, files in pairs if not files]
    if len(alone) == len(pairs):
        raise SourceError(
            "no file of points belongs to an image",
            where=source.match("points")[0].name,
            remedy="if it is one table for all images, name its columns in [layout], as in "
            'columns = ["image", "x", "y", "label"]',
        )
    if alone and layout.missing == "error":
        raise no_partner(source, source.manifest.files["points"].what, alone[0])
    for image, files in pairs:
        if len(set(files)) > 1:
            raise SourceError("two files of points for one image", where=image.name, found=" and ".join(files[:2]))
        if files or layout.missing == "none":
            yield _source_image(image, files[:1], layout)
    if alone and layout.missing == "skip":
        source.notes.append(
            f"left out: {counted(len(alone), 'image')} without files of points, the first {alone[0].name}"
        )


def idle(source: Source) -> Iterator[Idle]:
    endings = {PurePosixPath(found.name.removesuffix(".gz")).suffix.lower() for found in source.match("points")}
    if endings <= {".json", ".geojson", ".mat", ".xml"}:
        yield OF_TEXT, "no file of points is a table"
    if not endings & {".mat", ".json"}:
        yield ("variable",), "no file of points is of MATLAB or JSON"
    if not endings & {".json", ".csv"}:
        yield ("label_field",), "no file of points is of VIA"
    if ".mat" not in endings:
        yield ("label_variable",), "no file of points is of MATLAB"


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    layout = layout_of(source.manifest, Layout)
    if "points" in source_image.extra:
        return _labelled(Annotations(_stored(source_image.extra["points"])), layout, source_image.annotations[0])
    found = Annotations([])
    for name in source_image.annotations:
        of_file = _read(source.read(name), name, layout, source_image, image)
        found = Annotations(found.items + of_file.items, found.remarks + of_file.remarks)
    return _labelled(found, layout, source_image.annotations[0]) if source_image.annotations else found


def _source_image(
    image: MatchedFile, files: tuple[str, ...], layout: Layout, extra: dict[str, str] | None = None
) -> SourceImage:
    return SourceImage(
        stem(image.name),
        (image.name,),
        image.get("group") or image.get("name") or image.name,
        split=layout.set_of(image.get("split"), image.name),
        annotations=files,
        extra=extra or {},
    )


def _read(data: bytes, name: str, layout: Layout, source_image: SourceImage, image: Image) -> Annotations:
    data = annotation_files.unpacked(data, name)
    if _of_a_program(data, name):
        known = list(layout.labels)
        size, origin = (image.width, image.height), image.bounds[:2]
        subject = annotation_files.Subject(source_image.files[0], size, origin, label_field=layout.label_field)
        found = annotation_files.read(data, name, subject, known)
        if isinstance(found, LabelMask):
            raise ReadError("an image, and no file of points", where=name)
        return found if not layout.label else replace(found, items=[_named(item, layout) for item in found.items])
    return Annotations([row.annotation() for row in _rows(data, name, layout)])


def _rows(data: bytes, name: str, layout: Layout) -> list[PointRow]:
    form = layout.form()
    if data.startswith(MATLAB) or name.lower().endswith(".mat"):
        return point_arrays.read_mat_rows(data, name, form, layout.variable, layout.label_variable)
    if _is_json(data):
        return point_arrays.read_json(data, name, form, layout.variable)
    return points.read_rows(data, name, form)


def _is_json(data: bytes) -> bool:
    return data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))


def _of_a_program(data: bytes, name: str) -> bool:
    """Whether a known annotation program wrote the file, not a user's own script.

    Raises:
        ReadError: The program is known, but its files are not supported.
    """
    if data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return True
    return _is_json(data) and programs.is_named(data, name)


def _named(item: Annotation, layout: Layout) -> Annotation:
    return item if item.label else replace(item, label=layout.label)


def _labelled(found: Annotations, layout: Layout, name: str) -> Annotations:
    """The annotations by the names that `labels` gives to their labels."""
    if not layout.labels:
        return found
    spelt = {label: names.match(label, layout.labels) for label in {item.label for item in found.items}}
    unknown = [label for label, known in spelt.items() if known is None]
    if unknown:
        raise ReadError(f"label {min(unknown)!r} is not in `layout.labels`", where=name)
    told = {label: layout.labels[known] for label, known in spelt.items() if known is not None}
    return replace(found, items=[replace(item, label=told[item.label]) for item in found.items])


# one table for all images


def _of_tables(source: Source, layout: Layout) -> Iterator[SourceImage]:
    """Each image with its points in the tables."""
    images = source.need("images")
    by_ending = _by_ending(images)
    named = FromRoot(lambda name: by_ending.get(names.folded(name), []))
    rows: dict[str, list[PointRow]] = defaultdict(list)
    files: dict[str, str] = {}
    elsewhere = 0
    nearby = Nearby.of(table.name for table in source.need("points"))
    for table in source.need("points"):
        for row in _rows(source.read(table.name), table.name, layout):
            about = _image(row, named, nearby[table.name], f"{table.name}, line {row.line}")
            if about is None:
                elsewhere += 1
            else:
                rows[about].append(row)
                files[about] = table.name
        nearby[table.name].check()
    if not rows:
        first = next(iter(source.match("points"))).name
        raise SourceError("no point of the table is on an image here", where=first, found=counted(elsewhere, "point"))
    source.notes += named.notes()
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
        told = [[row.line, row.x, row.y, row.label] for row in rows[image.name]]
        table_name = files.get(image.name, "")
        points_of_it = {"points": json.dumps(told)} if told else {}
        yield _source_image(image, (table_name,) if table_name else (), layout, points_of_it)


def _stored(text: str) -> list[Annotation]:
    return [PointRow(*row).annotation() for row in json.loads(text)]


def _image(row: PointRow, named: FromRoot, nearby: Nearby, where: str) -> str | None:
    """The image that a row names."""
    matches = nearby.of_row(named.find(row.image), row.image, where)
    if len(matches) > 1:
        raise SourceError("several images of this name", where=where, found=", ".join(matches[:3]))
    return matches[0] if matches else None


def _by_ending(images: list[MatchedFile]) -> dict[str, list[str]]:
    """Every end of an image's name, with and without its extension, and its group `name`."""
    endings: dict[str, set[str]] = defaultdict(set)
    for image in images:
        for name in (image.name, stem(image.name)):
            parts = PurePosixPath(name).parts
            for start in range(len(parts)):
                endings[names.folded("/".join(parts[start:]))].add(image.name)
        if image.get("name"):
            endings[names.folded(image["name"])].add(image.name)
    return {ending: sorted(found) for ending, found in endings.items()}
