import numpy as np
import pytest
from scipy.stats import chisquare

from mtrain.data.sampling import Mixture, draw, looks

DRAWS = range(200_000)


def test_shares_are_the_chances_of_the_tasks() -> None:
    tasks = draw([10, 10, 10], 0, 0, DRAWS, mixture=Mixture([2, 1, 5])).task
    expected = np.array([2, 1, 5]) / 8 * len(DRAWS)
    assert chisquare(np.bincount(tasks, minlength=3), expected).pvalue > 0.01


def test_equal_shares_draw_what_the_paper_draws() -> None:
    sizes = [5, 7, 9, 11]
    assert np.array_equal(draw(sizes, 3, 1, DRAWS).task, draw(sizes, 3, 1, DRAWS, mixture=Mixture([1] * 4)).task)


def test_a_task_without_a_share_is_never_drawn() -> None:
    assert set(draw([3, 3, 3], 0, 0, DRAWS, mixture=Mixture([1, 0, 1])).task.tolist()) == {0, 2}
    assert set(draw([3, 3, 3], 0, 0, DRAWS, mixture=Mixture([1, 1, 0])).task.tolist()) == {0, 1}


def test_classes_of_a_task_are_drawn_alike_and_no_image_of_a_class_is_favoured() -> None:
    labels = [np.array([0] * 3 + [1] * 90 + [3] * 7), np.array([1, 0, 1, 1])]
    drawn = draw([100, 4], 0, 0, DRAWS, mixture=Mixture(labels=labels))
    for task, held in enumerate(labels):
        rows = drawn.row[drawn.task == task]
        present, counts = np.unique(held[rows], return_counts=True)
        assert present.tolist() == np.unique(held).tolist()
        assert chisquare(counts).pvalue > 0.01
        for label in present:
            of_class = np.bincount(rows[held[rows] == label], minlength=len(held))[held == label]
            assert len(of_class) == 1 or chisquare(of_class).pvalue > 0.01


def test_class_and_flips_are_independent() -> None:
    labels = [np.array([0, 1, 1, 1])]
    drawn = draw([4], 0, 0, DRAWS, mixture=Mixture(labels=labels))
    table = np.bincount(labels[0][drawn.row] * 4 + drawn.flips @ [2, 1], minlength=8)
    assert chisquare(table).pvalue > 0.01


def test_looks_are_uniform_and_belong_to_the_slot() -> None:
    slots = np.array([5, 3, 900, 4])
    found = looks(1, 7, slots)
    assert found.shape == (4, 16)
    assert np.array_equal(found[0], looks(1, 7, np.array([5]))[0])
    many = looks(0, 0, np.arange(20_000))
    assert many.min() >= 0
    assert many.max() < 1
    for column in many.T:
        assert chisquare(np.bincount((column * 16).astype(int), minlength=16)).pvalue > 0.001
    assert np.abs(np.corrcoef(many.T) - np.eye(16)).max() < 0.04


@pytest.mark.parametrize("iteration", [0, 1, 2**40])
def test_looks_differ_from_iteration_to_iteration(iteration: int) -> None:
    assert not np.array_equal(looks(0, iteration, np.arange(3)), looks(0, iteration + 1, np.arange(3)))
