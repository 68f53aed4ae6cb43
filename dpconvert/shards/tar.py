"""Write samples to plain WebDataset tars with an index. Every file gets its final name only when it is complete.

The bytes depend only on the samples: order, owner, mode and time in the tar are fixed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np

from dpconvert.card import FileCard, ShardCard, Split
from dpconvert.errors import OutputError
from dpconvert.shards.encode import EncodedSample

if TYPE_CHECKING:  # imported where an index is written or read: it takes 45 MiB, which workers do not need
    import pyarrow as pa

INDEX_COLUMNS = {
    "key": "string",
    "split": "string",
    "shard": "string",
    "offset": "int64",
    "length": "int64",
    "format": "string",
    "label": "int32",
    "group": "string",
    "source": "string",
    "x": "int32",
    "y": "int32",
    "width": "int32",
    "height": "int32",
    "stored_width": "int32",
    "stored_height": "int32",
    "sha256": "string",
    "attributes": "string",  # JSON object of strings
}
SEG_COLUMNS = {"seg_offset": "int64", "seg_length": "int64", "seg_sha256": "string"}  # for tasks with masks
OBJECT_COLUMNS = {"objects": "int32"}  # for tasks with points or boxes
TARGET_COLUMNS = {"labels": "list<int32>", "value": "float64"}  # in place of `label`: of several labels, of a number
DENSE_COLUMNS = SEG_COLUMNS | OBJECT_COLUMNS
ROW_GROUP = 1 << 20  # rows of the index
SEG_PLACE = -2  # position of the mask among the members of a sample: before the JSON
NO_CLASS = -1  # `label` of an entry whose target is not one class
ZEROS = bytes(BLOCKSIZE)
PIECE = 1 << 20  # bytes hashed and written at once
SYNCED = 1 << 22  # bytes after which the file is synced to the disk


class Entry(NamedTuple):
    """One row of the index; offset and length are those of the image's bytes in the tar.

    seg_offset, seg_length and seg_sha256 are those of the mask; `objects` is the number of points and boxes.
    target: the labels or the value as JSON, if the sample does not have one class; `label` is then NO_CLASS.
    """

    key: str
    split: Split
    shard: str
    offset: int
    length: int
    format: str
    label: int
    group: str
    source: str
    x: int
    y: int
    width: int
    height: int
    stored_width: int
    stored_height: int
    sha256: str
    attributes: str
    seg_offset: int = -1
    seg_length: int = 0
    seg_sha256: str = ""
    objects: int = 0
    target: str = ""

    @classmethod
    def checked(cls, values: Sequence[Any]) -> Entry:
        """Return the entry with these values. Raises ValueError if their types are wrong."""
        if tuple(map(type, values)) != ENTRY_TYPES:
            raise ValueError("not an entry of an index")
        return cls(*values)


ENTRY_TYPES = (*(str if kind == "string" else int for kind in (INDEX_COLUMNS | DENSE_COLUMNS).values()), str)


@dataclass(frozen=True)
class Written:
    """A finished shard: its part of the task card, and its part of the index.

    resolutions: the micrometres per pixel of its stored images, each once; None where unknown.
    """

    shard: ShardCard
    entries: list[Entry]
    resolutions: tuple[float | None, ...] = ()


def write_shard(path: Path, split: Split, samples: Iterable[EncodedSample]) -> Written:
    """Write one tar, which gets its name when it is complete and on disk.

    A thread hashes it and waits for the disk, without the interpreter's lock, while further samples are encoded.
    """
    with replaced(path) as file:
        tar, stored = _Tar(path.name), _Stored(file)
        with ThreadPoolExecutor(1) as thread:
            writing: Future[None] | None = None
            for piece in tar.pieces(samples):
                if writing is not None:
                    writing.result()
                writing = thread.submit(stored.write, piece)
            if writing is not None:
                writing.result()
    card = ShardCard(name=path.name, split=split, samples=len(tar.entries), size=tar.size, sha256=stored.hexdigest())
    return Written(card, tar.entries, tuple(tar.resolutions))


def write_index(path: Path, entries: Sequence[Entry], more: Collection[str] = ()) -> FileCard:
    """Write index.parquet, with the rows in the given order. more: its columns that not all tasks have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, starts = index_schema(more), range(0, len(entries), ROW_GROUP)
    batches = [_batch(entries[start : start + ROW_GROUP], schema) for start in starts]
    table = pa.Table.from_batches(batches, schema=schema)
    with replaced(path) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP)
    return file_card(path)


def _batch(entries: Sequence[Entry], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns: dict[str, Sequence[Any]] = dict(zip(Entry._fields, zip(*entries, strict=True), strict=True))
    for name in TARGET_COLUMNS.keys() & set(schema.names):
        columns[name] = [json.loads(text) for text in columns["target"]]
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Build a column from buffers: `pa.array` would import pandas if it is installed, which takes another 50 MiB."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
        items = _array([item for some in values for item in some], kind.value_type)
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends)], children=[items])
    if kind != pa.string():
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.array(values, str(kind)))])
    texts = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])


def index_schema(more: Collection[str] = ()) -> pa.Schema:
    """Return the names and types of the index's columns. more: those that not all tasks have. `labels` and `value` take
    the place of `label`.
    """
    import pyarrow as pa

    of_target = {name: kind for name, kind in TARGET_COLUMNS.items() if name in more}
    dense = {name: kind for name, kind in DENSE_COLUMNS.items() if name in more}
    kinds: dict[str, str] = {}
    for name, kind in (INDEX_COLUMNS | dense).items():
        kinds |= of_target if name == "label" and of_target else {name: kind}
    return pa.schema([pa.field(n, pa.list_(pa.int32()) if k == "list<int32>" else k) for n, k in kinds.items()])


def read_index(path: Path) -> Any:
    """Read the index as a pyarrow table, with its columns of dense targets."""
    import pyarrow.parquet as pq

    return pq.read_table(path, schema=index_schema(pq.read_schema(path).names))


def file_card(path: Path) -> FileCard:
    """Return the name, size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileCard(name=path.name, size=path.stat().st_size, sha256=digest)


@contextmanager
def replaced(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file to write. It gets the name `path` if the block succeeds, and is removed if it fails.

    durable: wait until the file is on disk. Otherwise a power failure may leave an empty or truncated file.

    Raises:
        OutputError: the file cannot be written, for example because the disk is full.
    """
    # a unique name: a worker that is believed dead may still be writing to its own
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=path,
            remedy="make room or choose another --out, and run the same command again: finished files are kept",
        ) from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class _Tar:
    """A tar of samples, with the same bytes as `tarfile` would write."""

    def __init__(self, name: str) -> None:
        self.name, self.size = name, 0
        self.entries: list[Entry] = []
        self.resolutions: dict[float | None, None] = {}

    def pieces(self, samples: Iterable[EncodedSample]) -> Iterator[bytes]:
        """Yield the bytes of the tar in pieces of about PIECE bytes."""
        pending: list[bytes] = []
        given = 0
        for sample in samples:
            members = sample.members()
            self.entries.append(_entry(sample, self.name, _offsets(members, self.size)))
            self.resolutions[sample.metadata.get("mpp_stored")] = None
            for name, data in members:
                padding = -len(data) % BLOCKSIZE
                pending += (_header(name, len(data)), data, ZEROS[:padding])
                self.size += BLOCKSIZE + len(data) + padding
            if self.size - given >= PIECE:
                yield b"".join(pending)
                pending, given = [], self.size
        end = 2 * BLOCKSIZE + -(self.size + 2 * BLOCKSIZE) % tarfile.RECORDSIZE
        self.size += end
        yield b"".join([*pending, bytes(end)])


class _Stored:
    """A file that is hashed and regularly synced while it is written, so that little is left to sync at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self._unsynced = 0

    def write(self, piece: bytes) -> None:
        """Append a piece."""
        self._hash.update(piece)
        self._file.write(piece)
        self._unsynced += len(piece)
        if self._unsynced >= SYNCED:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._unsynced = 0

    def hexdigest(self) -> str:
        """Return the sha256 of all bytes written."""
        return self._hash.hexdigest()


def _offsets(members: Sequence[tuple[str, bytes]], start: int) -> list[int]:
    """Return the offset of the content of each member in the tar, if the first header is at `start`."""
    offsets = []
    for _, data in members:
        offsets.append(start + BLOCKSIZE)
        start += BLOCKSIZE + len(data) + -len(data) % BLOCKSIZE
    return offsets


def _entry(sample: EncodedSample, shard: str, offsets: Sequence[int]) -> Entry:
    data, seg, label = sample.metadata, sample.seg, sample.label
    return Entry(
        sample.key, data["split"], shard, offsets[0], len(sample.image), sample.format,
        label if isinstance(label, int) else NO_CLASS, data["group"],
        data["files"][0], data["x"], data["y"], data["width"], data["height"], data["stored_width"],
        data["stored_height"], hashlib.sha256(sample.image).hexdigest(), _attributes(tuple(data["attributes"].items())),
        *((-1, 0, "") if seg is None else (offsets[SEG_PLACE], len(seg), hashlib.sha256(seg).hexdigest())),
        sum(len(data[kind]) for kind in ("points", "boxes") if kind in data),
        "" if isinstance(label, int) else json.dumps(label),
    )  # fmt: skip


@lru_cache
def _attributes(items: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(items), sort_keys=True)


def _plain_header() -> tuple[bytes, bytes, bytes, int]:
    """Return the parts of a header between name, size and checksum, and the sum of their bytes."""
    template = tarfile.TarInfo("")
    template.mode = 0o644
    header = template.tobuf(tarfile.USTAR_FORMAT)
    parts = header[100:124], header[135:148], header[156:]
    return *parts, sum(map(sum, parts)) + 8 * ord(" ")  # the checksum itself counts as spaces


OWNER, TIME, REST, PLAIN_SUM = _plain_header()


def _header(name: str, size: int) -> bytes:
    """Return the result of `TarInfo.tobuf`, but faster: headers differ only in name, size and checksum."""
    assert len(name) <= 100, f"{name} is too long for a tar header"  # keys are limited to less
    named, digits = name.encode(), b"%011o" % size
    checksum = b"%06o\0 " % (PLAIN_SUM + sum(named) + sum(digits))
    return b"".join((named.ljust(100, b"\0"), OWNER, digits, TIME, checksum, REST))
