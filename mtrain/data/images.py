"""Rows of shards in, single pictures out: bytes by offset, decoded and cropped straight into a batch.

Nothing is held but the index: 16 bytes and the key of each picture, in arrays that forked workers share, and up to
`OPEN_FILES` open shards. Shards of a remote pool are read from their copies in the cache (mtrain.data.shard_cache).
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dpconvert.image.decode import decode
from mtrain.backbones.card import Interpolation
from mtrain.data.augment import put_square
from mtrain.data.pool import Rows, Task
from mtrain.data.shard_cache import Copy, fetch
from mtrain.errors import ShardError

CHECK = "MTRAIN_CHECK_IMAGES"  # 0: images are not compared with the index
OPEN_FILES = 128  # a pool may have thousands of shards, a process often no more than 1024 files


def checks() -> bool:
    """Whether images are compared with the index where nothing else is said: unless $MTRAIN_CHECK_IMAGES is 0."""
    return os.environ.get(CHECK, "1") != "0"


class Images:
    """Random access to the pictures of some tasks, numbered through in the order of the tasks and of their rows.

    Making one brings the shards that the rows lie in to this machine.

    how: images larger than a batch has room for are resized by it.
    check: whether each process compares an image with the sha256 of the index when it reads it first; None: as
    `checks` says.
    """

    def __init__(
        self, parts: Sequence[tuple[Task, Rows]], *, check: bool | None = None, how: Interpolation = "bilinear"
    ) -> None:  # fmt: skip
        self.how = how
        self.names = [task.name for task, _ in parts]
        self.starts = np.cumsum([0] + [len(rows) for _, rows in parts])
        first_shard = np.cumsum([0] + [len(task.shards) for task, _ in parts])
        self.shard = _joined([rows.shard + first for (_, rows), first in zip(parts, first_shard, strict=False)], "i4")
        self.offset = _joined([rows.offset for _, rows in parts], "i8")
        self.length = _joined([rows.length for _, rows in parts], "i4")
        self.label = _joined([rows.label for _, rows in parts], "i8")
        self.sha256 = np.concatenate([rows.sha256 for _, rows in parts])
        self.checks = checks() if check is None else check
        self._seen = np.zeros(len(self.offset), np.bool_)
        # bytes, not objects: forked workers then share these pages for good
        self.key: npt.NDArray[np.bytes_] = np.concatenate([rows.key.astype("S") for _, rows in parts])
        self._files = ShardFiles([shard for task, _ in parts for shard in task.files()])
        fetch(self._files.copies(np.unique(self.shard)))

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def sizes(self) -> list[int]:
        """Pictures of each task."""
        return [int(n) for n in np.diff(self.starts)]

    def task_of(self, index: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The task, counted from 0, that each picture belongs to."""
        return np.searchsorted(self.starts, np.asarray(index), side="right").astype(np.int64) - 1

    def after(self, index: int) -> int:
        """The next picture of the same task; after its last comes its first."""
        task = int(self.task_of(index))
        start, end = int(self.starts[task]), int(self.starts[task + 1])
        return start + (index + 1 - start) % (end - start)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one picture.

        Raises:
            ValueError: they are not those of the index.
        """
        data = self._files.read(int(self.shard[index]), int(self.offset[index]), int(self.length[index]))
        if self.checks and not self._seen[index]:
            if hashlib.sha256(data).digest() != self.sha256[index].tobytes():
                raise ValueError("changed since it was written (its sha256 is not that of the index)")
            self._seen[index] = True
        return data

    def decode(self, index: int) -> npt.NDArray[np.uint8]:
        """The pixels of one picture, uint8 (height, width, 3).

        Raises:
            ShardError: it cannot be read.
        """
        try:
            return decode(self.read(index))
        except (ValueError, OSError) as error:
            raise ShardError(
                f"{self.names[int(self.task_of(index))]}: cannot read picture {self.key[index].decode()}: {error}",
                where=self._files.name(int(self.shard[index])),
                remedy=self._files.remedy(int(self.shard[index])),
            ) from None

    def put(self, index: int, place: int, size: int, room: npt.NDArray[np.uint8]) -> int:
        """The square of one picture at `place` into the beginning of `room`, by augment.put_square; its side."""
        return put_square(self.decode(index), size, place, room, self.how)


class ShardFiles:
    """Reads by offset from many files, of which few are open at once. Travels between processes without open files."""

    def __init__(self, shards: Sequence[Path | Copy]) -> None:
        self.__setstate__({"shards": list(shards)})

    def copies(self, numbers: npt.NDArray[np.int32]) -> list[Copy]:
        """Those of these shards that are copies of remote ones."""
        return [shard for number in numbers.tolist() if isinstance(shard := self.shards[number], Copy)]

    def name(self, number: int) -> str:
        """What to call a shard: where it is, not where its copy lies."""
        shard = self.shards[number]
        return shard.url if isinstance(shard, Copy) else str(shard)

    def remedy(self, number: int) -> str:
        """What to do about a shard with an image that cannot be read."""
        shard = self.shards[number]
        if isinstance(shard, Copy):
            return f"remove its copy, {shard.path}"
        return "check the shards with `dpconvert verify`"

    def read(self, number: int, offset: int, length: int) -> bytes:
        """Bytes of one shard; fewer where it ends before."""
        return os.pread(self._descriptor(number), length, offset)

    def _descriptor(self, number: int) -> int:
        found = self._open.get(number)
        if found is not None:
            self._open.move_to_end(number)
            return found
        if len(self._open) >= OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        shard = self.shards[number]
        self._open[number] = shard.open() if isinstance(shard, Copy) else os.open(shard, os.O_RDONLY)
        return self._open[number]

    def close(self) -> None:
        """Close what is open; reading opens it again."""
        _close_all(self._open)

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shards: list[Path | Copy] = state["shards"]
        self._open: OrderedDict[int, int] = OrderedDict()
        weakref.finalize(self, _close_all, self._open)  # a __del__ would run when half of the interpreter is gone


def _close_all(files: OrderedDict[int, int]) -> None:
    while files:
        with suppress(OSError):  # closed by others, as a process does that goes to the background
            os.close(files.popitem()[1])


def _joined(columns: Sequence[npt.NDArray[Any]], dtype: str) -> npt.NDArray[Any]:
    return np.concatenate(columns).astype(dtype, copy=False)
