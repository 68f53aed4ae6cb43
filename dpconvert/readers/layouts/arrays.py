"""Shape "arrays": images in an HDF5 file, or in NumPy's .npy or .npz, one after another along the first axis.

[files.images] are the files of images, one for each set or several. [files.labels] and [files.table], if there are any,
are paired with them by the named group `name`; the table has a row for each image, in the same order. [files.images]
may also name `split`, `group`, and `class`, the class of all images of the file. With `axes = "HWC"`, "CHW" or "HW",
each file holds a single image. Names of arrays with `{split}` are those of several sets in one file, as
`images = "{split}_images"` for train_images and test_images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from dpconvert.annotations.parsing.table import Table, TableRow
from dpconvert.errors import ManifestError, ReadError, SourceError
from dpconvert.manifest.files import FileKind
from dpconvert.readers.array_values import check_class_names, column, stated
from dpconvert.readers.labels import ALL
from dpconvert.readers.layout_keys import Attributes, SplitNames, Tabular, layout_of
from dpconvert.readers.lone_groups import alone, notes_on_groups
from dpconvert.readers.pairing import ByName, stem
from dpconvert.readers.values import InValues, Values
from dpconvert.source.arrays.elements import CHANNELS, Element
from dpconvert.source.arrays.stacks import DAMAGED, Array, Stacks
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

FILES = {
    "images": FileKind(
        pattern=r"(?i)(?:^|/)(?P<name>(?:(?P<split>train|valid|val|test)[^/]*)?[^/]*)\.(?:h5|hdf5|npy|npz)(?:\.gz)?$",
        what="files of images",
        example="train.h5",
    ),
}
TARGETS = ALL
MORE_FILES = ("labels", "table")
SPLIT = "{split}"  # in names of arrays
NAMED = ("images", "labels", "value", "group")  # keys that may hold it
OF_STACKS = ("labels", "column", "label", "indicators", "value", "group", "split")


class Layout(Values, Tabular, SplitNames, Attributes):
    """`[layout]` of a manifest of this shape."""

    images: str = ""
    """Name of the array of images; the only possible one if not given. `"{split}_images"` reads those of several sets,
    such as train_images and test_images; then `labels`, `value` and `group` may hold `{split}`, too.
    """
    axes: Literal["", "NHWC", "NCHW", "NHW", "HWC", "CHW", "HW"] = ""
    """Order of the axes where the shape does not tell it; without `N`, each file holds a single image."""
    channels: list[int] = []
    """Channels of the image, by their indexes from 0, if the array has more of them; it needs `axes`."""
    labels: str = ""
    """Name of the array of labels, in the file of [files.labels] or in that of the images: numbers, texts, or rows of
    zeros with a single one. With kind `multilabel`, rows of 0 and 1, or texts with `separator`.
    """
    column: int | None = None
    """Index of a kind in an array of masks (N, height, width, kinds) or (N, kinds, height, width): class 1 if its mask
    marks a pixel, else class 0.
    """
    label: str = ""
    """Column of the table that holds the label."""
    indicators: list[str] = []
    """Columns of the table, or without a table arrays, of 0 and 1 in place of `label`, one for each class in the order
    of `classes`, with kind `multilabel`.
    """
    value: str = ""
    """Column of the table that holds the number, with kind `regression`; without a table, array in the file of
    [files.labels] or in that of the images.
    """
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
        if self.single and (
            misplaced := next((key for key in OF_STACKS if getattr(self, key) not in ("", None, [])), None)
        ):
            raise ValueError(f'`{misplaced}` is for several images in a file, and `axes = "{self.axes}"` is for one')
        if SPLIT not in self.images:
            if misplaced := next((key for key in NAMED if SPLIT in getattr(self, key)), None):
                raise ValueError(f"`{misplaced}` holds {SPLIT}, which `images` must hold, too")
        elif self.single or self.split or self.images.count(SPLIT) > 1:
            why = "a single image in a file" if self.single else "`split`" if self.split else f"{SPLIT} twice"
            raise ValueError(f"`images` holds {SPLIT}, which excludes {why}")
        return self

    def of_set(self, name: str) -> Layout:
        """The layout of one of several sets in a file."""
        return self.model_copy(update={key: getattr(self, key).replace(SPLIT, name) for key in NAMED})


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    labels_in = InValues(source.manifest, layout, ("labels", "label"), decimal=layout.decimal)
    if labels_in.target != "class" and (layout.single or layout.column is not None):
        key = f'axes = "{layout.axes}", a file' if layout.single else "`column`, an image"
        raise ManifestError(f"kind {source.manifest.kind!r}: with {key} has one class only", where=source.manifest.path)
    if layout.single:
        yield from (_single(found, layout) for found in source.need("images"))
        source.notes += layout.unmet()
        return
    partners = {kind: _partners(source, kind) for kind in ("labels", "table")}
    without_group = 0
    for found in source.need("images"):
        of_it = {kind: by_name.get(found.get("name")) for kind, by_name in partners.items() if by_name is not None}
        missing = [source.manifest.files[kind].what for kind, partner in of_it.items() if partner is None]
        if missing:
            raise SourceError(f"no {missing[0]} for this file", where=found.name)
        for one in _sets(source.stacks(found.name), layout):
            of_set = layout.of_set(one)
            read = labels_in.at(of_set)
            for image in _of_file(source, found, of_it.get("labels"), of_it.get("table"), of_set, read, one):
                without_group += alone(image, layout.group)
                yield image
    source.notes += [*labels_in.notes("image"), *notes_on_groups(without_group, "image"), *layout.unmet()]


def _sets(stacks: Stacks, layout: Layout) -> list[str]:
    """The names of the sets in a file, as the names of its arrays of images state them; [""] for one set.

    Raises:
        ManifestError: no array has such a name.
    """
    if SPLIT not in layout.images:
        return [""]
    pattern = re.compile("(.+)".join(map(re.escape, layout.images.split(SPLIT))))
    found = [match[1] for name in stacks.names() if (match := pattern.fullmatch(name))]
    if not found:
        raise ManifestError(
            "no array of images by this name",
            where=stacks.name,
            expected=layout.images,
            found=stacks.listed() or None,
            remedy="correct `images` in the manifest's [layout]",
        )
    return found


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
    source: Source,
    found: MatchedFile,
    labels_file: MatchedFile | None,
    table: MatchedFile | None,
    layout: Layout,
    labels_in: InValues,
    of_set: str,
) -> Iterator[SourceImage]:
    """The images of a file, or of one of several sets in it."""
    stacks = source.stacks(found.name)
    key = layout.images or _only_images(stacks, layout)
    count = _length(stacks.array(key), found.name)
    source.notes += _notes_on_samples(stacks.array(key), f"{found.name}/{key}".rstrip("/"))
    rows = None if table is None else _rows(source, table, layout, count)
    of_all = found.get("class") if labels_file is None and not labels_in.given else ""
    labels: Sequence[str | None] = [of_all] * count
    if not of_all:
        size = _size(stacks.array(key).shape, layout.axes)
        values, where = stated(source, stacks, labels_file, rows, layout, count, labels_in, size)
        if labels_in.target != "value" and rows is None and not layout.values:
            own = stacks if labels_file is None else source.stacks(labels_file.name)
            several = labels_in.target == "labels"
            check_class_names(own, values[0], source.manifest.classes, several=several)
        labels = labels_in.labels(values, where)
    groups, splits = (column(stacks, rows, name, count) for name in (layout.group, layout.split))
    columns = {place: column(stacks, rows, place, count) for place in layout.attributes.values()}
    digits, name = len(str(max(count - 1, 0))), found.get("name") or stem(found.name)
    name = f"{name}_{of_set}" if of_set else name
    for index in range(count):
        file = Element(found.name, key, index).name
        if labels[index] is None:
            continue
        split = (splits[index] if splits else "") or of_set or found.get("split")
        yield SourceImage(
            f"{name}_{index:0{digits}}",
            (file,),
            (groups[index] if groups else "") or found.get("group") or file,
            label=labels[index],
            split=layout.set_of(split, file),
            attributes=layout.values_of(lambda place, index=index: columns[place][index]),  # type: ignore[misc]
        )


def _only_images(stacks: Stacks, layout: Layout) -> str:
    others = {layout.labels, layout.label, layout.value, *layout.indicators, layout.group, layout.split}
    fits = {name: shape for name, shape in stacks.names().items() if name not in others - {""} and len(shape) in (3, 4)}
    if len(fits) != 1:
        raise ManifestError(
            f"{len(fits)} arrays that may be of images",
            where=stacks.name,
            found=stacks.listed() or None,
            remedy="name it in the manifest: `images` in [layout]",
        )
    return next(iter(fits))


def _length(array: Array, where: str) -> int:
    if len(array.shape) not in (3, 4):
        raise ReadError("no array of images", where=where, found=f"{array.shape}", expected="3 or 4 axes")
    return int(array.shape[0])


def _size(shape: tuple[int, ...], axes: str) -> tuple[int, int] | None:
    """Return height and width of the images of an array (N, ...); None if its axes are not clear."""
    first = axes == "NCHW" or (not axes and len(shape) == 4 and shape[1] in CHANNELS and shape[3] not in CHANNELS)
    last = (
        axes in ("NHWC", "NHW") or len(shape) == 3 or (not axes and shape[3] in CHANNELS and shape[1] not in CHANNELS)
    )
    if first:
        return shape[2], shape[3]
    return (shape[1], shape[2]) if last else None


def _notes_on_samples(array: Array, where: str) -> list[str]:
    """A note on bytes that are all 0 or 1 in the first, the middle and the last image: fractions that were cut off."""
    if array.dtype != np.uint8 or not array.shape[0]:
        return []
    try:
        looked_at = [np.asarray(array[index]) for index in sorted({0, array.shape[0] // 2, array.shape[0] - 1})]
    except DAMAGED:
        return []  # which the conversion reports, with the image
    if not all(image.size and image.max() == 1 for image in looked_at):
        return []
    return [
        f"{where}: the images are nearly black, with samples of 0 and 1 out of 255 in the {len(looked_at)} looked at; "
        "if samples between 0 and 1 were made whole, save them as floating-point numbers, and state "
        "`range = [0, 1]` under [pixels]"
    ]


def _rows(source: Source, table: MatchedFile, layout: Layout, count: int) -> list[tuple[TableRow, str]]:
    read = Table(source.read(table.name), table.name, layout.dialect)
    rows = [(row, f"{table.name}, line {row.line}") for row in read]
    if len(rows) != count:
        raise SourceError("not one row per image", where=table.name, expected=f"{count}", found=f"{len(rows)}")
    source.notes += read.notes()
    return rows
