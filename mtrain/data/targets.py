"""Masks and points of samples, read from shards by offset. Like images, they are cropped and resized in the workers
(mtrain.data.dense_sample), and flipped and turned on the device (`turned`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrain.data.batches.augment import mirrored_at_once
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.images import ShardFiles, checks
from mtrain.data.dense_sample import WRONG, DenseSample, mask_of, most_objects, no_points, points_of, reason
from mtrain.data.metadata import json_headers, read_json
from mtrain.data.rows import Rows, encoded_keys
from mtrain.data.task import Task
from mtrain.errors import ShardError


class MasksAndPoints:
    """Random access to the masks and points of some tasks, numbered as in `Images` of the same parts.

    most: maximum number of objects of a sample. check: as in `Images`, for masks.
    """

    def __init__(self, parts: Sequence[tuple[Task, Rows]], *, check: bool | None = None) -> None:
        self.tasks = [task.name for task, _ in parts]
        self.dense = [task.dense for task, _ in parts]
        self.starts = np.cumsum([0] + [len(rows) for _, rows in parts])
        self._sources = [
            _OneTask(task, rows, check) if dense else None
            for (task, rows), dense in zip(parts, self.dense, strict=True)
        ]
        self.most = most_objects((task.dense, rows) for task, rows in parts)

    def has(self, index: int) -> bool:
        """Whether the task of this sample has masks or points."""
        return self._sources[self._task(index)] is not None

    def put(self, index: int, shape: tuple[int, int], place: int, into: Batch, entry: int) -> None:
        """Write mask, points and radius of a sample, whose image is of `shape` (height, width), to one entry of a
        batch, for the square at `place` (mtrain.data.batches.augment.square).

        Raises:
            ShardError: they cannot be read, or do not fit the image or the task.
        """
        task = self._task(index)
        source, row = self._sources[task], index - int(self.starts[task])
        assert source is not None
        try:
            DenseSample(source.mask(row, shape), *source.points(row)).put(shape, place, into, entry)
        except WRONG as error:
            raise source.unreadable(row, error) from None

    def _task(self, index: int) -> int:
        return int(np.searchsorted(self.starts, index, side="right")) - 1


class _OneTask:
    """The masks and points of some rows of one task."""

    def __init__(self, task: Task, rows: Rows, check: bool | None) -> None:
        assert task.dense is not None
        self.name, self.of, self.shard = task.name, task.dense, rows.shard
        self.seg_offset, self.seg_length, self.sha256 = rows.seg_offset, rows.seg_length, rows.seg_sha256
        self.header = json_headers(rows) if task.dense.points else None
        self.key: npt.NDArray[np.bytes_] = encoded_keys(rows)
        self.checks = checks() if check is None else check
        self._seen = np.zeros(len(rows), np.bool_)
        self._files = ShardFiles(task.files())

    def mask(self, row: int, shape: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
        """The mask of a sample: uint8 (height, width); None in a task without masks."""
        if not self.of.seg:
            return None
        assert self.seg_offset is not None
        assert self.seg_length is not None
        data = self._files.read(int(self.shard[row]), int(self.seg_offset[row]), int(self.seg_length[row]))
        self._check(row, data)
        return mask_of(data, self.of, shape)

    def points(self, row: int) -> tuple[npt.NDArray[np.float64], float]:
        """The points of a sample, (n, 3): x, y in pixels of the stored image, and class; and their radius there."""
        if not self.of.points or self.header is None:
            return no_points()
        return points_of(read_json(self._files, int(self.shard[row]), int(self.header[row])), self.of)

    def _check(self, row: int, data: bytes) -> None:
        if self.checks and not self._seen[row]:
            assert self.sha256 is not None
            if hashlib.sha256(data).digest() != self.sha256[row].tobytes():
                raise ValueError("its mask has changed since it was written (its sha256 is not that of the index)")
            self._seen[row] = True

    def unreadable(self, row: int, error: Exception) -> ShardError:
        """Return the error for a sample whose targets cannot be read."""
        shard = int(self.shard[row])
        return ShardError(
            f"{self.name}: cannot read the mask or points of {self.key[row].decode()}: {reason(error)}",
            where=self._files.name(shard),
            remedy=self._files.remedy(shard),
        )


def turned(masks: Tensor, points: Tensor, flips: Tensor, quarter: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Masks (D, S, S) and points (D, P, 3), mirrored as `flips` (D, 2) states (left-right, up-down), then transposed
    where `quarter` (D,) is true: what mtrain.data.batches.augment.flip and colour.quarter_turn beside it do to images.
    """
    size, (x, y, classes) = masks.shape[-1], points.unbind(-1)
    masks = mirrored_at_once(masks[:, None], flips)[:, 0]
    x, y = (torch.where(flips[:, axis, None], size - part, part) for axis, part in enumerate((x, y)))
    if quarter is not None:
        masks = torch.where(quarter[:, None, None], masks.transpose(1, 2), masks)
        x, y = torch.where(quarter[:, None], y, x), torch.where(quarter[:, None], x, y)
    return masks, torch.stack([x, y, classes], dim=-1)
