"""Reads the index of a task: the samples of its sets, compared with what its card states."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dpconvert import card as cards
from mtrain.data.kept import kept
from mtrain.data.rows import NO_CLASS, Rows
from mtrain.errors import ShardError

INDEX_COLUMNS = ("key", "split", "shard", "offset", "length", "group", "sha256")
COLUMN: dict[cards.Target, str] = {"class": "label", "labels": "labels", "value": "value"}
MASK_COLUMNS = ("seg_offset", "seg_length", "seg_sha256")


def check_size(path: Path, size: int) -> None:
    actual = path.stat().st_size if path.is_file() else None
    if actual != size:
        raise ShardError(
            "missing" if actual is None else "changed since it was written",
            where=path,
            expected=f"{size} bytes",
            found=None if actual is None else f"{actual} bytes",
            remedy="convert the source again",
        )


def _dense_columns(card: cards.TaskCard) -> tuple[str, ...]:
    """Return the columns of the index that only tasks with masks, points or boxes have."""
    given = card.dense
    if given is None:
        return ()
    return (MASK_COLUMNS if given.seg else ()) + (("objects",) if given.points or given.boxes else ())


def splits_of(
    folder: Path, card: cards.TaskCard, splits: Sequence[cards.Split], *, here: bool = True
) -> dict[str, Rows]:
    """Read the samples of these splits only. `here`: the shards are local, so their sizes are checked."""
    for shard in card.shards:
        if here and shard.split in splits:
            check_size(folder / shard.name, shard.size)
    path = folder / card.index.name
    found = path.stat()
    key = card.digest, found.st_ino, found.st_size, found.st_mtime_ns
    return kept(f"{path} {' '.join(splits)}", key, lambda: _read_splits(folder, card, splits))


def _read_splits(folder: Path, card: cards.TaskCard, splits: Sequence[cards.Split]) -> dict[str, Rows]:
    columns = (*INDEX_COLUMNS, COLUMN[card.target], *_dense_columns(card))
    table = read_index(folder / card.index.name, card.index.sha256, columns, splits)
    names = [shard.name for shard in card.shards]
    rows: dict[str, Rows] = {split: _rows(table, card, split, names, folder) for split in splits}
    for split, split_rows in rows.items():
        _check_split(card, split, split_rows, folder)
    return rows


def read_index(path: Path, sha256: str, columns: Sequence[str], splits: Sequence[str]) -> pa.Table:
    """These columns of the index, for the rows of these splits."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ShardError(
                "the index has changed since it was written", where=path, remedy="convert the source again"
            )
    try:
        with path.open("rb") as file:  # pyarrow takes no path that is not UTF-8
            return pq.read_table(file, columns=list(columns), filters=[("split", "in", list(splits))])
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ShardError(f"unreadable index: {reason}", where=path, remedy="convert the source again") from None


def _rows(table: pa.Table, card: cards.TaskCard, split: str, shards: list[str], folder: Path) -> Rows:
    chosen = table.filter(pa.compute.equal(table["split"], split))
    shard = pa.compute.index_in(chosen["shard"], value_set=pa.array(shards, pa.string()))
    if shard.null_count:
        raise ShardError(
            "the index names a shard that is not in task.json", where=folder, remedy="convert the source again"
        )
    return Rows(
        key=column_of(chosen["key"], np.object_),
        shard=column_of(shard, np.int32),
        offset=column_of(chosen["offset"], np.int64),
        length=column_of(chosen["length"], np.int64),
        **_labels(chosen, card),
        group=column_of(chosen["group"], np.object_),
        sha256=_digests(chosen["sha256"], folder),
        **_dense_rows(chosen, folder),
    )


def _labels(chosen: pa.Table, card: cards.TaskCard) -> dict[str, npt.NDArray[Any]]:
    """The columns `label`, and `target` if samples do not have one class."""
    if card.target == "class":
        return {"label": column_of(chosen["label"], np.int64)}
    none = np.full(len(chosen), NO_CLASS, np.int64)
    if card.target == "value":
        return {"label": none, "target": column_of(chosen["value"], np.float64)[:, None]}
    target = np.zeros((len(chosen), len(card.classes)))
    for row, labels in enumerate(chosen["labels"].to_pylist()):
        if any(not 0 <= label < len(card.classes) for label in labels):
            target[row] = np.nan  # refused with the number of the row's set
        else:
            target[row, labels] = 1
    return {"label": none, "target": target}


def _dense_rows(chosen: pa.Table, folder: Path) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {
        name: column_of(chosen[name], np.int64)
        for name in ("seg_offset", "seg_length", "objects")
        if name in chosen.column_names
    }
    if "seg_sha256" in chosen.column_names:
        found["seg_sha256"] = _digests(chosen["seg_sha256"], folder)
    return found


def _digests(column: Any, folder: Path) -> npt.NDArray[np.uint8]:
    """Hexadecimal sha256 -> (n, 32) bytes."""
    try:
        joined = bytes.fromhex("".join(column.to_pylist()))
        return np.frombuffer(joined, np.uint8).reshape(len(column), 32)
    except (ValueError, TypeError):
        raise ShardError("invalid sha256 in the index", where=folder, remedy="convert the source again") from None


def column_of(values: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.asarray(values.to_numpy(), dtype=dtype)


def _check_split(card: cards.TaskCard, split: str, rows: Rows, folder: Path) -> None:
    stated = next((of_split.samples for name, of_split in card.splits.items() if name == split), 0)
    if stated != len(rows):
        raise ShardError(
            f"{split}: the index does not match task.json",
            where=folder,
            expected=stated,
            found=len(rows),
            remedy="convert the source again",
        )
    if rows.target is not None and not np.isfinite(rows.target).all():
        raise ShardError(
            f"{split}: {COLUMN[card.target]} out of range", where=folder, remedy="convert the source again"
        )
    if len(rows) and rows.target is None and not 0 <= rows.label.min() <= rows.label.max() < len(card.classes):
        raise ShardError(
            f"{split}: labels out of range",
            where=folder,
            expected=f"0..{len(card.classes) - 1}",
            found=f"{rows.label.min()}..{rows.label.max()}",
            remedy="convert the source again",
        )
