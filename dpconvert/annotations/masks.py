"""Label masks: images whose values are classes, or numbers of objects whose classes a table lists.

A mask has the scale of the image that it belongs to, or a coarser one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter

from dpconvert.annotations import mask_pixels, outlines
from dpconvert.annotations.geometry import Annotation, Annotations
from dpconvert.annotations.mask_pixels import Reading
from dpconvert.annotations.parsing.json_text import parsed
from dpconvert.annotations.parsing.table import records
from dpconvert.errors import ReadError
from dpconvert.image.coverage import Coverage

STRETCHED = "mask whose size is not a fraction of its image's, stretched over it"
READINGS: tuple[Reading, ...] = ("shown", "stored")
WhiteIsZero = Literal["", "shown", "stored"]
"""Which values of a TIFF mask count whose zero is white: as viewers show them, or as the file stores them."""

TABLE = TypeAdapter(dict[int, str])


class LabelMask:
    """`values` (rows, columns) stretched over an image of `width` x `height` px; `labels`: value -> class.

    instances: each value is one object; else each connected area of a class is. remarks: what a user should know of how
    the file was read, counted.
    """

    def __init__(
        self,
        values: NDArray[np.integer],
        labels: Mapping[int, str],
        width: int,
        height: int,
        *,
        instances: bool = False,
        remarks: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.values, self.labels, self.width, self.height = values, labels, width, height
        self.instances, self.remarks = instances, Counter(remarks)

    def share(self, boxes: ArrayLike, labels: Sequence[str]) -> NDArray[np.float64]:
        """Exact share of boxes (N, 4) of x, y, width, height whose values mean one of `labels`."""
        wanted = [value for value, label in self.labels.items() if label in labels]
        mask = np.isin(self.values, wanted)
        if not mask.any():  # most images hold few of the classes
            return np.zeros(len(np.asarray(boxes).reshape(-1, 4)))
        return Coverage(mask, self.width, self.height).share(boxes)

    def at(self, points: ArrayLike) -> list[str | None]:
        """The class under each point (N, 2) of x, y in level-0 pixels; None outside or where the value means none."""
        x, y = np.asarray(points, dtype=np.float64).reshape(-1, 2).T
        rows, columns = self.values.shape
        j, i = np.floor(x * columns / self.width).astype(int), np.floor(y * rows / self.height).astype(int)
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        found = self.values[i.clip(0, rows - 1), j.clip(0, columns - 1)]
        return [self.labels.get(int(v)) if ok else None for v, ok in zip(found, inside, strict=True)]

    def objects(self, labels: Collection[str] = ()) -> Annotations:
        """The objects with one of `labels` (all, if there are none), each the exact area of its cells."""
        rows, columns = self.values.shape
        scale = self.width / columns, self.height / rows
        items = []
        for number, (cells, (top, left), label) in enumerate(self._cells(labels)):
            area = shapely.transform(
                outlines.outline(outlines.of_mask(cells)), lambda xy, at=(left, top): (xy + at) * scale
            )
            items.append(Annotation(area, label, str(number)))
        return Annotations(items)

    def _cells(self, labels: Collection[str]) -> Iterator[tuple[NDArray[np.bool_], tuple[int, int], str]]:
        """(cells, their top left, label) of each object."""
        from scipy import ndimage  # a third of the time that a worker takes to start, and few sources need it

        wanted = {value: label for value, label in self.labels.items() if not labels or label in labels}
        if self.instances:
            present, numbered = np.unique(self.values, return_inverse=True)
            yield from _pieces(numbered.reshape(self.values.shape) + 1, [wanted.get(int(v)) for v in present])
            return
        for label in dict.fromkeys(wanted.values()):
            same = np.isin(self.values, [value for value in wanted if wanted[value] == label])
            numbered, count = ndimage.label(same, np.ones((3, 3)))
            yield from _pieces(numbered, [label] * count)


def read(
    data: bytes,
    name: str,
    labels: Mapping[int | str, str],
    size: tuple[int, int],
    *,
    threshold: int | None = None,
    instances: bool = False,
    white_is_zero: WhiteIsZero = "",
) -> LabelMask:
    """A mask for an image of `size` (width, height).

    labels: numbers, or colours "#rrggbb", -> classes. Palette images give their indexes where numbers are named; of
    colour images the channels must be equal then. With `threshold` values become 0 or 1 (above it): for masks with
    grey fringes, as JPEG leaves them. white_is_zero: the reading of a TIFF whose zero is white (see `mask_pixels`);
    without it, the one that `labels` allow.

    Raises:
        ReadError: not an image, of several pages, of another shape than the image, or with a value that `labels`
            does not have; or both readings of a TIFF whose zero is white are possible.
    """
    known, colours = mask_pixels.numbered(labels, name)
    remarks: Counter[str] = Counter()
    reading: Reading = white_is_zero or "shown"
    if not white_is_zero and not colours and mask_pixels.zero_is_white(data):
        reading = _reading(data, name, known, threshold)
        remarks[f"mask of a TIFF whose zero is white, its values read as {reading}"] += 1
    values = mask_pixels.read(data, name, colours=colours, threshold=threshold, reading=reading)
    remarks[STRETCHED] += is_stretched(values, size, name)
    unknown = sorted(set(np.unique(values).tolist()) - set(known))
    if unknown:
        stated = ", ".join(mask_pixels.shown(value, colours=colours) for value in sorted(known))
        raise ReadError(
            f"mask {'colour' if colours else 'value'} {mask_pixels.shown(unknown[0], colours=colours)} has no label",
            where=name,
            expected=f"one of {stated}" if known else "`values` in the manifest's [layout]",
            remedy="name every value in the manifest, or give a threshold",
        )
    return LabelMask(values, known, *size, instances=instances, remarks=+remarks)


def is_stretched(values: NDArray[np.integer], size: tuple[int, int], name: str) -> bool:
    """Whether a mask has a size that is not a fraction of its image's.

    Raises:
        ReadError: The mask has another shape than the image.
    """
    rows, columns = values.shape
    if not has_shape((columns, rows), size):
        raise ReadError(
            "mask of another shape than its image", where=name, expected=f"{size}", found=f"{(columns, rows)}"
        )
    return not is_reduced((columns, rows), size)


def has_shape(mask: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a mask (width, height) has the aspect ratio of its image, but for rounding."""
    return abs(mask[0] * size[1] - mask[1] * size[0]) <= max(size)


def is_reduced(mask: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a mask has the (width, height) of its image, divided by one whole number and rounded up or down."""
    factor = max(round(size[0] / mask[0]), round(size[1] / mask[1]), 1)
    return all(side // factor <= of_mask <= -(-side // factor) for of_mask, side in zip(mask, size, strict=True))


def _reading(data: bytes, name: str, known: Collection[int], threshold: int | None) -> Reading:
    """The only reading of a TIFF whose zero is white that gives no value without a label.

    Raises:
        ReadError: both do, and differ.
    """
    found = {way: mask_pixels.read(data, name, colours=False, threshold=threshold, reading=way) for way in READINGS}
    fit = [way for way in READINGS if set(np.unique(found[way]).tolist()) <= set(known)]
    if len(fit) > 1 and not np.array_equal(found["shown"], found["stored"]):
        raise two_readings(name)
    return fit[-1] if fit else "shown"


def two_readings(name: str) -> ReadError:
    return ReadError(
        "a mask whose zero is white (PhotometricInterpretation 0), which programs read in opposite ways",
        where=name,
        remedy='say in the manifest\'s [layout] which values count: `white_is_zero = "shown"` as viewers show them '
        '(white is the largest), or "stored" as the file holds them (white is 0)',
    )


def class_table(data: bytes, name: str) -> dict[int, str]:
    """Read the classes of an instance mask: a JSON object {"1": "tumour"}, or lines `1,tumour` with or without a head.

    Raises:
        ReadError: The content is neither, or a line lacks a number and a class.
    """
    if data.lstrip().startswith(b"{"):
        return parsed(data, name, TABLE)
    table: dict[int, str] = {}
    rows = [(line, cells) for line, cells in records(data, name) if any(cells)]
    for at, (line, cells) in enumerate(rows):
        if len(cells) >= 2 and cells[0].isdecimal() and len(cells[0]) < 20:
            if table.setdefault(int(cells[0]), cells[1]) != cells[1]:
                raise ReadError(f"line {line}: a second class for value {cells[0]}", where=name, found=repr(cells)[:40])
        elif at:
            raise ReadError(f"line {line} is not a value and a class", where=name, found=repr(cells)[:40])
    return table


def _pieces(
    numbered: NDArray[np.integer], labels: Sequence[str | None]
) -> Iterator[tuple[NDArray[np.bool_], tuple[int, int], str]]:
    """Areas numbered from 1, those with a label."""
    from scipy import ndimage

    for number, (at, label) in enumerate(zip(ndimage.find_objects(numbered), labels, strict=False), start=1):
        if at is not None and label is not None:
            yield numbered[at] == number, (at[0].start, at[1].start), label
