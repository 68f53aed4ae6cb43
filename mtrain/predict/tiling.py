"""Square tiles that overlap by half, and one map of classes blended from their logits, strip by strip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 255  # in a map of classes: outside the tissue
EDGE = 1e-4  # weight of a tile's rim, where the network saw only one side; it counts where no other tile does

Values = NDArray[np.float32]


def starts(length: int, size: int) -> list[int]:
    """Where tiles of `size` begin that cover `length` and overlap by half; the last one ends at the end."""
    return sorted({*range(0, length - size, max(1, size // 2)), length - size})


def window(size: int) -> Values:
    """The weights of a tile's pixels (size, size): least within an eighth of its sides, from there rising inwards."""
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) - size // 8
    line = np.maximum(distance / size, EDGE)
    return np.outer(line, line).astype(np.float32)


def blended(
    tiles: Iterable[tuple[int, int, Values]], classes: int, shape: tuple[int, int], size: int
) -> Iterator[tuple[int, Values, NDArray[np.bool_]]]:
    """Strips of the blended logits: the first row, (classes, rows, width), and which pixels any tile covers.

    tiles: x, y and logits (classes, size, size) of each, row by row of tiles. shape: height and width of the map. The
    memory is that of one row of tiles.
    """
    height, width = shape
    weights = window(size)
    total, weight = np.zeros((classes, size, width), np.float32), np.zeros((size, width), np.float32)
    top = 0
    for y, row in groupby(tiles, key=lambda tile: tile[1]):
        while top < y:
            done = min(y - top, size)
            yield top, *_mean(total[:, :done], weight[:done])
            total, weight = _shifted(total, done), _shifted(weight, done)
            top += done
        for x, _, logits in row:
            total[:, :, x : x + size] += logits * weights
            weight[:, x : x + size] += weights
    rest = min(size, height - top)
    yield top, *_mean(total[:, :rest], weight[:rest])


def class_map(
    tiles: Iterable[tuple[int, int, Values]],
    classes: int,
    size: int,
    into: NDArray[np.uint8],
    advance: Callable[[int], None] = lambda _rows: None,
) -> None:
    """Write the most likely class of each pixel to `into` (height, width), and 255 where there is no tile."""
    into[:] = UNKNOWN
    for top, logits, known in blended(tiles, classes, (into.shape[0], into.shape[1]), size):
        into[top : top + len(known)] = np.where(known, logits.argmax(0), UNKNOWN)
        advance(len(known))


def _mean(total: Values, weight: Values) -> tuple[Values, NDArray[np.bool_]]:
    known = weight > 0
    mean: Values = (total / np.where(known, weight, 1)).astype(np.float32)
    return mean, known


def _shifted(values: Values, rows: int) -> Values:
    """The strip without its first rows, filled up with zeros."""
    moved = np.zeros_like(values)
    moved[..., : values.shape[-2] - rows, :] = values[..., rows:, :]
    return moved
