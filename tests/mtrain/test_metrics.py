"""Metrics by hand, and beside scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from mtrain.scoring import bootstrap, metrics


def test_the_area_counts_pairs_and_halves_of_ties() -> None:
    """Positives 3, 2; negatives 2, 1: of four pairs three are in order and one is tied."""
    assert metrics.roc_auc(np.array([True, True, False, False]), np.array([3.0, 2.0, 2.0, 1.0])) == 3.5 / 4


def test_the_area_of_one_class_alone_is_not_defined() -> None:
    assert math.isnan(metrics.roc_auc(np.array([True, True]), np.array([1.0, 2.0])))


def test_two_classes_are_decided_by_the_sign_and_more_by_the_largest() -> None:
    assert metrics.predicted(np.array([-1.0, 0.5])).tolist() == [0, 1]
    assert metrics.predicted(np.array([[0.1, 0.3, 0.2], [5.0, 0.0, 1.0]])).tolist() == [1, 0]


def test_scores_of_a_small_case_worked_out_by_hand() -> None:
    """Truth 0 0 0 1, found 0 0 1 1: recalls 2/3 and 1; F1 4/5 and 2/3."""
    scores = dict(metrics.all_scores(np.array([0, 0, 0, 1]), np.array([-2.0, -1.0, 1.0, 2.0]), 2))
    assert scores["accuracy"] == 0.75
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert scores["roc_auc"] == 1.0


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_those_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(classes, size=300)
    values = rng.normal(size=(300, classes)).round(1) + 0.8 * np.eye(classes)[labels]
    decisions = values[:, 1] - values[:, 0] if classes == 2 else values
    found, scores = metrics.predicted(decisions), dict(metrics.all_scores(labels, decisions, classes))
    areas = [reference.roc_auc_score(labels == c, values[:, c]) for c in range(classes)]
    area = reference.roc_auc_score(labels, decisions) if classes == 2 else np.mean(areas)
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(labels, found))
    assert scores["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, found))
    assert scores["macro_f1"] == pytest.approx(reference.f1_score(labels, found, average="macro"))
    assert scores["roc_auc"] == pytest.approx(area)
    assert metrics.score("roc_auc" if classes == 2 else "accuracy", labels, decisions) in scores.values()


def test_the_calibration_error_has_an_interval_over_groups() -> None:
    """Two groups, one calibrated and one that errs with a confidence of 0.9: alone 0.1 and 0.9, together 0.4."""
    labels = np.array([0] * 4)
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    decisions = metrics.decisions_of(probabilities)
    found = bootstrap.intervals(labels, decisions, ["a", "a", "b", "b"], 2, probabilities=probabilities)
    assert metrics.calibration_error(labels, probabilities) == pytest.approx(0.4)
    assert found["calibration_error"] == pytest.approx((0.1, 0.9))


def test_confusion_counts_true_classes_by_row_and_answers_by_column() -> None:
    counts = metrics.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_reliability_bins_hold_what_the_calibration_error_sums() -> None:
    labels = np.array([0, 0, 1, 1, 0])
    probabilities = np.array([[0.9, 0.1], [0.95, 0.05], [0.6, 0.4], [0.35, 0.65], [0.2, 0.8]])
    bins = metrics.reliability(labels, probabilities)
    assert sum(one.count for one in bins) == 5
    total = sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / 5
    assert total == pytest.approx(metrics.calibration_error(labels, probabilities))
