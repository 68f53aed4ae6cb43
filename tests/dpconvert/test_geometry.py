from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpconvert.annotations.geometry import Regions, polygon, repair

SQUARE = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)]
BOW_TIE = [(0.0, 0.0), (10.0, 10.0), (10.0, 0.0), (0.0, 10.0)]


@pytest.mark.parametrize("ring", [SQUARE, [*SQUARE, SQUARE[0]], SQUARE[::-1]])
def test_a_ring_is_the_same_closed_or_not_and_in_either_direction(ring: list[tuple[float, float]]) -> None:
    remarks: Counter[str] = Counter()
    shape = polygon(ring, remarks)
    assert shape is not None
    assert shape.equals(shapely.box(0, 0, 10, 10))
    assert not remarks


@pytest.mark.parametrize("ring", [[], SQUARE[:1], SQUARE[:2], [*SQUARE[:2], *SQUARE[:2], SQUARE[0]]])
def test_a_ring_of_fewer_than_three_points_is_dropped_and_counted(ring: list[tuple[float, float]]) -> None:
    remarks: Counter[str] = Counter()
    assert polygon(ring, remarks) is None
    assert remarks == {"degenerate ring dropped": 1}


def test_a_bow_tie_becomes_its_two_triangles_and_is_counted() -> None:
    remarks: Counter[str] = Counter()
    shape = polygon(BOW_TIE, remarks)
    assert shape is not None
    assert shape.is_valid
    assert shape.area == 50
    assert shapely.contains_xy(shape, 1, 5) == shapely.contains_xy(shape, 9, 5) == True  # noqa: E712
    assert not shapely.contains_xy(shape, 5, 1)
    assert remarks == {"invalid ring repaired": 1}


def test_mending_leaves_no_lines_behind() -> None:
    spike = [(0, 0), (10, 0), (10, 10), (5, 10), (5, 20), (5, 10), (0, 10)]
    remarks: Counter[str] = Counter()
    shape = repair(shapely.Polygon(spike), remarks)
    assert shape is not None
    assert shape.geom_type == "Polygon"
    assert shape.area == 100


def test_points_on_a_line_are_nothing() -> None:
    remarks: Counter[str] = Counter()
    assert polygon([(0, 0), (5, 5), (10, 10)], remarks) is None
    assert remarks["invalid ring repaired"] == 1


def test_shares_by_hand() -> None:
    region = Regions([shapely.box(0, 0, 10, 10), shapely.box(5, 0, 15, 10)], [shapely.box(0, 0, 5, 5)])
    boxes = [(0, 0, 10, 10), (10, 0, 10, 10), (20, 20, 10, 10), (0, 0, 5, 5), (5, 5, 5, 5), (-10, -10, 20, 20)]
    assert region.share(boxes).tolist() == [0.75, 0.5, 0.0, 0.0, 1.0, 0.1875]
    assert region.contains([(1, 1), (6, 1), (15, 5), (14.9, 5), (99, 0)]).tolist() == [False, True, False, True, False]


def test_nothing_covers_nothing() -> None:
    assert Regions([]).share([(0, 0, 1, 1)]).tolist() == [0.0]
    assert Regions([shapely.box(0, 0, 1, 1)]).share(np.zeros((0, 4))).shape == (0,)
    assert not Regions([]).contains([(0, 0)]).any()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_shares_are_those_of_shapely_box_by_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = [star(rng) for _ in range(int(rng.integers(1, 6)))]
    positive, cut = drawn[: len(drawn) // 2 + 1], drawn[len(drawn) // 2 + 1 :]
    boxes = random_boxes(rng, 60)
    area = shapely.union_all(positive).difference(shapely.union_all(cut))
    expected = [area.intersection(shapely.box(x, y, x + w, y + h)).area / (w * h) for x, y, w, h in boxes]
    np.testing.assert_allclose(Regions(positive, cut).share(boxes), expected, atol=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_shares_are_those_of_counted_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners, sizes = rng.integers(0, 40, (12, 2)), rng.integers(1, 20, (12, 2))
    mask = np.zeros((60, 60), bool)
    for (x, y), (w, h) in zip(corners, sizes, strict=True):
        mask[y : y + h, x : x + w] = True
    region = Regions([shapely.box(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)])
    boxes = [(x, y, 7, 9) for x in range(0, 53, 4) for y in range(0, 51, 5)]
    counted = [mask[y : y + h, x : x + w].mean() for x, y, w, h in boxes]
    np.testing.assert_allclose(region.share(boxes), counted, atol=1e-9)


def star(rng: np.random.Generator) -> shapely.Polygon:
    """A polygon of 3 to 200 vertices, without crossings."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 200))))
    radii = rng.uniform(5, 50, len(angles))[:, None]
    points = rng.uniform(0, 100, 2) + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return shapely.Polygon(points).buffer(0)


def random_boxes(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    return np.concatenate([rng.uniform(-20, 100, (count, 2)), rng.uniform(0.5, 60, (count, 2))], axis=1)
