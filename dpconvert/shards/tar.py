"""Write samples to plain WebDataset tars, and list their places for the index.

The bytes depend only on the samples: order, owner, mode and time in the tar are fixed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import IO

from dpconvert.card import ShardCard, Split
from dpconvert.runtime.atomic import replaced
from dpconvert.shards.encode import EncodedSample
from dpconvert.shards.index import NO_CLASS, Entry

SEG_PLACE = -2  # position of the mask among the members of a sample: before the JSON
ZEROS = bytes(BLOCKSIZE)
PIECE = 1 << 20  # bytes hashed and written at once
SYNCED = 1 << 22  # bytes after which the file is synced to the disk


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
        tar, stored = _Tar(path.name), _SyncedFile(file)
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


class _SyncedFile:
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
        sample.key,
        data["split"],
        shard,
        offsets[0],
        len(sample.image),
        sample.format,
        label if isinstance(label, int) else NO_CLASS,
        data["group"],
        data["files"][0],
        data["x"],
        data["y"],
        data["width"],
        data["height"],
        data["stored_width"],
        data["stored_height"],
        hashlib.sha256(sample.image).hexdigest(),
        _attributes(tuple(data["attributes"].items())),
        *((-1, 0, "") if seg is None else (offsets[SEG_PLACE], len(seg), hashlib.sha256(seg).hexdigest())),
        sum(len(data[kind]) for kind in ("points", "boxes") if kind in data),
        "" if isinstance(label, int) else json.dumps(label),
    )


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
