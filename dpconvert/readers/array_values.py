"""What the arrays of a file, or the rows of a table beside it, say of images: labels, groups, splits, attributes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpconvert import names
from dpconvert.annotations.parsing.table import TableRow
from dpconvert.errors import ManifestError, ReadError, SourceError
from dpconvert.readers.layouts.table import cell
from dpconvert.readers.values import InValues, decoded, name_in
from dpconvert.source.arrays.stacks import DAMAGED, Array, Stacks, enumeration
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile

LAST = 3  # axis of the kinds in a stack of masks (N, height, width, kinds)
AT_ONCE = 1 << 26  # bytes of masks that are examined together
Rows = list[tuple[TableRow, str]]
"""Rows of a table, one for each image, and where they are."""


class ArrayLabelKeys(Protocol):
    """Keys of [layout] that say where the labels are."""

    @property
    def label(self) -> str: ...
    @property
    def labels(self) -> str: ...
    @property
    def column(self) -> int | None: ...
    @property
    def indicators(self) -> list[str]: ...
    @property
    def value(self) -> str: ...


def column(stacks: Stacks, rows: Rows | None, name: str, count: int) -> list[str]:
    """What a column of the table, or an array beside the images, says of each image; empty without a name."""
    if not name:
        return []
    if rows is not None:
        return [cell(row, name, where) for row, where in rows]
    return _texts(stacks.array(name), count, f"{stacks.name}/{name}")


def stated(
    source: Source,
    stacks: Stacks,
    file: MatchedFile | None,
    rows: Rows | None,
    layout: ArrayLabelKeys,
    count: int,
    labels_in: InValues,
    size: tuple[int, int] | None = None,
) -> tuple[list[list[Any]], Callable[[int], str]]:
    """Return what the files say of the images, a list for each place of labels, and how the place of one is called.

    size: height and width of the images, if known.
    """
    if layout.indicators or layout.label or (layout.value and rows is not None):
        if rows is not None:
            return [column(stacks, rows, name, count) for name in labels_in.places], lambda index: rows[index][1]
        of_file, keys = stacks if file is None else source.stacks(file.name), labels_in.places
    else:
        of_file = stacks if file is None else source.stacks(file.name)
        keys = [layout.value or layout.labels or _only_labels(of_file, is_own=file is not None, labels_in=labels_in)]
    if layout.column is not None:
        values = [_marked(of_file.array(keys[0]), layout.column, count, size, _place(of_file, keys[0]))]
    else:
        values = [_values(of_file.array(key), count, _place(of_file, key), labels_in) for key in keys]
    return values, lambda index: f"{_place(of_file, keys[0])}, image {index}"


def _place(stacks: Stacks, key: str) -> str:
    return "/".join(filter(None, (stacks.name, key)))


def _only_labels(stacks: Stacks, *, is_own: bool, labels_in: InValues) -> str:
    """Return the name of the array of labels where the manifest does not name it.

    is_own: whether the file is one of labels, and not that of the images.
    """
    if is_own and len(stacks.names()) == 1:
        return next(iter(stacks.names()))
    if is_own and stacks.name.lower().endswith(".npy"):
        return ""
    key = "value" if labels_in.target == "value" else "labels"
    raise ManifestError(
        "nothing says which array holds the labels",
        where=stacks.name,
        found=", ".join(stacks.names()),
        remedy=f"name it in the manifest's [layout]: `{key}`"
        + (", or `label` for a column of the table" if key == "labels" else ""),
    )


def _values(array: Array, count: int, where: str, labels_in: InValues) -> list[Any]:
    """Return what an array says of each image: a number, a text, or, of any number of classes, a list of numbers."""
    values = _rows_of(array, count, where)
    if values.shape[1] == 1:
        if labels_in.target == "value" and (known := enumeration(array)):
            raise SourceError("numbers of classes, not measured ones", where=where, found=", ".join(known.values()))
        return [_plain(value) for value in named(array, values[:, 0].tolist(), where)]
    if labels_in.target == "labels":
        return [list(map(_plain, row)) for row in values.tolist()]
    if labels_in.target == "value":
        raise SourceError("several values an image, where one number is expected", where=where, found=f"{array.shape}")
    return list(_places(values, where).tolist())


def check_class_names(stacks: Stacks, values: list[Any], classes: list[str], *, several: bool) -> None:
    """Refuse numbers of classes that the file names in another order than the manifest, as in an array `class_names`.

    values: what the file says of each image. several: whether an image may have several classes.

    Raises:
        SourceError: the numbers would mean other classes than the file says.
    """
    if len(classes) < 2 or any(isinstance(value, str) for value in values):
        return
    for key, found in stacks.texts(len(classes)).items():
        known = [names.match(name_in(text), classes) for text in found]
        if None not in known and len(set(known)) == len(classes) and known != classes:
            order = ", ".join(json.dumps(name, ensure_ascii=False) for name in known)
            numbered = ", ".join(f'{number} = "{name}"' for number, name in enumerate(known))
            raise SourceError(
                "the file names its classes in another order than the manifest",
                where=_place(stacks, key),
                found=", ".join(map(str, known)),
                expected=", ".join(classes),
                remedy=f"put them in the file's order: classes = [{order}]"
                if several
                else f"state in [layout] what the numbers are: values = {{{numbered}}}",
            )


def named(array: Array, values: list[Any], where: str) -> list[Any]:
    """Return values of an array; in place of numbers, the names that an enumerated type of HDF5 gives them.

    Raises:
        ReadError: the type names no such number.
    """
    known = enumeration(array)
    if not known:
        return values
    if unknown := sorted(set(values) - known.keys()):
        found = f"{unknown[0]}; it names {', '.join(f'{number} {name}' for number, name in known.items())}"
        raise ReadError("a number that the file's type does not name", where=where, found=found)
    return [known[value] for value in values]


def _plain(value: Any) -> Any:
    return decoded(value).strip() if isinstance(value, bytes) else value


def _texts(array: Array, count: int, where: str) -> list[str]:
    """Return a text for each image: of its group, split or an attribute."""
    values = _rows_of(array, count, where)
    if values.shape[1] > 1:
        return [name_in(value) for value in _places(values, where).tolist()]
    return [name_in(value) for value in named(array, values[:, 0].tolist(), where)]


def _rows_of(array: Array, count: int, where: str) -> NDArray[Any]:
    """Return the values of an array as a row for each image."""
    if not array.shape or array.shape[0] != count:
        raise SourceError("not one value per image", where=where, expected=f"{count}", found=f"{array.shape}")
    size = int(np.prod(array.shape[1:], dtype=np.int64))
    if size > 1000:
        raise ManifestError(
            "masks, and no labels",
            where=where,
            found=" x ".join(map(str, array.shape)),
            remedy="say in [layout] which of them is looked at: `column`",
        )
    try:
        return np.asarray(array[:]).reshape(count, size)
    except DAMAGED as error:
        raise ReadError(f"damaged: {error}", where=where, remedy="fetch it again") from None


def _places(values: NDArray[Any], where: str) -> NDArray[Any]:
    single = (values == 1).sum(1) == 1
    hot = single & ((values == 0).sum(1) == values.shape[1] - 1)
    if not hot.all():
        row = int(np.flatnonzero(~hot)[0])
        raise SourceError("several values an image, which are not 0 and a single 1", where=f"{where}, image {row}")
    places: NDArray[Any] = values.argmax(1)
    return places


def _marked(array: Array, column: int, count: int, size: tuple[int, int] | None, where: str) -> list[str]:
    """ "1" for each image of which this mask marks a pixel, else "0"; read in slices.

    size: height and width of the images, if known, by which the axis of the kinds is found.
    """
    axis = _axis_of_kinds(array.shape, size)
    if axis is None or array.shape[0] != count or not 0 <= column < array.shape[axis]:
        raise SourceError(
            f"no masks with a column {column}",
            where=where,
            expected=f"{count} x height x width x more than {column}, with the kinds last or before height and width",
            found=" x ".join(map(str, array.shape)),
        )
    chosen = (..., column) if axis == LAST else (slice(None), column)
    step = max(1, AT_ONCE // max(1, int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize))
    try:
        blocks = (np.asarray(array[at : at + step])[chosen] for at in range(0, count, step))
        found = [bool(mark) for block in blocks for mark in np.any(block.reshape(len(block), -1), axis=1)]
    except DAMAGED as error:
        raise ReadError(f"damaged: {error}", where=where, remedy="fetch it again") from None
    return [str(int(mark)) for mark in found]


def _axis_of_kinds(shape: tuple[int, ...], size: tuple[int, int] | None) -> int | None:
    """Return the axis of a stack of masks along which their kinds lie: 3 or 1; None if neither fits, or both do."""
    if len(shape) != LAST + 1:
        return None
    is_last, is_first = shape[1:3] == size, shape[2:4] == size
    if is_last == is_first:  # masks of another size than the images, say
        is_last, is_first = shape[3] < shape[1], shape[1] < shape[3]
    return LAST if is_last else 1 if is_first else None
