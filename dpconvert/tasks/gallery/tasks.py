"""Task folders in, what a page shows of each out: its card, its index in numbers, and a few pictures of each class."""

from __future__ import annotations

import io
import json
import math
import tarfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.card import FILE_NAME, INDEX_NAME, TaskCard, load
from dpconvert.errors import ShardError
from dpconvert.image.guards.libtiff import UNREADABLE
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.tar import file_card, read_index
from dpconvert.source.bounded import DAMAGED

SIDE = 112  # px: the longer side of a picture on the page
PICTURES = 8  # of a class
CLASSES = 60  # of a task, whose pictures are shown
LOOKED_AT = 200  # samples whose resolution is read
QUALITY = 80  # of JPEG
VERIFY = "`dpconvert verify` says what is damaged"
COLUMNS = ("key", "split", "shard", "offset", "length", "label", "group", "stored_width", "stored_height")


@dataclass(frozen=True)
class Example:
    """A picture on the page: `jpeg` holds it scaled down to SIDE; width and height, in px, are those of `jpeg`."""

    key: str
    split: str
    width: int
    height: int
    jpeg: bytes


@dataclass(frozen=True)
class Seen:
    """A finished task.

    widths, heights: of stored pictures in px, one entry a sample. groups: samples of each group.
    mpp: um per px of up to LOOKED_AT stored pictures; empty where none is known. examples: label -> pictures.
    """

    folder: Path
    card: TaskCard
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    groups: NDArray[np.int64]
    mpp: NDArray[np.float64]
    examples: dict[int, list[Example]]


@dataclass(frozen=True)
class Unfinished:
    """A folder that holds no finished task, or a damaged one."""

    folder: Path
    why: str


@dataclass(frozen=True)
class Gallery:
    """All folders that were looked at."""

    tasks: list[Seen]
    unfinished: list[Unfinished]


def read_tasks(folders: Sequence[Path], report: Reporter) -> Gallery:
    """What the page shows of each folder; a task that cannot be read is among the unfinished, with the reason."""
    tasks, unfinished = [], []
    with report.bar("preview", len(folders), unit="tasks") as advance:
        for folder in folders:
            try:
                tasks.append(_read(folder))
            except ShardError as error:
                unfinished.append(Unfinished(folder, str(error)))
            advance(1, folder.name)
    return Gallery(tasks, unfinished)


def _read(folder: Path) -> Seen:
    card = load(folder)
    if any(len(split.classes) != len(card.classes) for split in card.splits.values()):
        raise ShardError("a set does not count every class", where=folder / FILE_NAME, remedy=VERIFY)
    rows = _index(folder, card)
    column = {name: np.asarray(rows[name].to_numpy(zero_copy_only=False)) for name in COLUMNS if name != "group"}
    codes = rows["group"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return Seen(
        folder, card, column["stored_width"], column["stored_height"], np.bincount(codes), _resolutions(folder, column),
        _examples(folder, card, column),
    )  # fmt: skip


def _index(folder: Path, card: TaskCard) -> Any:
    path, shards = folder / INDEX_NAME, [shard.name for shard in card.shards]
    try:
        if file_card(path).sha256 != card.index.sha256:
            raise ShardError("not the index that was written", where=path, remedy=VERIFY)
        rows = read_index(path).select(list(COLUMNS))
        alien = sorted(name for name in rows["shard"].unique().to_pylist() if name not in shards or "/" in name)
        if alien or any(rows[name].null_count for name in COLUMNS):
            raise ShardError("not an index of this task's shards", where=path, found=alien[:1] or None, remedy=VERIFY)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise ShardError(f"not a readable index: {error}", where=path, remedy=VERIFY) from None
    return rows


def _resolutions(folder: Path, column: dict[str, Any]) -> NDArray[np.float64]:
    """`mpp_stored` of samples that lie evenly in the index."""
    found = []
    for _, _, metadata in _samples(folder, column, evenly(np.arange(len(column["key"])), LOOKED_AT)):
        told = metadata.get("mpp_stored")
        if isinstance(told, int | float) and math.isfinite(told) and told > 0:
            found.append(float(told))
    return np.array(found, dtype=np.float64)


def _examples(folder: Path, card: TaskCard, column: dict[str, Any]) -> dict[int, list[Example]]:
    """Label -> pictures, from the training set, or the validation set where that has none."""
    chosen: list[int] = []
    for label in range(min(len(card.classes), CLASSES)):
        of_class = column["label"] == label
        sets = (np.flatnonzero(of_class & (column["split"] == split)) for split in ("train", "val"))
        chosen += evenly(next((rows for rows in sets if len(rows)), np.array([], dtype=np.intp)), PICTURES)
    shown: dict[int, list[Example]] = {}
    for row, picture, _ in _samples(folder, column, sorted(chosen)):
        key, split = str(column["key"][row]), str(column["split"][row])
        jpeg, width, height = _small(picture, f"{folder / column['shard'][row]}: {key}")
        shown.setdefault(int(column["label"][row]), []).append(Example(key, split, width, height, jpeg))
    return shown


def evenly(rows: NDArray[np.intp], most: int) -> list[int]:
    """At most so many of the rows, from the first to the last at equal steps."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.intp)
    return [int(row) for row in rows[places]]


def _samples(folder: Path, column: dict[str, Any], rows: Iterable[int]) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """(row, bytes of its picture, its JSON) of each; rows in the order of the index."""
    for shard, of_shard in groupby(rows, lambda row: str(column["shard"][row])):
        try:
            with (folder / shard).open("rb") as file:
                for row in of_shard:
                    yield row, *_sample(file, int(column["offset"][row]))
        except (OSError, RecursionError, *DAMAGED) as error:
            why = getattr(error, "strerror", None) or error
            raise ShardError(f"cannot be read: {why}", where=folder / shard, remedy=VERIFY) from None


def _sample(file: IO[bytes], offset: int) -> tuple[bytes, dict[str, Any]]:
    """A sample whose picture begins at `offset`: picture, label and JSON follow each other, each after its header."""
    file.seek(offset - tarfile.BLOCKSIZE)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        contents = [opened.read() for _ in range(3) if (member := tar.next()) and (opened := tar.extractfile(member))]
    if len(contents) != 3:
        raise ValueError(f"no sample at byte {offset}")
    metadata = json.loads(contents[2])
    return contents[0], metadata if isinstance(metadata, dict) else {}


def _small(data: bytes, where: str) -> tuple[bytes, int, int]:
    """A picture as a small JPEG, with its width and height in px."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
                picture.draft("RGB", (2 * SIDE, 2 * SIDE))
                small = picture.convert("RGB")
    except UNREADABLE as error:
        raise ShardError(f"does not decode: {error}", where=where, remedy=VERIFY) from None
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue(), small.width, small.height
