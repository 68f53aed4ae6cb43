from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpconvert.source.record import draw, hashed


def test_numbers_are_those_of_every_other_machine() -> None:
    assert hashed("a", 1) == 0x05A9C569A185AC60
    assert draw(1000, "a", 1) == 1000 * 0x05A9C569A185AC60 // 2**64


def test_every_part_of_the_address_counts() -> None:
    assert (
        len({hashed(*address) for address in [("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), ("a", 1), ("a", 11)]})
        == 6
    )


@given(st.integers(1, 2**40), st.text(), st.integers())
def test_a_draw_is_below_its_bound(bound: int, text: str, number: int) -> None:
    assert 0 <= draw(bound, text, number) < bound


def test_draws_are_uniform() -> None:
    drawn = Counter(draw(6, "die", k) for k in range(6000))
    assert sum((n - 1000) ** 2 / 1000 for n in (drawn[face] for face in range(6))) < 20.5  # p = 0.001 at 5 degrees


def test_names_that_are_no_unicode_have_numbers_too() -> None:
    assert hashed(b"caf\xe9".decode("utf-8", "surrogateescape")) != hashed("café")


@pytest.mark.parametrize("bound", [1, 2, 3])
def test_small_bounds_are_exhausted(bound: int) -> None:
    assert {draw(bound, k) for k in range(50)} == set(range(bound))
