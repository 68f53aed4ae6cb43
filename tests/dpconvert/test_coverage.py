"""The share of boxes that the cells of a mask cover."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpconvert.image.coverage import Coverage


def test_shares_by_hand() -> None:
    mask = np.array([[1, 0], [0, 1]], bool)
    share = Coverage(mask, 20, 10).share
    assert share([(0, 0, 20, 10), (0, 0, 10, 5), (10, 0, 10, 5), (5, 0, 10, 5)]).tolist() == [0.5, 1.0, 0.0, 0.5]
    assert share([(0, 0, 15, 10)]).tolist() == [0.5]
    assert share([(5, 2.5, 10, 5)]).tolist() == [0.5]


def test_what_lies_outside_the_image_is_not_covered() -> None:
    share = Coverage(np.ones((3, 3), bool), 30, 30).share
    assert share([(-10, 0, 20, 10), (25, 25, 10, 10), (40, 40, 5, 5)]).tolist() == [0.5, 0.25, 0.0]


def test_a_tenth_is_exactly_a_tenth() -> None:
    mask = np.zeros((1000, 1000), bool)
    mask[300:500, 700:720] = True
    assert Coverage(mask, 1000, 1000).share([(700, 300, 200, 200)]).tolist() == [0.1]


@given(st.integers(0, 2**32 - 1))
def test_shares_of_any_boxes_are_sums_over_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 8, 2)
    mask = rng.random((rows, columns)) < 0.5
    width, height = rng.uniform(1, 50, 2)
    boxes = np.concatenate([rng.uniform(-5, 50, (20, 2)), rng.uniform(0.1, 40, (20, 2))], axis=1)
    expected = [by_cells(mask, width, height, box) for box in boxes]
    np.testing.assert_allclose(Coverage(mask, width, height).share(boxes), expected, atol=1e-9)


def by_cells(mask: NDArray[np.bool_], width: float, height: float, box: NDArray[np.float64]) -> float:
    """The covered share, cell by cell."""
    rows, columns = mask.shape
    x, y, w, h = box
    area = 0.0
    for i, j in np.argwhere(mask):
        left, right = j * width / columns, (j + 1) * width / columns
        top, bottom = i * height / rows, (i + 1) * height / rows
        area += max(0, min(right, x + w) - max(left, x)) * max(0, min(bottom, y + h) - max(top, y))
    return float(area / (w * h))
