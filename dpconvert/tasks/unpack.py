"""Unpacks a task's shards into a folder for each split and class: the images as they were stored, byte for byte.

<out>/train/<class>/<key>.png   likewise for val and test
<out>/masks/train/<class>/<key>.png   the mask of each image, if the task keeps masks
<out>/instances/train/<class>/<key>.png   likewise its instances, numbered from 1 in 16 bits, if the task keeps them
<out>/objects.csv               file, kind, class and coordinates of each point, box and instance, if the task keeps any
<out>/labels.csv                file, label, class, split and group of each image; written last
Images with any number of classes, or with a number, lie in <out>/train and so on; in labels.csv they have a column of
0 and 1 for each class, or a column `value`.
<out>/.unpacked.json            identifies the data, so that the command can resume, and other data are not mixed in
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.card import TaskCard, load
from dpconvert.errors import OutputError, ShardError
from dpconvert.names import told_apart
from dpconvert.pixel_runs import numbered
from dpconvert.runtime.atomic import replaced
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from dpconvert.tasks import labels
from dpconvert.tasks.sample_files import keeps_masks, read_sample
from dpconvert.tasks.verify import KEY

MARK, LABELS, OBJECTS, MASKS = ".unpacked.json", "labels.csv", "objects.csv", "masks"
INSTANCES = "instances"
FORMATS = ("png", "jpg")
COLUMNS = ["key", "split", "shard", "offset", "length", "format", "group", "sha256"]
OF_MASKS = ["seg_offset", "seg_length", "seg_sha256"]
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # reserved file names under Windows


@dataclass(frozen=True)
class Unpacked:
    """The result: the numbers of images written now, and existing before."""

    task: str
    folder: Path
    made: int
    had: int


def unpack(folder: Path, out: Path, report: Reporter) -> Unpacked:
    """Unpack the task in `folder` to `out`, resuming an earlier run if there is one.

    Raises:
        ShardError: the task is unfinished or damaged.
        OutputError: `out` holds something else, or cannot be written.
    """
    card = load(folder)
    rows = _rows(folder, card)
    _claim(out, card)
    for path in _partial(out):
        path.unlink(missing_ok=True)
    names = [name for name, _ in _placed(card, rows)]
    kept = [*([MASKS] if keeps_masks(card) else []), *([INSTANCES] if card.dense and card.dense.instances else [])]
    names += [_png_name(name, what) for name in names for what in kept]
    for parent in sorted({(out / name).parent for name in names}):
        _make(parent)
    made = 0
    with report.bar(f"{card.task}: unpack", len(rows)) as advance:
        for name, data, mask in _images(folder, card, rows):
            if mask is not None:
                _put(out / _png_name(name, MASKS), mask)
            made += _put(out / name, data)
            advance()
    if card.dense is not None and card.dense.kinds.keys() - {"masks"}:
        with replaced(out / OBJECTS) as file:
            file.write(_objects(folder, card, rows, out))
    with replaced(out / LABELS) as file:
        file.write(_labels(card, rows))
    return Unpacked(card.task, out, made, len(rows) - made)


def class_folders(classes: list[str]) -> list[str]:
    """A distinct folder name for each class: its own name, adapted where file systems would not allow it."""
    plain = [re.sub(r"[^\w-]+", "_", name, flags=re.ASCII).strip("_")[:80] for name in classes]
    numbered = {label for label, name in enumerate(plain) if not name or DEVICES.fullmatch(name)}
    return told_apart(plain, numbered)


def _rows(folder: Path, card: TaskCard) -> list[dict[str, Any]]:
    """The rows of the index. Its names become file names, so they are checked."""
    path = folder / card.index.name
    try:
        columns = [*COLUMNS, labels.column(card), *(OF_MASKS if keeps_masks(card) else ())]
        rows: list[dict[str, Any]] = read_index(path).select(columns).to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ShardError(f"not a readable index: {reason}", where=path, remedy="convert the source again") from None
    shards = {shard.name: shard.split for shard in card.shards}
    for row in rows:
        sound = (
            KEY.fullmatch(row["key"] or "")
            and row["format"] in FORMATS
            and labels.is_sound(card, row[labels.column(card)])
        )
        if not sound or shards.get(row["shard"]) != row["split"]:
            raise ShardError(
                "row of another task in the index", where=path, found=row["key"], remedy="convert the source again"
            )
    return rows


def _claim(out: Path, card: TaskCard) -> None:
    """Mark `out` as the folder of these data, unless it holds something else."""
    mark = {"task": card.task, "digest": card.digest}
    remedy = "choose another --out, or remove it"
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise OutputError("not a folder", where=out, remedy="choose another --out")
    if (out / MARK).is_file():
        try:
            existing = json.loads((out / MARK).read_bytes())
        except (OSError, ValueError, RecursionError):
            existing = None
        if existing != mark:
            raise OutputError("holds other unpacked images", where=out, remedy=remedy)
        return
    if out.is_dir() and set(out.iterdir()) - _partial(out):
        raise OutputError("not empty: nothing is overwritten", where=out, remedy=remedy)
    _make(out)
    with replaced(out / MARK) as file:
        file.write(json.dumps(mark).encode())


def _partial(out: Path) -> set[Path]:
    """Return the files that killed processes were writing."""
    return {path for name in (MARK, LABELS, OBJECTS) for path in out.glob(f"{name}.????????.part")}


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be created: {error.strerror}", where=folder, remedy="choose another --out") from None


def _placed(card: TaskCard, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    folders = class_folders(card.classes)
    for row in rows:
        folder = f"{folders[row['label']]}/" if card.target == "class" else ""
        yield f"{row['split']}/{folder}{row['key']}.{row['format']}", row


def _png_name(name: str, what: str) -> str:
    return f"{what}/{Path(name).with_suffix('.png').as_posix()}"


def _images(folder: Path, card: TaskCard, rows: list[dict[str, Any]]) -> Iterator[tuple[str, bytes, bytes | None]]:
    """(file name, bytes of the image, bytes of its mask if the task keeps masks) of every sample, shard by shard."""
    for name, row, file, path in _opened(folder, card, rows):
        file.seek(row["offset"])
        image = _checked(file.read(row["length"]), row, row["sha256"], path)
        if not keeps_masks(card):
            yield name, image, None
            continue
        file.seek(row["seg_offset"])
        yield name, image, _checked(file.read(row["seg_length"]), row, row["seg_sha256"], path)


def _opened(
    folder: Path, card: TaskCard, rows: list[dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any], IO[bytes], Path]]:
    """(file name, row, the open shard, its path) of every sample, shard by shard."""
    of_shard = defaultdict(list)
    for name, row in _placed(card, rows):
        of_shard[row["shard"]].append((name, row))
    for shard, samples in of_shard.items():
        path = folder / shard
        try:
            with path.open("rb") as file:
                for name, row in samples:
                    yield name, row, file, path
        except OSError as error:
            raise ShardError(
                f"cannot be read: {error.strerror}", where=path, remedy="convert the source again"
            ) from None


def _objects(folder: Path, card: TaskCard, rows: list[dict[str, Any]], out: Path) -> bytes:
    """A table of points, boxes and the bounds of instances in pixels of the image; points have no second corner. The
    images of numbered instances are written to `out`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "kind", "class", "x", "y", "x2", "y2"])
    for name, row, file, path in _opened(folder, card, rows):
        try:
            fields = read_sample(file, row["offset"], card).metadata
            numbers = None if card.dense is None or card.dense.instances is None else numbered(fields)
            writer.writerows([name, *line] for line in _lines(card, fields, numbers))
            if numbers is not None:
                _put(out / _png_name(name, INSTANCES), _png(numbers))
        except (ValueError, TypeError, IndexError, KeyError, tarfile.TarError) as error:
            raise ShardError(f"{row['key']}: {error}", where=path, remedy="run `dpconvert verify`") from None
    return text.getvalue().encode()


def _png(numbers: NDArray[np.int32]) -> bytes:
    if numbers.max(initial=0) > np.iinfo(np.uint16).max:
        raise ValueError("more instances than a PNG of 16 bits can number")
    buffer = io.BytesIO()
    Pillow.fromarray(numbers.astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def _lines(card: TaskCard, fields: dict[str, Any], numbers: NDArray[np.int32] | None) -> Iterator[list[Any]]:
    assert card.dense is not None
    for kind, stated in (("points", card.dense.points), ("boxes", card.dense.boxes)):
        for *at, label in fields[kind] if stated is not None else ():
            assert stated is not None
            x, y, *corner = at
            yield [kind[: -1 if kind == "points" else -2], stated.classes[label], x, y, *(corner or ("", ""))]
    if numbers is not None and card.dense.instances is not None:
        from scipy.ndimage import find_objects

        for (*_, label), (down, across) in zip(fields["instances"], find_objects(numbers), strict=True):
            corners = across.start, down.start, across.stop, down.stop
            yield ["instance", card.dense.instances.classes[label], *corners]


def _checked(data: bytes, row: dict[str, Any], sha256: str, path: Path) -> bytes:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ShardError(f"{row['key']} has changed since it was written", where=path, remedy="run `dpconvert verify`")
    return data


def _put(path: Path, data: bytes) -> bool:
    """Write one image atomically. Returns False if it already exists."""
    if path.exists():
        if path.is_file() and path.read_bytes() == data:
            return False
        raise OutputError("a different file exists: nothing is overwritten", where=path, remedy="remove it")
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        part.rename(path)
    except OSError as error:
        with suppress(OSError):  # a read-only file system refuses this even if there is no such file
            part.unlink()
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=path,
            remedy="make room and run the same command again: finished files are kept",
        ) from None
    return True


def _labels(card: TaskCard, rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *_label_head(card), "split", "group"])
    for name, row in _placed(card, rows):
        writer.writerow([name, *_label_cells(card, row), row["split"], row["group"]])
    return text.getvalue().encode()


def _label_head(card: TaskCard) -> list[str]:
    return {"class": ["label", "class"], "labels": card.class_columns, "value": ["value"]}[card.target]


def _label_cells(card: TaskCard, row: dict[str, Any]) -> list[Any]:
    """A sample's label: its class; 0 or 1 for each class; or its number."""
    label = row[labels.column(card)]
    if card.target == "labels":
        return [int(one in label) for one in range(len(card.classes))]
    return [label, card.classes[label]] if card.target == "class" else [label]
