import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from mtrain.data.sampling import Stream, below, digest, draw, model_seed

SIZES = [3, 882, 300_000]
FROZEN_TASKS = [1, 2, 2, 0, 2, 1, 2, 0]
FROZEN_ROWS = [629, 92330, 135586, 0, 291844, 86, 296634, 0]
FROZEN_DIGEST = "60256fd3b724aaad"


def test_the_draws_are_frozen() -> None:
    """A change here changes every training: raise the version and say so."""
    drawn = draw(SIZES, 7, 12_345, range(8))
    assert drawn.task.tolist() == FROZEN_TASKS
    assert drawn.row.tolist() == FROZEN_ROWS
    assert digest(drawn, [str(i) for i in range(8)])[:16] == FROZEN_DIGEST


def test_a_slot_does_not_depend_on_the_other_slots_requested() -> None:
    whole = draw(SIZES, 0, 5, range(64))
    parts = [draw(SIZES, 0, 5, slots) for slots in (range(1), range(1, 40), range(40, 64))]
    for name in ("task", "row", "place", "flips"):
        assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


def test_seeds_iterations_and_streams_draw_differently() -> None:
    draws = [
        draw(SIZES, seed, iteration, range(32), stream).place.tolist()
        for seed in (0, 1, 2**62)
        for iteration in (0, 1, 2**40)
        for stream in (Stream.TRAIN, Stream.ADAPT)
    ]
    assert len({tuple(places) for places in draws}) == len(draws)


def test_consecutive_iterations_share_no_slot() -> None:
    places = np.concatenate([draw(SIZES, 0, iteration, range(64)).place for iteration in range(100)])
    assert len(np.unique(places)) == len(places)


def test_every_task_has_the_same_chance_whatever_its_size() -> None:
    tasks = draw([882] * 21 + [300_000], 0, 0, range(1_000_000)).task
    assert chisquare(np.bincount(tasks, minlength=22)).pvalue > 0.01


def test_no_image_of_a_task_is_favoured() -> None:
    drawn = draw([50, 882], 1, 0, range(1_000_000))
    for task, size in enumerate([50, 882]):
        assert chisquare(np.bincount(drawn.row[drawn.task == task], minlength=size)).pvalue > 0.01


def test_tasks_of_consecutive_slots_are_independent() -> None:
    tasks = draw([10] * 5, 0, 3, range(500_000)).task
    pairs = np.bincount(tasks[:-1] * 5 + tasks[1:], minlength=25)
    assert chisquare(pairs).pvalue > 0.01


def test_crops_and_flips_are_uniform_and_independent() -> None:
    drawn = draw(SIZES, 2, 0, range(400_000))
    assert chisquare(np.bincount(drawn.place >> 28, minlength=16)).pvalue > 0.01
    assert chisquare(np.bincount(drawn.flips @ [2, 1], minlength=4)).pvalue > 0.01
    assert drawn.place.min() >= 0
    assert drawn.place.max() < 2**32


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1))
def test_words_are_scaled_exactly(word: int, bound: int) -> None:
    assert int(below(np.array([word], np.uint64), np.uint64(bound))[0]) == (word * bound) >> 64


def test_the_digest_tells_images_order_and_augmentation_apart() -> None:
    drawn = draw([4], 0, 0, range(3))
    assert digest(drawn, ["a", "b", "c"]) != digest(drawn, ["b", "a", "c"])
    assert digest(drawn, ["a", "b", "c"]) != digest(draw([4], 0, 1, range(3)), ["a", "b", "c"])
    with pytest.raises(ValueError, match="zip"):
        digest(drawn, ["a"])


def test_the_networks_own_randomness_is_seeded_by_iteration() -> None:
    seeds = {model_seed(seed, iteration) for seed in range(3) for iteration in range(100)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
