"""Folds: whole groups, all classes, and no chance in it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrain.transfers.classifiers.folds import group_folds

samples = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=2, max_size=60)


@settings(deadline=None)
@given(samples)
def test_groups_stay_whole_and_no_fold_is_empty(drawn: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in drawn])
    groups = [f"p{group}" for _, group in drawn]
    folds = group_folds(labels, groups)
    assert set(folds.of) == set(range(folds.count))
    if len(set(groups)) > 1:
        assert folds.count == min(5, len(set(groups)))
        assert len({(group, fold) for group, fold in zip(groups, folds.of, strict=True)}) == len(set(groups))


@settings(deadline=None)
@given(samples.filter(lambda drawn: len({group for _, group in drawn}) > 1), st.randoms())
def test_the_order_of_the_samples_does_not_matter(drawn: list[tuple[int, int]], random: object) -> None:
    shuffled = sorted(range(len(drawn)), key=lambda _: random.random())  # type: ignore[attr-defined]
    labels, groups = np.array([label for label, _ in drawn]), [f"p{group}" for _, group in drawn]
    straight = group_folds(labels, groups).of
    mixed = group_folds(labels[shuffled], [groups[i] for i in shuffled]).of
    assert (straight[shuffled] == mixed).all()


def test_groups_are_dealt_largest_first_to_where_their_class_is_rare() -> None:
    """Class 0: groups a (4), b (3), c (1); class 1: d (2), e (1). Two folds: a | b, then d and e apart, c beside b."""
    sizes = {"a": (0, 4), "b": (0, 3), "c": (0, 1), "d": (1, 2), "e": (1, 1)}
    labels = np.array([label for label, n in sizes.values() for _ in range(n)])
    groups = [name for name, (_, n) in sizes.items() for _ in range(n)]
    folds = group_folds(labels, groups, count=2)
    of = dict(zip(groups, folds.of.tolist(), strict=True))
    assert of["a"] != of["b"]
    assert of["c"] == of["b"]
    assert of["d"] != of["e"]
    assert folds.notes == ()


def test_every_class_is_spread_over_the_folds_when_groups_are_images() -> None:
    labels = np.repeat([0, 1, 2], [50, 25, 5])
    folds = group_folds(labels, [f"{i:03}" for i in range(80)])
    for fold in range(5):
        assert np.bincount(labels[folds.of == fold]).tolist() == [10, 5, 1]


def test_fewer_groups_than_folds_make_fewer_folds_and_a_note() -> None:
    folds = group_folds(np.array([0, 1, 0, 1, 0, 1]), ["a", "a", "b", "b", "c", "c"])
    assert folds.count == 3
    assert any("only 3 groups" in note for note in folds.notes)


def test_a_single_group_is_dealt_out_by_image_and_noted() -> None:
    folds = group_folds(np.array([0, 1] * 10), ["one"] * 20)
    assert folds.count == 5
    assert any("share one group" in note for note in folds.notes)


def test_a_class_in_too_few_groups_is_noted() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1])
    assert any("1 of 2 classes occurs in fewer groups" in note for note in group_folds(labels, list("abcdef")).notes)
