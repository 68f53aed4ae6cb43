"""Random access to single images in shards: read bytes by offset, decode them and crop them straight into a batch.

Only the index is kept in memory: 16 bytes and the key of each image, in arrays that forked workers share; up to
`OPEN_FILES` shards are open. Remote shards are read from their copies in the cache (mtrain.data.shard_cache).
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
from mtrain.data.batches.augment import put_square
from mtrain.data.labels import Scaling, scaling_of, targets_of, widest
from mtrain.data.rows import Rows, encoded_keys
from mtrain.data.shard_cache import Copy, fetch
from mtrain.data.task import Task
from mtrain.errors import ShardError
from mtrain.used import mark

CHECK = "MTRAIN_CHECK_IMAGES"  # 0: the sha256 of images is not verified
OPEN_FILES = 128  # a pool may have thousands of shards, while a process often has at most 1024 open files


def checks() -> bool:
    """Whether the sha256 of images is verified by default: unless $MTRAIN_CHECK_IMAGES is 0."""
    return os.environ.get(CHECK, "1") != "0"


class Images:
    """Random access to the images of some tasks, numbered consecutively in the order of the tasks and their rows.

    The constructor downloads the remote shards that hold the rows.

    how: interpolation of images that are larger than a batch has room for.
    scaled: whether targets that are numbers are standardized by the training sets.
    check: whether each process verifies the sha256 of each image when it first reads it. None: as `checks` returns.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Task, Rows]],
        *,
        check: bool | None = None,
        how: Interpolation = "bilinear",
        scaled: bool = False,
    ) -> None:
        mark("check_images")
        self.how = how
        self.names = [task.name for task, _ in parts]
        self.starts = np.cumsum([0] + [len(rows) for _, rows in parts])
        first_shard = np.cumsum([0] + [len(task.shards) for task, _ in parts])
        self.shard = _joined([rows.shard + first for (_, rows), first in zip(parts, first_shard, strict=False)], "i4")
        self.offset = _joined([rows.offset for _, rows in parts], "i8")
        self.length = _joined([rows.length for _, rows in parts], "i4")
        self.label = _joined([rows.label for _, rows in parts], "i8")
        self.width = widest([task for task, _ in parts])
        scalings = [scaling_of(task) if scaled else Scaling() for task, _ in parts]
        self._targets = [targets_of(task, rows, scale) for (task, rows), scale in zip(parts, scalings, strict=True)]
        self.sha256 = np.concatenate([rows.sha256 for _, rows in parts])
        self.checks = checks() if check is None else check
        self._seen = np.zeros(len(self.offset), np.bool_)
        # bytes, not objects, whose reference counts would unshare the pages of forked workers
        self.key: npt.NDArray[np.bytes_] = np.concatenate([encoded_keys(rows) for _, rows in parts])
        self._files = ShardFiles([shard for task, _ in parts for shard in task.files()])
        fetch(self._files.copies(np.unique(self.shard)))

    def __len__(self) -> int:
        return len(self.offset)

    def stamps(self) -> tuple[tuple[int, int, int], ...]:
        """Inode, size and time of each shard: they change when its content may have changed."""
        return self._files.stamps()

    @property
    def sizes(self) -> list[int]:
        """Number of images of each task."""
        return [int(n) for n in np.diff(self.starts)]

    def targets(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The targets of images that do not have one class: (n, width), with 0 where there are none."""
        found = np.zeros((len(index), self.width), np.float32)
        of_task = self.task_of(index)
        for number in np.unique(of_task).tolist() if self.width else ():
            values = self._targets[number]
            if values is not None:
                here = of_task == number
                found[here, : values.shape[1]] = values[index[here] - self.starts[number]]
        return found

    def task_of(self, index: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The task of each image, counted from 0."""
        return np.searchsorted(self.starts, np.asarray(index), side="right").astype(np.int64) - 1

    def after(self, index: int) -> int:
        """The next image of the same task; its first image follows its last."""
        task = int(self.task_of(index))
        start, end = int(self.starts[task]), int(self.starts[task + 1])
        return start + (index + 1 - start) % (end - start)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image.

        Raises:
            ValueError: their sha256 is not that of the index.
        """
        data = self._files.read(int(self.shard[index]), int(self.offset[index]), int(self.length[index]))
        if self.checks and not self._seen[index]:
            if hashlib.sha256(data).digest() != self.sha256[index].tobytes():
                raise ValueError("changed since it was written (its sha256 is not that of the index)")
            self._seen[index] = True
        return data

    def decode(self, index: int) -> npt.NDArray[np.uint8]:
        """The pixels of one image: uint8 (height, width, 3).

        Raises:
            ShardError: the image cannot be read.
        """
        try:
            return decode(self.read(index))
        except (ValueError, OSError) as error:
            raise ShardError(
                f"{self.names[int(self.task_of(index))]}: cannot read image {self.key[index].decode()}: {error}",
                where=self._files.name(int(self.shard[index])),
                remedy=self._files.remedy(int(self.shard[index])),
            ) from None

    def put(self, index: int, place: int, size: int, room: npt.NDArray[np.uint8]) -> tuple[int, tuple[int, int]]:
        """Write the square of one image at `place` to the start of `room`, as augment.put_square. Returns its side, and
        the height and width of the whole image.
        """
        pixels = self.decode(index)
        return put_square(pixels, size, place, room, self.how), (pixels.shape[0], pixels.shape[1])


class ShardFiles:
    """Reads by offset from many files, few of which are open at once. Pickling drops the open files."""

    def __init__(self, shards: Sequence[Path | Copy]) -> None:
        self.__setstate__({"shards": list(shards)})

    def copies(self, numbers: npt.NDArray[np.int32]) -> list[Copy]:
        """The cached copies among these shards."""
        return [shard for number in numbers.tolist() if isinstance(shard := self.shards[number], Copy)]

    def stamps(self) -> tuple[tuple[int, int, int], ...]:
        """Inode, size and time of each file; zeros for a copy that does not exist."""
        paths = [shard.path if isinstance(shard, Copy) else shard for shard in self.shards]
        found = [path.stat() if path.exists() else None for path in paths]
        return tuple((0, 0, 0) if one is None else (one.st_ino, one.st_size, one.st_mtime_ns) for one in found)

    def name(self, number: int) -> str:
        """The address of a shard in messages: its URL, not the path of its copy."""
        shard = self.shards[number]
        return shard.url if isinstance(shard, Copy) else str(shard)

    def remedy(self, number: int) -> str:
        """The remedy for an unreadable image in a shard."""
        shard = self.shards[number]
        if isinstance(shard, Copy):
            return f"remove its copy, {shard.path}"
        return "check the shards with `dpconvert verify`"

    def read(self, number: int, offset: int, length: int) -> bytes:
        """`length` bytes of one shard, fewer if it ends before."""
        return os.pread(self._descriptor(number), length, offset)

    def _descriptor(self, number: int) -> int:
        descriptor = self._open.get(number)
        if descriptor is not None:
            self._open.move_to_end(number)
            return descriptor
        if len(self._open) >= OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        shard = self.shards[number]
        self._open[number] = shard.open() if isinstance(shard, Copy) else os.open(shard, os.O_RDONLY)
        return self._open[number]

    def close(self) -> None:
        """Close all open files. Reading opens them again."""
        _close_all(self._open)

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shards: list[Path | Copy] = state["shards"]
        self._open: OrderedDict[int, int] = OrderedDict()
        weakref.finalize(self, _close_all, self._open)  # __del__ could run during the interpreter's shutdown


def _close_all(files: OrderedDict[int, int]) -> None:
    while files:
        with suppress(OSError):  # already closed, for example by a daemon
            os.close(files.popitem()[1])


def _joined(columns: Sequence[npt.NDArray[Any]], dtype: str) -> npt.NDArray[Any]:
    return np.concatenate(columns).astype(dtype, copy=False)
