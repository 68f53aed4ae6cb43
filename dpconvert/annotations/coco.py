"""COCO JSON: pixels from the top left; polygons, run-length masks (column by column), boxes.

https://cocodataset.org/#format-data

One file may hold many pictures: the one wanted is found by the end of its file name. A label is its category's name,
else its supercategory. What was drawn on a smaller copy is scaled by the stated size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Annotated

import numpy as np
import shapely
from pydantic import Field, TypeAdapter

from dpconvert.annotations import outlines
from dpconvert.annotations.geometry import Annotation, Annotations, Geometry, polygon
from dpconvert.annotations.labels import resolved
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, parsed
from dpconvert.errors import ReadError
from dpconvert.plural import counted

Id = int | str
Side = Annotated[int, Field(gt=0, lt=1_000_000)]
MOST_RUNS = 2_000_000


class Picture(Loose):
    id: Id
    file_name: str = ""
    width: Side | None = None
    height: Side | None = None


class Category(Loose):
    id: Id
    name: str = ""
    supercategory: str | None = None


class Rle(Loose):
    size: Annotated[list[Side], Field(min_length=2, max_length=2)]
    counts: list[Annotated[int, Field(ge=0, lt=1 << 40)]] | str


class Item(Loose):
    id: Id = ""
    image_id: Id
    category_id: Id | None = None
    segmentation: list[list[Coordinate]] | Rle | None = None
    bbox: Annotated[list[Coordinate], Field(max_length=4)] | None = None


class File(Loose):
    images: list[Picture]
    categories: list[Category] = []
    annotations: list[Item]


FILE = TypeAdapter(File)


def parse(data: bytes, name: str) -> File:
    """The file, checked; reading it once serves all its pictures.

    Raises:
        ReadError: not such a file.
    """
    return parsed(data, name, FILE)


def shapes(file: File, name: str, picture: str, size: tuple[int, int], known: Collection[str] = ()) -> Annotations:
    """The annotations of one picture: its file name, and its size (width, height) in level-0 pixels.

    Raises:
        ReadError: the file does not know the picture, states another shape of it, or has a category that is not known.
    """
    entry = _entry(file, name, picture)
    factors = _factors(entry, size, name)
    categories = {category.id: (category.name, category.supercategory or "") for category in file.categories}
    mended: Counter[str] = Counter()
    items = []
    for item in (item for item in file.annotations if item.image_id == entry.id):
        shape = _shape(item, mended, name)
        if shape is None:
            continue
        label = resolved(_names(item, categories, name), known, name)
        scaled = shape if factors == (1, 1) else shapely.transform(shape, lambda xy: xy * factors)
        items.append(Annotation(scaled, label, str(item.id)))
    return Annotations(items, mended)


def _names(item: Item, categories: dict[Id, tuple[str, str]], name: str) -> tuple[str, ...]:
    if item.category_id is None:
        return ()
    if item.category_id not in categories:
        raise ReadError(f"annotation {item.id} is of no category", where=name, found=repr(item.category_id)[:40])
    return categories[item.category_id]


def named(file: File, picture: str) -> list[Picture]:
    """The file's entries for a picture: of its whole name, else of its last part, else of that without extension."""
    for told in (str, lambda n: PurePosixPath(n).name, _bare):
        found = [p for p in file.images if told(p.file_name.replace("\\", "/")) == told(picture)]
        if found:
            return found
    return []


def _entry(file: File, name: str, picture: str) -> Picture:
    found = named(file, picture)
    if len(found) == 1:
        return found[0]
    if found:
        raise ReadError(f"{len(found)} pictures named {picture!r}", where=name)
    have = ", ".join(p.file_name for p in file.images[:3])
    raise ReadError(f"does not know the picture {picture!r}", where=name, found=f"{have}, ... ({len(file.images)})")


def _bare(name: str) -> str:
    return re.sub(r"(?i)(\.ome)?\.[a-z0-9]{2,7}$", "", PurePosixPath(name).name)


def _factors(entry: Picture, size: tuple[int, int], name: str) -> tuple[float, float]:
    stated = entry.width or size[0], entry.height or size[1]
    if abs(stated[0] * size[1] - stated[1] * size[0]) > max(size):
        raise ReadError(f"states another shape of {entry.file_name}", where=name, expected=size, found=stated)
    return size[0] / stated[0], size[1] / stated[1]


def _shape(item: Item, mended: Counter[str], name: str) -> Geometry | None:
    if isinstance(item.segmentation, Rle):
        return _decoded(item.segmentation, mended, name)
    if item.segmentation:
        rings = [polygon(list(zip(flat[::2], flat[1::2], strict=False)), mended) for flat in item.segmentation]
        found = [ring for ring in rings if ring is not None]
        return shapely.union_all(found) if found else None
    if item.bbox and len(item.bbox) == 4 and min(item.bbox[2:]) > 0:
        x, y, width, height = item.bbox
        return shapely.box(x, y, x + width, y + height)
    mended["annotation without an outline"] += 1
    return None


def _decoded(rle: Rle, mended: Counter[str], name: str) -> Geometry | None:
    """Counts alternate between off and on, down the columns, off first."""
    height, width = rle.size
    lengths = _lengths(rle.counts, name) if isinstance(rle.counts, str) else rle.counts
    if sum(lengths) != height * width:
        raise ReadError("run lengths do not fill the mask", where=name, expected=height * width, found=sum(lengths))
    edges = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))])
    start, end = edges[1:-1:2], edges[2::2]
    keep = end > start
    start, end = start[keep], end[keep]
    if not len(start):
        mended["annotation without an outline"] += 1
        return None
    return outlines.outline(_by_column(start, end, height, name), columns=True)


def _by_column(start: outlines.Runs, end: outlines.Runs, height: int, name: str) -> outlines.Runs:
    """Runs over the whole mask cut at the columns' ends."""
    spans = (end - 1) // height - start // height + 1
    if spans.sum() > MOST_RUNS:
        raise ReadError(f"{counted(spans.sum(), 'run')} in a mask", where=name, expected=f"at most {MOST_RUNS}")
    which = np.repeat(np.arange(len(start)), spans)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(spans) - spans, spans)
    column = start[which] // height + nth
    first = np.where(nth == 0, start[which] - column * height, 0)
    last = np.minimum(end[which] - column * height, height)
    return np.stack([column, first, last], axis=1)


def _lengths(text: str, name: str) -> list[int]:
    """COCO's compressed counts: five bits a character from '0' on, the sixth says that more follow; from the fourth
    count on, the difference to the one two before (the API's `rleFrString`)."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ReadError("run lengths that cannot be read", where=name, found=repr(text[:20]))
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            if lengths[-1] < 0:
                raise ReadError("a negative run length", where=name, found=lengths[-1])
            value = shift = 0
    if shift:
        raise ReadError("run lengths that are cut", where=name)
    return lengths
