"""Samples in, plain WebDataset tars with an index out; every file is written under another name and renamed when whole.

Bytes depend on the samples alone: fixed order, owner, mode and time in the tar.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import IO, Any, NamedTuple
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from dpconvert.card import FileCard, ShardCard, Split
from dpconvert.encode import Sample
from dpconvert.errors import OutputError

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("format", pa.string()),
        ("label", pa.int32()),
        ("group", pa.string()),
        ("source", pa.string()),
        ("x", pa.int32()),
        ("y", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("stored_width", pa.int32()),
        ("stored_height", pa.int32()),
        ("sha256", pa.string()),
        ("attributes", pa.string()),  # JSON object of strings
    ]
)
ZEROS = bytes(BLOCKSIZE)
PIECE = 1 << 20  # bytes handed to the disk and to the digest at once


class Entry(NamedTuple):
    """One sample of a shard, as the index has it; offset and length are of the image's bytes in the tar."""

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

    @classmethod
    def checked(cls, values: Sequence[Any]) -> Entry:
        """An entry that was written down. Raises ValueError for anything else."""
        if tuple(map(type, values)) != ENTRY_TYPES:
            raise ValueError("not an entry of an index")
        return cls(*values)


ENTRY_TYPES = tuple(int if pa.types.is_integer(field.type) else str for field in INDEX_SCHEMA)


@dataclass(frozen=True)
class Written:
    """A finished shard: what the task card says of it, and its part of the index."""

    shard: ShardCard
    entries: list[Entry]


def write_shard(path: Path, split: Split, samples: Iterable[Sample]) -> Written:
    """Write one tar; it appears under its name when it is whole and on disk."""
    entries = []
    with replaced(path) as file:
        tar = _Tar(file)
        for sample in samples:
            entries.append(_entry(sample, path.name, tar.size + BLOCKSIZE))
            tar.add(sample.members())
        tar.end()
    card = ShardCard(name=path.name, split=split, samples=len(entries), size=tar.size, sha256=tar.hexdigest())
    return Written(card, entries)


def write_index(path: Path, entries: Sequence[Entry]) -> FileCard:
    """Write index.parquet, rows in the given order."""
    columns = zip(*entries, strict=True) if entries else ((),) * len(INDEX_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, INDEX_SCHEMA, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=INDEX_SCHEMA)
    with replaced(path) as file:
        pq.write_table(table, file, compression="zstd")
    return file_card(path)


def read_index(path: Path) -> Any:
    """The index as a pyarrow table."""
    return pq.read_table(path, schema=INDEX_SCHEMA)


def file_card(path: Path) -> FileCard:
    """Name, size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileCard(name=path.name, size=path.stat().st_size, sha256=digest)


@contextmanager
def replaced(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file to write that takes the name `path` when the block ends well, and leaves nothing when it does not.

    durable: wait until the disk has it. Without, a loss of power may leave a file that is empty or cut.

    Raises:
        OutputError: the disk is full, read-only, or the like.
    """
    # a name of our own: a worker that is given up for dead may still be writing to its one
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
            remedy="make room or choose another --out, and run the same command again: what is made is kept",
        ) from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class _Tar:
    """A tar of plain files, written and hashed in large pieces; the bytes are those that `tarfile` would give."""

    def __init__(self, file: IO[bytes]) -> None:
        self.size = 0
        self._file, self._hash = file, hashlib.sha256()
        self._pending: list[bytes] = []
        self._held = 0

    def add(self, members: Iterable[tuple[str, bytes]]) -> None:
        """Append files: (name, content)."""
        for name, data in members:
            padding = -len(data) % BLOCKSIZE
            self._pending += (_header(name, len(data)), data, ZEROS[:padding])
            self.size += BLOCKSIZE + len(data) + padding
        if self.size - self._held >= PIECE:
            self._flush()

    def end(self) -> None:
        """Write what marks a tar's end."""
        size = self.size + 2 * BLOCKSIZE
        size += -size % tarfile.RECORDSIZE
        self._pending.append(bytes(size - self.size))
        self.size = size
        self._flush()

    def hexdigest(self) -> str:
        """sha256 of all that was written."""
        return self._hash.hexdigest()

    def _flush(self) -> None:
        piece = b"".join(self._pending)
        self._hash.update(piece)
        self._file.write(piece)
        self._pending.clear()
        self._held = self.size


def _entry(sample: Sample, shard: str, offset: int) -> Entry:
    told = sample.metadata
    return Entry(
        sample.key, told["split"], shard, offset, len(sample.image), sample.format, told["label"], told["group"],
        told["files"][0], told["x"], told["y"], told["width"], told["height"], told["stored_width"],
        told["stored_height"], hashlib.sha256(sample.image).hexdigest(), _attributes(tuple(told["attributes"].items())),
    )  # fmt: skip


@lru_cache
def _attributes(items: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(items), sort_keys=True)


def _plain_header() -> tuple[bytes, bytes, bytes, int]:
    """The parts of a header between name, size and checksum, and the sum of their bytes."""
    template = tarfile.TarInfo("")
    template.mode = 0o644
    header = template.tobuf(tarfile.USTAR_FORMAT)
    parts = header[100:124], header[135:148], header[156:]
    return *parts, sum(map(sum, parts)) + 8 * ord(" ")  # a checksum counts as blanks in itself


OWNER, TIME, REST, PLAIN_SUM = _plain_header()


def _header(name: str, size: int) -> bytes:
    """What `TarInfo.tobuf` gives, sooner: headers differ in name, size and checksum alone."""
    assert len(name) <= 100, f"{name} is too long for a tar header"  # keys are kept shorter
    named, digits = name.encode(), b"%011o" % size
    checksum = b"%06o\0 " % (PLAIN_SUM + sum(named) + sum(digits))
    return b"".join((named.ljust(100, b"\0"), OWNER, digits, TIME, checksum, REST))
