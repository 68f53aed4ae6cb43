"""Shape "parquet": images in a column of Parquet files, as Hugging Face's `datasets` writes them.

[files.tables] are the files; their pattern may name `split` (train-00000-of-00004.parquet).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dpconvert import names
from dpconvert.errors import SourceError
from dpconvert.manifest.files import FileKind
from dpconvert.plural import counted
from dpconvert.readers.layouts.arrays import class_names
from dpconvert.readers.pairing import Missing, SplitNames, layout_of, refuse_missing_none, stem
from dpconvert.source.columns import Columns
from dpconvert.source.elements import Element
from dpconvert.source.files import MatchedFile, Source
from dpconvert.source.record import SourceImage

FILES = {
    "tables": FileKind(
        pattern=r"(?i)(?:^|/)(?P<name>(?:(?P<split>train|valid(?:ation)?|val|dev|test)(?=[-_.]))?[^/]*)\.parquet$",
        what="Parquet files",
        example="data/train-00000-of-00004.parquet",
    ),
}
NONE = (None, -1, "")  # -1: what Hugging Face's features write for no label


class Layout(SplitNames):
    """`[layout]` of a manifest of this shape."""

    image: str = "image"
    """Column of the images."""
    label: str = "label"
    """Column of the labels: numbers of the classes that the file or the manifest names, or texts."""
    values: dict[str, str] = {}
    """Label -> class name."""
    group: str = ""
    """Column of the patient or slide."""
    split: str = ""
    """Column of the split."""
    missing: Missing = "error"
    """Rows without a label (none, or -1): `"error"` (or `false`) refuses them, `"skip"` (or `true`) leaves them out and
    counts them; `"none"` is refused.
    """


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    refuse_missing_none(source.manifest, layout.missing)
    without = 0
    for found in source.need("tables"):
        columns = source.columns(found.name)
        labels = columns.values(layout.label)
        without += sum(label in NONE for label in labels)
        yield from _of_file(source, found, columns, labels, layout)
    if without:
        source.notes.append(f"{counted(without, 'row')} without a label, left out")


def _of_file(
    source: Source, found: MatchedFile, columns: Columns, labels: list[Any], layout: Layout
) -> Iterator[SourceImage]:
    images = columns.images(layout.image)
    if len(images) != len(labels):
        raise SourceError("not a label an image", where=found.name, expected=f"{len(images)}", found=f"{len(labels)}")
    groups, splits = (columns.values(name) if name else [] for name in (layout.group, layout.split))
    told, places = _told(columns, labels, layout, found.name)
    classes = dict(zip(places, class_names(told, layout.values, source.manifest.classes, found.name), strict=True))
    digits, name = len(str(max(len(labels) - 1, 0))), stem(found.name)
    for number, label in classes.items():
        file = Element(found.name, layout.image, number).name
        group = "" if not groups or groups[number] is None else str(groups[number])
        split = "" if not splits or splits[number] is None else str(splits[number])
        yield SourceImage(
            f"{name}_{number:0{digits}}", (file,), names.nfc(group) or file, label=label,
            split=layout.set_of(split or found.get("split"), file),
        )  # fmt: skip


def _told(columns: Columns, labels: list[Any], layout: Layout, where: str) -> tuple[list[str], list[int]]:
    """Return the labels as text, and the numbers of the rows that have a label."""
    known = columns.label_names(layout.label)
    told, places = [], []
    for number, label in enumerate(labels):
        if label in NONE:
            if layout.missing == "error":
                raise SourceError(
                    "no label", where=f"{where}, row {number}",
                    remedy="if rows without a label are to be left out, say `missing = true` in [layout]",
                )  # fmt: skip
            continue
        if known and isinstance(label, int) and not 0 <= label < len(known):
            raise SourceError("a label that the file does not name", where=f"{where}, row {number}", found=str(label))
        told.append(known[label] if known and isinstance(label, int) else names.nfc(str(label)))
        places.append(number)
    return told, places
