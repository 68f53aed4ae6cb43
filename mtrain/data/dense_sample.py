"""Mask and points of one sample, from the bytes and the JSON of its shard to an entry of a batch.

Masks are resized by the nearest stored pixel; points are moved exactly. Both are cropped like their image.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt
import torch

from mtrain.data.batches.augment import put_mask, square_points
from mtrain.data.batches.batch import Batch
from mtrain.data.rows import DenseTargets, Rows

IGNORE = 255  # in a mask: not annotated
GREY_OF_8_BITS = b"\x08\x00"  # bit depth and colour type in the header of a PNG
WRONG = (ValueError, OSError, KeyError, TypeError)  # what the functions of this module raise


class DenseSample(NamedTuple):
    """What one stored image has. mask: uint8 (height, width); None in a task without masks. points: (n, 3), x and y in
    pixels of the stored image, and class. radius: of the points, in the same pixels.
    """

    mask: npt.NDArray[np.uint8] | None
    points: npt.NDArray[np.float64]
    radius: float

    def put(self, shape: tuple[int, int], place: int, into: Batch, entry: int) -> None:
        """Write all to one entry of a batch, for the square at `place` (mtrain.data.batches.augment.square).

        shape: (height, width) of the stored image.

        Raises:
            ValueError: the batch has no room for this many points.
        """
        size, most = into.masks.shape[1], into.points.shape[1]
        if len(self.points) > most:
            raise ValueError(f"it has {len(self.points)} points, more than the index states")
        if self.mask is None:
            into.masks[entry] = IGNORE
        else:
            put_mask(self.mask, place, into.masks[entry].numpy())
        moved, scale = square_points(self.points, shape, size, place)
        into.points[entry, :, 2] = -1
        into.points[entry, : len(moved)] = torch.from_numpy(moved.astype(np.float32))
        into.radii[entry] = self.radius * scale


def most_objects(parts: Iterable[tuple[DenseTargets | None, Rows]]) -> int:
    """The maximum number of points and boxes of a sample, in tasks that are trained on points."""
    counts = [rows.objects for of, rows in parts if of is not None and of.points]
    return max((int(column.max()) for column in counts if column is not None and len(column)), default=0)


def mask_of(data: bytes, of: DenseTargets, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Decode the mask of an image of `shape`: uint8 (height, width).

    Raises:
        ValueError: it cannot be decoded, or does not fit the image or the classes.
    """
    mask = _decoded(data)
    if mask.shape != shape:
        raise ValueError(f"its mask is {mask.shape[1]}x{mask.shape[0]} px, its image {shape[1]}x{shape[0]}")
    largest = int(mask.max(where=mask != IGNORE, initial=0))
    if largest >= len(of.seg):
        raise ValueError(f"its mask holds {largest}, but the task has classes 0..{len(of.seg) - 1}")
    return mask


def points_of(content: dict[str, Any], of: DenseTargets) -> tuple[npt.NDArray[np.float64], float]:
    """The points in the JSON of a sample, (n, 3): x, y in pixels of the stored image, and class; and their radius.

    Raises:
        ValueError, KeyError, TypeError: it does not hold them as docs/format.md states.
    """
    points = np.asarray(content["points"], dtype=np.float64).reshape(-1, 3)
    classes = points[:, 2]
    if not np.isfinite(points).all() or ((classes < 0) | (classes >= len(of.points)) | (classes % 1 > 0)).any():
        raise ValueError(f"its points are not x, y and a class in 0..{len(of.points) - 1}")
    return points, _radius(of, content)


def no_points() -> tuple[npt.NDArray[np.float64], float]:
    """What `points_of` would return for a task without points."""
    return np.zeros((0, 3)), 0.0


def reason(error: Exception) -> str:
    """What is wrong with the sample for which a function of this module raised an error."""
    return f"its JSON has no {error}" if isinstance(error, KeyError) else str(error)


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
