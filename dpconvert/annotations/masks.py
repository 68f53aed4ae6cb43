"""Label masks: pictures whose values are classes, at the scale of the picture they belong to or a coarser one."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow

from dpconvert.errors import ReadError
from dpconvert.raster import Coverage


class LabelMask:
    """`values` (rows, columns) stretched over a picture of `width` x `height` px; `labels`: value -> class."""

    def __init__(self, values: NDArray[np.integer], labels: Mapping[int, str], width: int, height: int) -> None:
        self.values, self.labels, self.width, self.height = values, labels, width, height

    def share(self, boxes: ArrayLike, labels: Sequence[str]) -> NDArray[np.float64]:
        """Exact share of boxes (N, 4) of x, y, width, height whose values mean one of `labels`."""
        wanted = [value for value, label in self.labels.items() if label in labels]
        return Coverage(np.isin(self.values, wanted), self.width, self.height).share(boxes)

    def at(self, points: ArrayLike) -> list[str | None]:
        """The class under each point (N, 2) of x, y in level-0 pixels; None outside or where the value means none."""
        x, y = np.asarray(points, dtype=np.float64).reshape(-1, 2).T
        rows, columns = self.values.shape
        j, i = np.floor(x * columns / self.width).astype(int), np.floor(y * rows / self.height).astype(int)
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        found = self.values[i.clip(0, rows - 1), j.clip(0, columns - 1)]
        return [self.labels.get(int(v)) if ok else None for v, ok in zip(found, inside, strict=True)]


def read(
    data: bytes, name: str, labels: Mapping[int, str], size: tuple[int, int], *, threshold: int | None = None
) -> LabelMask:
    """A mask for a picture of `size` (width, height).

    Palette pictures give their indexes; of colour pictures the first channel counts. With `threshold` values become
    0 or 1 (above it): for masks with grey fringes, as JPEG leaves them.

    Raises:
        ReadError: not a picture, of another shape than the picture, or with a value that `labels` does not have.
    """
    values = _values(data, name)
    if threshold is not None:
        values = (values > threshold).astype(np.uint8)
    rows, columns = values.shape
    if abs(columns * size[1] - rows * size[0]) > max(size):
        raise ReadError(
            "mask of another shape than its picture", where=name, expected=f"{size}", found=f"{(columns, rows)}"
        )
    unknown = sorted(set(np.unique(values).tolist()) - set(labels))
    if unknown:
        raise ReadError(
            f"mask value {unknown[0]} has no label", where=name, expected=f"one of {sorted(labels)}",
            remedy="name every value in the manifest, or give a threshold",
        )  # fmt: skip
    return LabelMask(values, labels, *size)


def _values(data: bytes, name: str) -> NDArray[np.integer]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            with Pillow.open(io.BytesIO(data)) as picture:
                values = np.asarray(picture)
    except Pillow.DecompressionBombError:
        raise ReadError("mask too large to be read", where=name) from None
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, EOFError) as error:
        raise ReadError(f"not a readable mask: {error}", where=name) from None
    values = values[:, :, 0] if values.ndim == 3 else values
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise ReadError("mask of an unknown kind", where=name, found=f"{values.dtype} {values.shape}")
    return values
