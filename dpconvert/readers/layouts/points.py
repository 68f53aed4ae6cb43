"""Shape "points": pictures, and for each a text file of points.

[files.images] and [files.points] are paired by their named group `name`. [layout] takes
  columns    what stands where in a line, e.g. ["x", "y", "label"]; other names are passed over
  delimiter  between columns ("": blanks); skip   lines of head
  label      of all points, where no column says it; `labels` maps a column's values to names
  missing    of images without a file of points: true leaves them out and counts them, "none" says that they show none
[files.images] may name `group` and `split` too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydantic import field_validator

from dpconvert.annotations import Annotations, points
from dpconvert.card import Model
from dpconvert.errors import ReadError
from dpconvert.image import Image
from dpconvert.manifest.model import FileKind
from dpconvert.readers.pairing import Missing, as_split, layout_of, paired, stem
from dpconvert.source.files import Source
from dpconvert.source.record import Picture

FILES = {
    "images": FileKind(
        pattern=r"(?i)(?P<name>[^/]+)\.(png|jpe?g|tiff?|bmp)$", what="pictures", example="images/0001.png"
    ),
    "points": FileKind(pattern=r"(?i)(?P<name>[^/]+)\.(csv|txt)$", what="files of points", example="points/0001.csv"),
}


class Layout(Model):
    """`[layout]` of a manifest of this shape."""

    columns: list[str] = ["x", "y", "label"]
    delimiter: str = ","
    skip: int = 0
    label: str = ""
    labels: dict[str, str] = {}
    missing: Missing = "error"

    @field_validator("columns")
    @classmethod
    def _places(cls, columns: list[str]) -> list[str]:
        if not {"x", "y"} <= set(columns):
            raise ValueError("x and y must be among the columns")
        return columns


def pictures(source: Source) -> Iterator[Picture]:
    layout = layout_of(source.manifest, Layout)
    for image, points_file in paired(source, "images", "points", missing=layout.missing):
        group = image.get("group") or image.get("name") or image.name
        yield Picture(
            stem(image.name),
            (image.name,),
            group,
            split=as_split(image.get("split")),
            annotations=() if points_file is None else (points_file.name,),
        )


def read_annotations(source: Source, picture: Picture, image: Image) -> Annotations:
    layout = layout_of(source.manifest, Layout)
    found = []
    for name in picture.annotations:
        data = source.read(name)
        found += points.read_text(
            data, name, layout.columns, delimiter=layout.delimiter or None, skip=layout.skip, label=layout.label
        )
    if layout.labels:
        unknown = {item.label for item in found} - set(layout.labels)
        if unknown:
            raise ReadError(f"label {min(unknown)!r} is not in `layout.labels`", where=picture.annotations[0])
        found = [replace(item, label=layout.labels[item.label]) for item in found]
    return Annotations(found)
