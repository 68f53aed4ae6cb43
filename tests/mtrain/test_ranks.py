"""Ranks, exclusion, winners and significance, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mtrain.errors import UsageError
from mtrain.evaluation.selecting import ranks
from mtrain.evaluation.selecting.ranks import ScoreGrid, Summary

NAN = float("nan")


def grid(scores: object) -> ScoreGrid:
    values: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
    names = [tuple(letter * (i + 1) for i in range(n)) for letter, n in zip("ct", values.shape[:2], strict=True)]
    return ScoreGrid(names[0], names[1], tuple(range(values.shape[2])), values)


def test_the_highest_seed_mean_has_rank_one() -> None:
    # means: 0.6 0.9 | 0.7 0.5 | 0.5 0.8
    scores = [[[0.5, 0.7], [0.9, 0.9]], [[0.7, 0.7], [0.4, 0.6]], [[0.6, 0.4], [0.8, 0.8]]]
    means = ranks.seed_means(grid(scores).scores)
    assert means == pytest.approx(np.array([[0.6, 0.9], [0.7, 0.5], [0.5, 0.8]]))
    assert ranks.task_ranks(means).tolist() == [[2, 1], [1, 3], [3, 2]]


def test_equal_means_share_the_average_of_their_ranks() -> None:
    means = np.array([[0.8], [0.9], [0.8], [0.1], [0.8]])
    assert ranks.task_ranks(means)[:, 0].tolist() == [3, 1, 3, 5, 3]


def test_means_that_differ_in_the_order_of_their_sum_alone_are_equal() -> None:
    means = ranks.seed_means(np.array([[[0.1, 0.2, 0.3]], [[0.3, 0.2, 0.1]]]))
    assert means[0, 0] != means[1, 0]
    assert ranks.task_ranks(means)[:, 0].tolist() == [1.5, 1.5]


def test_the_targets_own_rank_is_left_out_of_what_wins_for_it() -> None:
    table = np.array([[1.0, 3.0, 1.0], [3.0, 1.0, 2.0], [2.0, 2.0, 3.0]])
    assert ranks.mean_ranks(table) == pytest.approx([5 / 3, 2, 7 / 3])
    assert ranks.mean_ranks(table, 0) == pytest.approx([2, 1.5, 2.5])
    assert ranks.mean_ranks(table, 1) == pytest.approx([1, 2.5, 2.5])
    assert ranks.mean_ranks(table, 2) == pytest.approx([2, 2, 2])
    assert ranks.winners(table) == [1, 0, 0]
    assert ranks.best(ranks.mean_ranks(table)) == 0


def test_a_single_task_leaves_nothing_to_judge_by() -> None:
    assert ranks.winners(np.array([[1.0], [2.0]])) == [None]


def test_a_diverged_training_puts_its_combination_last() -> None:
    means = ranks.seed_means(np.array([[[0.9, -np.inf]], [[0.2, 0.2]], [[0.3, 0.1]]]))
    assert ranks.task_ranks(means)[:, 0].tolist() == [3, 1.5, 1.5]


def test_incomplete_grids_are_refused_by_name_of_the_first_holes() -> None:
    scores = np.full((2, 2, 2), 0.5)
    ranks.check_complete(grid(scores), "go on")
    scores[0, 1, 1] = NAN
    with pytest.raises(UsageError, match=r"1 of 8 scores are missing: c on tt with seed 1; go on"):
        ranks.check_complete(grid(scores), "go on")
    scores[1] = NAN
    with pytest.raises(UsageError) as caught:
        ranks.check_complete(grid(scores), "go on")
    assert str(caught.value) == (
        "5 of 8 scores are missing: c on tt with seed 1, cc on t with seed 0, cc on t with seed 1 and 2 more; go on"
    )
    with pytest.raises(UsageError, match="no score yet"):
        ranks.check_complete(grid(np.empty((2, 0, 2))), "go on")


def test_holes_are_passed_over_if_the_manifest_says_so() -> None:
    means = ranks.seed_means(np.array([[[0.4, NAN], [NAN, NAN]], [[0.5, 0.1], [0.5, 0.5]]]))
    assert means[0, 0] == 0.4
    table = ranks.task_ranks(means)
    assert table[:, 0].tolist() == [1, 2]
    assert np.isnan(table[0, 1])
    assert table[1, 1] == 1
    assert ranks.mean_ranks(table).tolist() == [1, 1.5]


def test_friedman_is_chi_square_of_the_rank_sums() -> None:
    # three combinations ranked alike by four tasks: 12 / (4 * 3 * 4) * (4^2 + 8^2 + 12^2) - 3 * 4 * 4 = 8; p = e^-4
    table = np.array([[1.0] * 4, [2.0] * 4, [3.0] * 4])
    found = ranks.friedman(table)
    assert found is not None
    assert found == pytest.approx((8.0, np.exp(-4)))
    assert ranks.friedman(table[:2]) is None
    assert ranks.friedman(table[:, :1]) is None
    assert ranks.friedman(np.full((3, 4), 2.0)) is None


def test_the_bootstrap_is_sure_of_what_is_clear_and_undecided_between_equals() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1e-3, (3, 6, 5))
    clear = grid(np.array([0.9, 0.5, 0.1])[:, None, None] + noise)
    found = ranks.bootstrap(clear, draws=200)
    assert found.wins.tolist() == [1, 0, 0]
    assert found.low.tolist() == found.high.tolist() == [1, 2, 3]
    equal = ranks.bootstrap(grid(0.5 + rng.normal(0, 0.1, (2, 6, 5))), draws=400)
    assert equal.wins.sum() == pytest.approx(1)
    assert (equal.low < 1.5).all()
    assert (equal.high > 1.5).all()


def test_the_bootstrap_draws_the_same_again_and_passes_over_holes() -> None:
    scores = np.random.default_rng(0).random((3, 4, 3))
    scores[0, 0, 0] = NAN
    scores[1, 2] = NAN
    one, other = (ranks.bootstrap(grid(scores), draws=50) for _ in range(2))
    assert one.low.tolist() == other.low.tolist()
    assert one.wins.sum() == pytest.approx(1)


def test_the_summary_divides_by_one_less_than_there_are() -> None:
    assert ranks.summary([0.5, 0.7, 0.9]) == Summary(pytest.approx(0.7), pytest.approx(0.2), 3)
    assert ranks.summary([0.5]) == Summary(0.5, None, 1)
    assert ranks.summary([0.5], seeded=False) == Summary(0.5, 0.0, 1)
    assert (ranks.summary([0.5], seeded=False).spread, ranks.summary([0.5, 0.5]).spread) == (None, 0.0)


@pytest.mark.parametrize(
    ("means", "stds", "expected"),
    [
        ((75.05, 71.52), (0.70, 0.0), True),  # 3.53 > 1.40
        ((77.63, 75.68), (3.27, 0.0), False),  # 1.95 < 6.54
        ((0.9, 0.8), (0.05, 0.01), False),  # exactly twice the larger one does not exceed it
        ((0.9, 0.8), (0.01, 0.0499), True),
        ((0.8, 0.9), (0.0, 0.0), False),  # undefined: no seed tells how far scores vary
        ((0.8, 0.8), (0.0, 0.0), False),
    ],
)
def test_a_difference_is_significant_beyond_twice_the_larger_deviation(
    means: tuple[float, float], stds: tuple[float, float], expected: bool
) -> None:
    one, other = (Summary(mean, std, 5) for mean, std in zip(means, stds, strict=True))
    assert ranks.significant(one, other) is expected
    assert ranks.significant(other, one) is expected


def test_one_seed_is_never_significant() -> None:
    alone, many, fixed = Summary(0.9, None, 1), Summary(0.2, 0.01, 5), Summary(0.1, 0.0, 1)
    assert not ranks.significant(alone, many)
    assert not ranks.significant(fixed, alone)
    assert ranks.margin(alone, alone) is None
    assert ranks.significant(many, fixed), "what depends on no seed has no deviation"
    assert ranks.margin(Summary(0.9, 0.0, 5), fixed) is None
