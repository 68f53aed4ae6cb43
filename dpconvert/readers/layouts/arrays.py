"""Shape "arrays": images in an HDF5 file, or in NumPy's .npy or .npz, one after another along the first axis.

[files.images] are the files of images, one for each set or several. [files.labels] and [files.table], if there are any,
are paired with them by the named group `name`; the table has a row for each image, in the same order. [files.images]
may also name `split`, `group`, and `class`, the class of all images of the file. With `axes = "HWC"`, "CHW" or "HW",
each file holds a single image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from dpconvert import names
from dpconvert.annotations.parsing.table import Table, TableRow
from dpconvert.errors import ManifestError, ReadError, SourceError
from dpconvert.manifest.files import FileKind
from dpconvert.readers.layouts.table import cell
from dpconvert.readers.pairing import Attributes, ByName, SplitNames, Tabular, layout_of, stem
from dpconvert.source.elements import Element
from dpconvert.source.files import MatchedFile, Source
from dpconvert.source.record import SourceImage
from dpconvert.source.stacks import DAMAGED, Array, Stacks

FILES = {
    "images": FileKind(
        pattern=r"(?i)(?:^|/)(?P<name>(?:(?P<split>train|valid|val|test)[^/]*)?[^/]*)\.(?:h5|hdf5|npy|npz)(?:\.gz)?$",
        what="files of images",
        example="train.h5",
    ),
}
MORE_FILES = ("labels", "table")
OF_STACKS = ("labels", "column", "label", "group", "split")
AT_ONCE = 1 << 26  # bytes of masks that are looked at together


class Layout(Tabular, SplitNames, Attributes):
    """`[layout]` of a manifest of this shape."""

    images: str = ""
    """Name of the array of images; the only possible one if not given."""
    axes: Literal["", "NHWC", "NCHW", "NHW", "HWC", "CHW", "HW"] = ""
    """Order of the axes where the shape does not tell it; without `N`, each file holds a single image."""
    channels: list[int] = []
    """Channels of the image, by their indexes from 0, if the array has more of them; it needs `axes`."""
    labels: str = ""
    """Name of the array of labels, in the file of [files.labels] or in that of the images."""
    column: int | None = None
    """Index on the last axis of an array of masks: class 1 if this mask marks a pixel, else class 0."""
    values: dict[str, str] = {}
    """Label -> class name; without it, a number counts the classes and a text is a class."""
    label: str = ""
    """Column of the table that holds the label."""
    group: str = ""
    """Column of the table, or without a table an array, that holds the patient or slide."""
    split: str = ""
    """Column of the table, or without a table an array, that holds the split."""

    @property
    def single(self) -> bool:
        """Whether each file holds a single image."""
        return self.axes != "" and not self.axes.startswith("N")

    @model_validator(mode="after")
    def _axes_known(self) -> Self:
        if self.channels and self.axes.removeprefix("N") not in ("HWC", "CHW"):
            raise ValueError('`channels` needs `axes`, such as "NHWC", or "HWC" if each file holds a single image')
        if self.single and (told := next((key for key in OF_STACKS if getattr(self, key) not in ("", None)), None)):
            raise ValueError(f'`{told}` is for several images in a file, and `axes = "{self.axes}"` is for one')
        return self


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    if layout.single:
        yield from (_single(found, layout) for found in source.need("images"))
        return
    partners = {kind: _partners(source, kind) for kind in ("labels", "table")}
    for found in source.need("images"):
        of_it = {kind: by_name.get(found.get("name")) for kind, by_name in partners.items() if by_name is not None}
        missing = [source.manifest.files[kind].what for kind, partner in of_it.items() if partner is None]
        if missing:
            raise SourceError(f"no {missing[0]} for this file", where=found.name)
        yield from _of_file(source, found, of_it.get("labels"), of_it.get("table"), layout)


def _single(found: MatchedFile, layout: Layout) -> SourceImage:
    """The image of a file that holds a single one."""
    name, split = found.get("name") or stem(found.name), layout.set_of(found.get("split"), found.name)
    file, label = Element(found.name, layout.images, 0).name, found.get("class") or None
    return SourceImage(name, (file,), found.get("group") or name, label=label, split=split)


def _partners(source: Source, kind: str) -> ByName | None:
    if kind not in source.manifest.files:
        return None
    return ByName(source.need(kind), source.manifest.files[kind].what)


def _of_file(
    source: Source, found: MatchedFile, labels_file: MatchedFile | None, table: MatchedFile | None, layout: Layout
) -> Iterator[SourceImage]:
    stacks = source.stacks(found.name)
    key = layout.images or _only_images(stacks, layout)
    count = _length(stacks.array(key), found.name)
    rows = None if table is None else _rows(source, table, layout, count)
    of_all = found.get("class") if labels_file is None and not (layout.labels or layout.label) else ""
    labels = [of_all] * count if of_all else _labels(source, stacks, labels_file, rows, layout, count)
    groups, splits = (_column(stacks, rows, name, count) for name in (layout.group, layout.split))
    columns = {name: _column(stacks, rows, name, count) for name in layout.attributes.values()}
    digits, name = len(str(max(count - 1, 0))), found.get("name") or stem(found.name)
    for index in range(count):
        file = Element(found.name, key, index).name
        told = (splits[index] if splits else "") or found.get("split")
        yield SourceImage(
            f"{name}_{index:0{digits}}", (file,), (groups[index] if groups else "") or found.get("group") or file,
            label=labels[index], split=layout.set_of(told, file),
            attributes=layout.told(lambda column, index=index: columns[column][index]),  # type: ignore[misc]
        )  # fmt: skip


def _only_images(stacks: Stacks, layout: Layout) -> str:
    others = {layout.labels, layout.label, layout.group, layout.split}
    fits = {name: shape for name, shape in stacks.names().items() if name not in others - {""} and len(shape) in (3, 4)}
    if len(fits) != 1:
        raise ManifestError(
            f"{len(fits)} arrays that may be of images", where=stacks.name,
            found=stacks.listed() or None,
            remedy="name it in the manifest: `images` in [layout]",
        )  # fmt: skip
    return next(iter(fits))


def _length(array: Array, where: str) -> int:
    if len(array.shape) not in (3, 4):
        raise ReadError("no array of images", where=where, found=f"{array.shape}", expected="3 or 4 axes")
    return int(array.shape[0])


def _rows(source: Source, table: MatchedFile, layout: Layout, count: int) -> list[tuple[TableRow, str]]:
    read = Table(source.read(table.name), table.name, layout.dialect)
    rows = [(row, f"{table.name}, line {row.line}") for row in read]
    if len(rows) != count:
        raise SourceError("not a row an image", where=table.name, expected=f"{count}", found=f"{len(rows)}")
    source.notes += read.notes()
    return rows


def _column(stacks: Stacks, rows: list[tuple[TableRow, str]] | None, name: str, count: int) -> list[str]:
    """What a column of the table, or an array beside the images, says of each image; empty without a name."""
    if not name:
        return []
    if rows is not None:
        return [cell(row, name, where) for row, where in rows]
    return _texts(stacks.array(name), count, f"{stacks.name}/{name}")


def _labels(
    source: Source,
    stacks: Stacks,
    file: MatchedFile | None,
    rows: list[tuple[TableRow, str]] | None,
    layout: Layout,
    count: int,
) -> list[str]:
    of_file = stacks if file is None else source.stacks(file.name)
    if layout.label:
        told = _column(stacks, rows, layout.label, count)
    else:
        key = layout.labels or (next(iter(of_file.names())) if file is not None and len(of_file.names()) == 1 else "")
        if not key and not of_file.name.lower().endswith(".npy"):
            raise ManifestError(
                "nothing says which array holds the labels", where=of_file.name, found=", ".join(of_file.names()),
                remedy="name it in the manifest's [layout]: `labels`, or `label` for a column of the table",
            )  # fmt: skip
        array, where = of_file.array(key), "/".join(filter(None, (of_file.name, key)))
        told = _texts(array, count, where) if layout.column is None else _marked(array, layout.column, count, where)
    return class_names(told, layout.values, source.manifest.classes, of_file.name)


def class_names(told: Sequence[str], values: Mapping[str, str], classes: list[str], where: str) -> list[str]:
    """Classes of labels: by `values` where there are any, else a number counts `classes`, and a text is a class.

    Raises:
        ManifestError: a label that `values` lacks, or a number beyond the classes.
    """
    known: dict[str, str] = {}
    for label in sorted(set(told)):
        match = names.match(label, values)
        if match is not None:
            known[label] = values[match]
        elif values:
            raise ManifestError("label not in `layout.values`", where=where, found=repr(label))
        elif label.isdecimal() and label not in classes:
            if int(label) >= len(classes):
                raise ManifestError(
                    "a label beyond the manifest's classes", where=where, found=label,
                    expected=f"0 to {len(classes) - 1}", remedy="name them in [layout]: values = {0 = ..., 1 = ...}",
                )  # fmt: skip
            known[label] = classes[int(label)]
        else:
            known[label] = label
    return [known[label] for label in told]


def _texts(array: Array, count: int, where: str) -> list[str]:
    """A label an image as text: numbers whole, rows of 0 and a single 1 by the place of the 1."""
    if not array.shape or array.shape[0] != count:
        raise SourceError("not a value an image", where=where, expected=f"{count}", found=f"{array.shape}")
    size = int(np.prod(array.shape[1:], dtype=np.int64))
    if size > 1000:
        raise ManifestError(
            "masks, and no labels", where=where, found=" x ".join(map(str, array.shape)),
            remedy="say in [layout] which of them is looked at: `column`",
        )  # fmt: skip
    try:
        values = np.asarray(array[:]).reshape(count, size)
    except DAMAGED as error:
        raise ReadError(f"damaged: {error}", where=where, remedy="fetch it again") from None
    flat = values[:, 0] if size == 1 else _places(values, where)
    return [_text(value, where) for value in flat.tolist()]


def _places(values: NDArray[Any], where: str) -> NDArray[Any]:
    single = (values == 1).sum(1) == 1
    hot = single & ((values == 0).sum(1) == values.shape[1] - 1)
    if not hot.all():
        row = int(np.flatnonzero(~hot)[0])
        raise SourceError("several values an image, which are not 0 and a single 1", where=f"{where}, image {row}")
    places: NDArray[Any] = values.argmax(1)
    return places


def _text(value: Any, where: str) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        if not value.is_integer():
            raise SourceError("a label that is no whole number", where=where, found=f"{value}")
        value = int(value)
    return names.nfc(str(value)).strip()


def _marked(array: Array, column: int, count: int, where: str) -> list[str]:
    """ "1" for each image of which this mask marks a pixel, else "0"; read in slices."""
    shape = array.shape
    if len(shape) != 4 or shape[0] != count or not 0 <= column < shape[3]:
        raise SourceError(
            f"no masks with a column {column}", where=where, expected=f"{count} x height x width x more than {column}",
            found=" x ".join(map(str, shape)),
        )  # fmt: skip
    step = max(1, AT_ONCE // max(1, int(np.prod(shape[1:], dtype=np.int64)) * array.dtype.itemsize))
    try:
        blocks = (np.asarray(array[at : at + step, :, :, column]) for at in range(0, count, step))
        found = [bool(mark) for block in blocks for mark in np.any(block.reshape(len(block), -1), axis=1)]
    except DAMAGED as error:
        raise ReadError(f"damaged: {error}", where=where, remedy="fetch it again") from None
    return [str(int(mark)) for mark in found]
