"""Masks of HuBMAP's competitions: run lengths in a table; or polygons, one image per line of JSON, or one per file.

https://www.kaggle.com/competitions/hubmap-kidney-segmentation/data (`id`, `encoding`),
https://www.kaggle.com/competitions/hubmap-organ-segmentation/data (`id`, `rle`, `img_height`, `img_width`, `organ`; and
`train_annotations/10044.json`, a list of polygons [[[x, y], ...], ...]),
https://www.kaggle.com/competitions/hubmap-hacking-the-human-vasculature/data (`polygons.jsonl`). Run lengths are pairs
of a first pixel, counted from 1 down the columns, and a number of pixels. A mask's label is its organ, if that is
stated; polygons of a bare list have none.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Annotated

import numpy as np
import shapely
from pydantic import Field, TypeAdapter

from dpconvert.annotations import outlines
from dpconvert.annotations.geometry import Geometry, polygon
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing import xml_tree
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, each, parsed
from dpconvert.annotations.parsing.table import rows_of_program
from dpconvert.errors import ReadError

MOST_RUNS = 2_000_000
RUNS = ("encoding", "rle")
Position = Annotated[list[Coordinate], Field(min_length=2)]


class HubmapOutline(Loose):
    type: str = ""
    coordinates: list[list[Position]] = []


class HubmapImage(Loose):
    id: str
    annotations: list[HubmapOutline] = []


IMAGE = TypeAdapter(HubmapImage)
OUTLINES = TypeAdapter(list[list[tuple[Coordinate, Coordinate]]])


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the images of the file.

    Raises:
        ReadError: The content is not such a file, or its run lengths cannot be read.
    """
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return [_outlined(image) for image in each(data, name, IMAGE, "")]
    return _of_table(data, name)


def parse_outlines(data: bytes, name: str) -> list[ListedImage]:
    """Return the only image of a file that is a bare list of polygons, each a list of points [x, y].

    Raises:
        ReadError: The content is not such a list.
    """
    remarks: Counter[str] = Counter()
    shapes = [polygon(ring, remarks) for ring in parsed(data, name, OUTLINES)]
    drawn = [ListedShape(shape, id=str(number)) for number, shape in enumerate(shapes) if shape is not None]
    return [ListedImage("", None, drawn, remarks)]


def _outlined(image: HubmapImage) -> ListedImage:
    remarks: Counter[str] = Counter()
    drawn = []
    for number, one in enumerate(image.annotations):
        rings = [[(p[0], p[1]) for p in ring] for ring in one.coordinates]
        shape = polygon(rings[0], remarks, rings[1:]) if rings else None
        if shape is not None:
            drawn.append(ListedShape(shape, (one.type,), str(number)))
    return ListedImage(image.id, None, drawn, remarks)


def _of_table(data: bytes, name: str) -> list[ListedImage]:
    try:
        return [_row(row, name) for _, row in rows_of_program(data, name)]
    except (KeyError, ValueError) as error:
        raise ReadError(f"not a table of run lengths: {error}", where=name) from None


def _row(row: dict[str, str], name: str) -> ListedImage:
    text = next((row[column] or "" for column in RUNS if column in row), "")
    stated = [xml_tree.parsed(row.get(side) or "0", side, name) for side in ("img_width", "img_height")]
    own = (int(stated[0]), int(stated[1])) if min(stated) > 0 else None
    try:
        runs = np.array(text.split(), dtype=np.int64)
    except OverflowError:
        raise ReadError("run lengths beyond any image", where=name) from None
    if len(runs) % 2 or len(runs) > 2 * MOST_RUNS:
        raise ReadError("run lengths that are not pairs", where=name, found=f"{len(runs)} numbers of {row['id']}")
    shape = partial(_outline, runs.reshape(-1, 2), own, name)
    drawn = [ListedShape(shape, (row.get("organ") or "",))] if len(runs) else []
    return ListedImage(row["id"] or "", own, drawn)


def _outline(runs: outlines.Runs, stated: tuple[int, int] | None, name: str, size: tuple[int, int]) -> Geometry | None:
    """The area of runs in an image of `size`; of a mask of another size (`stated`), scaled to it."""
    width, height = stated or size
    first, last = runs[:, 0] - 1, runs[:, 0] - 1 + runs[:, 1]
    if (first < 0).any() or (runs[:, 1] < 1).any() or last.max() > width * height:
        raise ReadError("run lengths beyond the image", where=name, expected=f"1 to {width * height}", found=last.max())
    area = outlines.outline(outlines.by_column(first, last, height, name), columns=True)
    return shapely.transform(area, lambda xy: xy * (size[0] / width, size[1] / height))
