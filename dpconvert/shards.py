"""Samples in, plain WebDataset tars with an index out; every file is written under another name and renamed when whole.

Bytes depend on the samples alone: fixed order, owner, mode and time in the tar.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpconvert.card import FileCard, Model, ShardCard, Split
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
_TEMPLATE = tarfile.TarInfo("")
_TEMPLATE.mode = 0o644
HEADER = _TEMPLATE.tobuf(tarfile.USTAR_FORMAT)
FROM_METADATA = ("split", "label", "group", "x", "y", "width", "height", "stored_width", "stored_height")


class Entry(Model):
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


class Written(Model):
    """A finished shard: what the task card says of it, and its part of the index."""

    shard: ShardCard
    entries: list[Entry]


def write_shard(path: Path, split: Split, samples: Iterable[Sample]) -> Written:
    """Write one tar; it appears under its name when it is whole and on disk."""
    entries = []
    with replaced(path) as file:
        counted = _Hashed(file)
        with tarfile.open(fileobj=counted, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
            for sample in samples:
                entries.append(_entry(sample, path.name, tar.offset + tarfile.BLOCKSIZE))
                for name, data in sample.members():
                    _add(tar, name, data)
    card = ShardCard(name=path.name, split=split, samples=len(entries), size=counted.size, sha256=counted.hexdigest())
    return Written(shard=card, entries=entries)


def write_index(path: Path, entries: Iterable[Entry]) -> FileCard:
    """Write index.parquet, rows in the given order."""
    rows = [entry.model_dump() for entry in entries]
    table = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
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
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the name `path` when the block ends well, and leaves nothing when it does not.

    Raises:
        OutputError: the disk is full, read-only, or the like.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
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


class _Hashed:
    """A write-only file that counts and hashes what passes through."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self._hash = file, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.size

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _entry(sample: Sample, shard: str, offset: int) -> Entry:
    values = {name: sample.metadata[name] for name in FROM_METADATA}
    digest = hashlib.sha256(sample.image).hexdigest()
    return Entry(
        key=sample.key,
        shard=shard,
        offset=offset,
        length=len(sample.image),
        format=sample.format,
        source=sample.metadata["files"][0],
        sha256=digest,
        attributes=json.dumps(sample.metadata["attributes"], sort_keys=True),
        **values,
    )


def _header(name: str, size: int) -> bytes:
    """What `TarInfo.tobuf` gives, sooner: headers differ in name, size and checksum alone."""
    assert len(name) <= 100, f"{name} is too long for a tar header"  # keys are kept shorter
    header = bytearray(HEADER)
    header[:100] = name.encode().ljust(100, b"\0")
    header[124:136] = b"%011o\0" % size
    header[148:156] = b"        "  # counts as blanks in its own checksum
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.fileobj.write(_header(name, len(data)))
    padding = -len(data) % tarfile.BLOCKSIZE
    tar.fileobj.write(data + b"\0" * padding)
    tar.offset += tarfile.BLOCKSIZE + len(data) + padding
