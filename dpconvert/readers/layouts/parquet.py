"""Shape "parquet": images in a column of Parquet files, as Hugging Face's `datasets` writes them.

[files.tables] are the files; their pattern may name `split` (train-00000-of-00004.parquet), `group`, and `class`, the
class of all images of the file (`label=tumour/part-0.parquet`).
"""

from __future__ import annotations

from collections.abc import Iterator

from dpconvert.errors import SourceError
from dpconvert.manifest.files import FileKind
from dpconvert.plural import counted
from dpconvert.readers.labels import ALL
from dpconvert.readers.layout_keys import Missing, SplitNames, layout_of
from dpconvert.readers.lone_groups import alone, notes_on_groups
from dpconvert.readers.pairing import stem
from dpconvert.readers.values import InValues, Values, decoded, name_in
from dpconvert.source.arrays.columns import Columns, ImageColumn
from dpconvert.source.arrays.elements import Element
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

FILES = {
    "tables": FileKind(
        pattern=r"(?i)(?:^|/)(?P<name>(?:(?P<split>train|valid(?:ation)?|val|dev|test)(?=[-_.]))?[^/]*)\.parquet$",
        what="Parquet files",
        example="data/train-00000-of-00004.parquet",
    ),
}
UNLABELLED = -1  # what Hugging Face's features write for no label
TARGETS = ALL
GROUPS = {"tables": {"class", "group", "name", "split"}}


class Layout(Values, SplitNames):
    """`[layout]` of a manifest of this shape."""

    image: str = "image"
    """Column of the images."""
    label: str = "label"
    """Column of the label: a number of the classes that the file or the manifest names, or a text. With kind
    `multilabel`, a list of either, or a text with `separator`.
    """
    indicators: list[str] = []
    """Columns of 0 and 1 in place of `label`, one for each class in the order of `classes`, with kind `multilabel`."""
    value: str = ""
    """Column of the number in place of `label`, with kind `regression`."""
    group: str = ""
    """Column of the patient or slide."""
    split: str = ""
    """Column of the split."""
    missing: Missing = "error"
    """Rows without an image or a label (none, NaN, or -1 in place of a class): `"error"` (or `false`) refuses them,
    `"skip"` (or `true`) leaves them out and counts them; `"none"` is refused.
    """


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    labels_in = InValues(source.manifest, layout, unlabelled=UNLABELLED)
    without_group = 0
    for found in source.need("tables"):
        columns = source.columns(found.name)
        of_all = "" if labels_in.given or labels_in.target != "class" else found.get("class")
        if of_all:
            values, known = [[of_all] * columns.rows], []
        else:
            values = [list(map(decoded, columns.values(name))) for name in labels_in.places]
            known = [] if layout.indicators else columns.label_names(labels_in.places[0])
        labels = labels_in.labels(values, lambda number, name=found.name: f"{name}, row {number}", known)  # type: ignore[misc]
        for image in _of_file(source, found, columns, labels, layout):
            without_group += alone(image, layout.group)
            yield image
    source.notes += [*labels_in.notes("row"), *notes_on_groups(without_group, "row"), *layout.unmet()]


def _of_file(
    source: Source, found: MatchedFile, columns: Columns, labels: list[str | None], layout: Layout
) -> Iterator[SourceImage]:
    images = columns.images(layout.image)
    if len(images) != len(labels):
        raise SourceError("not a label an image", where=found.name, expected=f"{len(images)}", found=f"{len(labels)}")
    groups, splits = (columns.values(name) if name else [] for name in (layout.group, layout.split))
    empty = _without_image(source, images, labels, layout)
    digits, name = len(str(max(len(labels) - 1, 0))), stem(found.name)
    for number, label in enumerate(labels):
        if label is None or number in empty:
            continue
        file = Element(found.name, layout.image, number).name
        group, split = (name_in(texts[number]) if texts else "" for texts in (groups, splits))
        yield SourceImage(
            f"{name}_{number:0{digits}}",
            (file,),
            group or found.get("group") or file,
            label=label,
            split=layout.set_of(split or found.get("split"), file),
        )


def _without_image(source: Source, images: ImageColumn, labels: list[str | None], layout: Layout) -> set[int]:
    """Return the labelled rows without an image, which are left out and counted.

    Raises:
        SourceError: there are such rows, and the manifest does not say that they are to be left out.
    """
    empty = {number for number in images.empty() if labels[number] is not None}
    if empty and layout.missing == "error":
        raise SourceError(
            "a row without the bytes of an image",
            where=f"{images.name}, row {min(empty)}",
            remedy="if it holds the path of one, unpack the images beside it and use the shape `table`; if such rows "
            "are to be left out, say `missing = true` in [layout]",
        )
    source.notes += [f"{images.name}: {counted(len(empty), 'row')} without an image, left out"] if empty else []
    return empty
