"""Compute the exact share of a rectangle that a raster mask covers, at any scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Coverage:
    """A boolean mask stretched over an image of `width` x `height` level-0 pixels.

    The integral image of a mask of constant cells is bilinear inside each cell. Interpolating it therefore gives the
    exact covered area of any rectangle, even one that cuts cells.
    """

    def __init__(self, mask: NDArray[np.bool_], width: float, height: float) -> None:
        rows, columns = mask.shape
        self.scale = columns / width, rows / height
        counts = np.int32 if mask.size < 2**31 else np.int64  # exact, and a quarter of the time of float64
        self.integral = np.zeros((rows + 1, columns + 1), counts)
        inside = self.integral[1:, 1:]
        np.cumsum(np.cumsum(mask, axis=1, dtype=counts, out=inside), axis=0, out=inside)

    def share(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Return the covered share, 0 to 1, of boxes (N, 4): x, y, width, height in level-0 pixels."""
        left, top, width, height = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
        right, bottom = left + width, top + height
        area = self._at(right, bottom) - self._at(left, bottom) - self._at(right, top) + self._at(left, top)
        share: NDArray[np.float64] = np.clip(area / (width * height * self.scale[0] * self.scale[1]), 0.0, 1.0)
        return share

    def _at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the integral from the origin to (x, y)."""
        rows, columns = self.integral.shape
        x, y = np.clip(x * self.scale[0], 0, columns - 1), np.clip(y * self.scale[1], 0, rows - 1)
        i, j = np.minimum(y.astype(int), rows - 2), np.minimum(x.astype(int), columns - 2)
        v, u = y - i, x - j
        upper = self.integral[i, j] * (1 - u) + self.integral[i, j + 1] * u
        lower = self.integral[i + 1, j] * (1 - u) + self.integral[i + 1, j + 1] * u
        result: NDArray[np.float64] = upper * (1 - v) + lower * v
        return result
