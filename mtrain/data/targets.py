"""Masks and points of samples: read from shards, cropped and resized with their images, and written to a batch.

Masks are resized by the nearest stored pixel; points are moved exactly. Both are cropped, flipped and turned like their
image: cropped in the workers, and flipped and turned on the device (`turned`), as images are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrain.data.batches.augment import mirrored_at_once, put_mask, square_points
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.images import ShardFiles, checks
from mtrain.data.metadata import json_headers, read_json
from mtrain.data.rows import DenseTargets, Rows, encoded_keys
from mtrain.data.task import Task
from mtrain.errors import ShardError

IGNORE = 255  # in a mask: not annotated
GREY_OF_8_BITS = b"\x08\x00"  # bit depth and colour type in the header of a PNG


class MasksAndPoints:
    """Random access to the masks and points of some tasks, numbered as in `Images` of the same parts.

    most: maximum number of objects of a sample. check: as in `Images`, for masks.
    """

    def __init__(self, parts: Sequence[tuple[Task, Rows]], *, check: bool | None = None) -> None:
        self.tasks = [task.name for task, _ in parts]
        self.dense = [task.dense for task, _ in parts]
        self.starts = np.cumsum([0] + [len(rows) for _, rows in parts])
        self._sources = [
            _Source(task, rows, check) if dense else None for (task, rows), dense in zip(parts, self.dense, strict=True)
        ]
        objects = [rows.objects for (_, rows), of in zip(parts, self.dense, strict=True) if of and of.points]
        self.most = max((int(column.max()) for column in objects if column is not None and len(column)), default=0)

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
        source, row, size = self._sources[task], index - int(self.starts[task]), into.masks.shape[1]
        assert source is not None
        try:
            mask = source.mask(row, shape)
            points, radius = source.points(row)
            if len(points) > self.most:
                raise ValueError(f"it has {len(points)} points, more than the index states")
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise source.unreadable(row, error) from None
        if mask is None:
            into.masks[entry] = IGNORE
        else:
            put_mask(mask, place, into.masks[entry].numpy())
        moved, scale = square_points(points, shape, size, place)
        into.points[entry, :, 2] = -1
        into.points[entry, : len(moved)] = torch.from_numpy(moved.astype(np.float32))
        into.radii[entry] = radius * scale

    def _task(self, index: int) -> int:
        return int(np.searchsorted(self.starts, index, side="right")) - 1


class _Source:
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
        mask = _decoded(data)
        if mask.shape != shape:
            raise ValueError(f"its mask is {mask.shape[1]}x{mask.shape[0]} px, its image {shape[1]}x{shape[0]}")
        largest = int(mask.max(where=mask != IGNORE, initial=0))
        if largest >= len(self.of.seg):
            raise ValueError(f"its mask holds {largest}, but the task has classes 0..{len(self.of.seg) - 1}")
        return mask

    def points(self, row: int) -> tuple[npt.NDArray[np.float64], float]:
        """The points of a sample, (n, 3): x, y in pixels of the stored image, and class; and their radius there."""
        if not self.of.points or self.header is None:
            return np.zeros((0, 3)), 0.0
        content = read_json(self._files, int(self.shard[row]), int(self.header[row]))
        points = np.asarray(content["points"], dtype=np.float64).reshape(-1, 3)
        classes = points[:, 2]
        if (
            not np.isfinite(points).all()
            or ((classes < 0) | (classes >= len(self.of.points)) | (classes % 1 > 0)).any()
        ):
            raise ValueError(f"its points are not x, y and a class in 0..{len(self.of.points) - 1}")
        return points, _radius(self.of, content)

    def _check(self, row: int, data: bytes) -> None:
        if self.checks and not self._seen[row]:
            assert self.sha256 is not None
            if hashlib.sha256(data).digest() != self.sha256[row].tobytes():
                raise ValueError("its mask has changed since it was written (its sha256 is not that of the index)")
            self._seen[row] = True

    def unreadable(self, row: int, error: Exception) -> ShardError:
        """Return the error for a sample whose targets cannot be read."""
        shard = int(self.shard[row])
        reason = f"its JSON has no {error}" if isinstance(error, KeyError) else error
        return ShardError(
            f"{self.name}: cannot read the mask or points of {self.key[row].decode()}: {reason}",
            where=self._files.name(shard),
            remedy=self._files.remedy(shard),
        )


def _decoded(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a mask: uint8 (height, width). Only 8-bit grey PNG is accepted, since others would be converted."""
    if data[24:26] != GREY_OF_8_BITS:
        raise ValueError("its mask is not a PNG of mode L with 8 bits")
    try:
        mask: npt.NDArray[np.uint8] = imagecodecs.png_decode(data)
    except imagecodecs.PngError as error:
        raise ValueError(f"its mask is damaged: {error}") from None
    return mask


def _radius(of: DenseTargets, content: dict[str, Any]) -> float:
    """The radius of points in pixels of the stored image."""
    if of.radius_px is not None:
        return of.radius_px
    mpp = content.get("mpp_stored")
    if of.radius_um is None or not isinstance(mpp, int | float) or not mpp > 0:
        raise ValueError("neither the task nor the sample states the radius of its points in pixels")
    return of.radius_um / mpp


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
