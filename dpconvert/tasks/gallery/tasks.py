"""Reads what the page shows of each task: its card, statistics of its index, and a few images of each class."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.card import FILE_NAME, INDEX_NAME, TaskCard, load
from dpconvert.errors import ShardError
from dpconvert.image.guards.libtiff import UNREADABLE
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import file_card, read_index
from dpconvert.source.bounded import DAMAGED
from dpconvert.tasks import labels
from dpconvert.tasks.dense_targets import decode_mask
from dpconvert.tasks.gallery import colours
from dpconvert.tasks.gallery.colours import ColourBaseline
from dpconvert.tasks.overlay import overlaid
from dpconvert.tasks.sample_files import SampleFiles, read_sample

SIDE = 112  # px: the longer side of an image on the page
IMAGES = 8  # images shown of each class
CLASSES = 60  # classes of a task whose images are shown
LOOKED_AT = 200  # samples whose resolution is read
COLOUR_SIDE = 256  # px, of images whose colours are counted
QUALITY = 80  # of JPEG
VERIFY = "`dpconvert verify` lists what is damaged"
COLUMNS = ("key", "split", "shard", "offset", "length", "group", "stored_width", "stored_height")


@dataclass(frozen=True)
class SampleImage:
    """An image on the page: a JPEG scaled down to SIDE, with its width and height in px.

    overlay: the same with masks, points and boxes drawn on it, if the task keeps any. label: in words.
    """

    key: str
    split: str
    width: int
    height: int
    jpeg: bytes
    overlay: bytes | None = None
    label: str = ""


@dataclass(frozen=True)
class TaskSummary:
    """A finished task.

    widths, heights: of stored images in px, one entry per sample. groups: number of samples of each group.
    mpp: um per px of up to LOOKED_AT stored images; empty if unknown. examples: label -> images. colours: what colours
    alone reveal of the classes; None if that is not defined.
    """

    folder: Path
    card: TaskCard
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    groups: NDArray[np.int64]
    mpp: NDArray[np.float64]
    examples: dict[int, list[SampleImage]]
    colours: ColourBaseline | None = None


@dataclass(frozen=True)
class Unfinished:
    """A folder that holds no finished task, or a damaged one."""

    folder: Path
    why: str


@dataclass(frozen=True)
class Gallery:
    """The tasks in all folders, and the folders that could not be read."""

    tasks: list[TaskSummary]
    unfinished: list[Unfinished]


def read_tasks(folders: Sequence[Path], report: Reporter) -> Gallery:
    """Read the folders. A task that cannot be read is among the unfinished ones, with the reason."""
    tasks, unfinished = [], []
    with report.bar("preview", len(folders), unit="tasks") as advance:
        for folder in folders:
            try:
                tasks.append(_read(folder))
            except ShardError as error:
                unfinished.append(Unfinished(folder, str(error)))
            advance(1, folder.name)
    return Gallery(tasks, unfinished)


def colours_of(folder: Path) -> ColourBaseline | None:
    """What colours alone reveal of the classes of a finished task; None if that is not defined.

    Raises:
        ShardError: the task is unfinished or damaged.
    """
    card = load(folder)
    rows = _index(folder, card)
    read = [labels.column(card), *(name for name in COLUMNS if name != "group")]
    return _colours(folder, card, {name: np.asarray(rows[name].to_numpy(zero_copy_only=False)) for name in read})


def _read(folder: Path) -> TaskSummary:
    card = load(folder)
    if any(len(split.classes) != len(card.classes) for split in card.splits.values()):
        raise ShardError("class counts are missing for some set", where=folder / FILE_NAME, remedy=VERIFY)
    rows = _index(folder, card)
    own = labels.column(card)
    read = [own, *(name for name in COLUMNS if name != "group")]
    column = {name: np.asarray(rows[name].to_numpy(zero_copy_only=False)) for name in read}
    codes = rows["group"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return TaskSummary(
        folder,
        card,
        column["stored_width"],
        column["stored_height"],
        np.bincount(codes),
        _resolutions(folder, card, column),
        _examples(folder, card, column),
        _colours(folder, card, column),
    )


def _index(folder: Path, card: TaskCard) -> Any:
    path, shards = folder / INDEX_NAME, [shard.name for shard in card.shards]
    try:
        if file_card(path).sha256 != card.index.sha256:
            raise ShardError("changed since it was written", where=path, remedy=VERIFY)
        rows = read_index(path).select([*COLUMNS, labels.column(card)])
        foreign = sorted(name for name in rows["shard"].unique().to_pylist() if name not in shards or "/" in name)
        if foreign or any(rows[name].null_count for name in COLUMNS):
            raise ShardError("not an index of this task's shards", where=path, found=foreign[:1] or None, remedy=VERIFY)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise ShardError(f"unreadable index: {error}", where=path, remedy=VERIFY) from None
    return rows


def _resolutions(folder: Path, card: TaskCard, column: dict[str, Any]) -> NDArray[np.float64]:
    """`mpp_stored` of samples evenly spaced in the index."""
    values = []
    for _, sample in _samples(folder, card, column, evenly(np.arange(len(column["key"])), LOOKED_AT)):
        mpp = sample.metadata.get("mpp_stored")
        if isinstance(mpp, int | float) and math.isfinite(mpp) and mpp > 0:
            values.append(float(mpp))
    return np.array(values, dtype=np.float64)


def _colours(folder: Path, card: TaskCard, column: dict[str, Any]) -> ColourBaseline | None:
    """What colours alone reveal of the classes: from the training set to the validation set. None without classes."""
    if card.target != "class":
        return None

    def read(rows: list[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for row, sample in _samples(folder, card, column, rows):
            where = f"{folder / column['shard'][row]}: {column['key'][row]}"
            yield row, np.asarray(_decoded(sample.image, where, COLOUR_SIDE))

    train, val = colours.chosen(column["split"], evenly)
    of = column["label"].astype(np.int64)
    return colours.baseline(card.metric, len(card.classes), (train, of[train]), (val, of[val]), read)


def _examples(folder: Path, card: TaskCard, column: dict[str, Any]) -> dict[int, list[SampleImage]]:
    """Label -> images from the training set, or from the validation set if the training set has none.

    Images with numbers are those of a single label, 0, from the lowest number to the highest.
    """
    chosen: dict[int, list[int]] = {}
    for label, of_class in _of_classes(card, column):
        sets = (np.flatnonzero(of_class & (column["split"] == split)) for split in ("train", "val"))
        rows = next((rows for rows in sets if len(rows)), np.array([], dtype=np.intp))
        order = np.argsort(column["value"][rows], kind="stable") if card.target == "value" else slice(None)
        chosen[label] = evenly(rows[order], IMAGES)
    drawn = dict(_drawn(folder, card, column, sorted({row for rows in chosen.values() for row in rows})))
    return {label: [drawn[row] for row in some] for label, some in chosen.items() if some}


def _of_classes(card: TaskCard, column: dict[str, Any]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Each class that is shown, and which samples have it."""
    if card.target == "value":
        yield 0, np.ones(len(column["key"]), np.bool_)
    for label in range(min(len(card.classes), CLASSES)):
        if card.target == "class":
            yield label, column["label"] == label
        else:
            yield label, np.array([label in some for some in column["labels"]], np.bool_)


def _drawn(folder: Path, card: TaskCard, column: dict[str, Any], rows: list[int]) -> Iterator[tuple[int, SampleImage]]:
    """The images of these rows, scaled down."""
    for row, sample in _samples(folder, card, column, rows):
        key, split = str(column["key"][row]), str(column["split"][row])
        where = f"{folder / column['shard'][row]}: {key}"
        stored = int(column["stored_width"][row]), int(column["stored_height"][row])
        small = _small(sample.image, where)
        overlay = None if card.dense is None else _jpeg(_overlaid(small, stored, sample, where))
        yield (
            row,
            SampleImage(key, split, small.width, small.height, _jpeg(small), overlay, _in_words(card, column, row)),
        )


def _in_words(card: TaskCard, column: dict[str, Any], row: int) -> str:
    """The label of an image, if its place on the page does not show it."""
    label = column[labels.column(card)][row]
    return "" if card.target == "class" else labels.in_words(card, label.tolist())


def evenly(rows: NDArray[np.intp], most: int) -> list[int]:
    """At most `most` of the rows, evenly spaced from the first to the last."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.intp)
    return [int(row) for row in rows[places]]


def _samples(
    folder: Path, card: TaskCard, column: dict[str, Any], rows: Iterable[int]
) -> Iterator[tuple[int, SampleFiles]]:
    """(row, its files) for each row; rows are in the order of the index."""
    for shard, of_shard in groupby(rows, lambda row: str(column["shard"][row])):
        try:
            with (folder / shard).open("rb") as file:
                for row in of_shard:
                    yield row, read_sample(file, int(column["offset"][row]), card)
        except (OSError, RecursionError, *DAMAGED) as error:
            why = getattr(error, "strerror", None) or error
            raise ShardError(f"cannot be read: {why}", where=folder / shard, remedy=VERIFY) from None


def _overlaid(small: Pillow.Image, stored: tuple[int, int], sample: SampleFiles, where: str) -> Pillow.Image:
    try:
        mask = None if sample.seg is None else decode_mask(sample.seg)
        return overlaid(small, stored, mask, sample.metadata)
    except (ValueError, TypeError) as error:
        raise ShardError(f"targets cannot be drawn: {error}", where=where, remedy=VERIFY) from None


def _small(data: bytes, where: str) -> Pillow.Image:
    """A thumbnail of the image in RGB."""
    small = _decoded(data, where, 2 * SIDE)
    small.thumbnail((SIDE, SIDE))
    return small


def _decoded(data: bytes, where: str, side: int) -> Pillow.Image:
    """The image in RGB; a JPEG at the smallest of its own scales that is at least `side` px."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                image.draft("RGB", (side, side))
                return image.convert("RGB")
    except UNREADABLE as error:
        raise ShardError(f"cannot be decoded: {error}", where=where, remedy=VERIFY) from None


def _jpeg(image: Pillow.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
