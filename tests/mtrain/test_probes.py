"""Classifiers on features, calibration, and intervals over groups: by hand, and beside scikit-learn's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from mtrain.data import sampling
from mtrain.errors import UsageError
from mtrain.scoring import bootstrap, metrics
from mtrain.transfers.classifiers import probes
from mtrain.transfers.classifiers.probes import Features, Labels, Probe, TrainingSet

FROZEN_ORDER = [2, 8, 3, 9, 1, 7, 6, 4, 5, 0]
FROZEN_EPOCH = "8ca771b332755417"


def a_sample(classes: int, n: int = 180, d: int = 8, seed: int = 0) -> TrainingSet:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = (rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(classes, d))[y]).astype(np.float32)
    groups = [f"g{i % 30}" for i in range(n)]
    return TrainingSet(x, y, groups, classes, "accuracy" if classes > 2 else "roc_auc")


def placed(points: list[list[float]], labels: list[int], classes: int = 2) -> TrainingSet:
    groups = [f"g{i}" for i in range(len(labels))]
    return TrainingSet(np.array(points, np.float32), np.array(labels), groups, classes, "accuracy")


# --- logistic regression ---


@pytest.mark.parametrize("classes", [2, 4])
def test_the_logistic_probe_is_that_of_scikit_learn_on_standardised_features(classes: int) -> None:
    sample = a_sample(classes)
    probe = probes.logistic(sample)
    assert probe.settings["C"] in probes.INVERSE_PENALTIES
    assert max(probe.settings["cv"].values()) == probe.settings["cv"][str(probe.settings["C"])]
    mean, scale = sample.features.mean(0, dtype=np.float64), sample.features.std(0, dtype=np.float64)
    reference = LogisticRegression(C=probe.settings["C"], max_iter=5000, tol=1e-8)
    reference.fit((sample.features - mean) / scale, sample.labels)
    found = probe.answer(sample.features)
    expected = reference.predict_proba((sample.features - mean) / scale)
    np.testing.assert_allclose(found.probabilities, expected, atol=2e-3)
    assert (metrics.predicted(found.decisions) == expected.argmax(1)).mean() > 0.99
    assert metrics.accuracy(sample.labels, metrics.predicted(found.decisions)) > 0.9


def test_a_class_that_training_lacks_is_never_the_answer_and_a_constant_feature_does_no_harm() -> None:
    sample = a_sample(2)
    x = np.concatenate([sample.features, np.ones((len(sample.labels), 1), np.float32)], axis=1)
    probe = probes.logistic(TrainingSet(x, sample.labels, sample.groups, 3, "accuracy"))
    found = probe.answer(x)
    assert found.decisions.shape == (180, 3)
    assert (found.probabilities[:, 2] == 0).all()
    np.testing.assert_allclose(found.probabilities.sum(1), 1)


@pytest.mark.parametrize("probe", [probes.logistic, probes.knn])
def test_a_fold_that_leaves_one_class_to_train_on_is_survived(probe: Callable[[TrainingSet], Probe]) -> None:
    sample = placed([[-1, 0.1], [-1, 0.0], [1, 0.1], [1, 0.2]], [0, 0, 1, 1])
    divided = TrainingSet(sample.features, sample.labels, ["a", "a", "b", "b"], 2, "accuracy")
    found = probe(divided).answer(divided.features)
    assert metrics.predicted(found.decisions).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("probe", "chosen"), [(probes.logistic, "C = 1"), (probes.knn, "k = 1")])
def test_folds_that_decide_nothing_are_reported(probe: Callable[[TrainingSet], Probe], chosen: str) -> None:
    """Each fold holds one class, so that no fold has a ROC curve, and none of its answers is right."""
    sample = placed([[-1, 0.1], [-1, 0.0], [1, 0.1], [1, 0.2]], [0, 0, 1, 1])
    divided = TrainingSet(sample.features, sample.labels, ["a", "a", "b", "b"], 2, "roc_auc")
    found = probe(divided)
    assert found.notes[-1] == f"no fold could be scored: {chosen} is used"
    assert next(iter(found.settings.values())) == 1
    notes = probe(dataclasses.replace(divided, metric="accuracy")).notes
    apart = [note for note in notes if note.startswith("cross-validation cannot tell the values of")]
    assert len(apart) == (probe is probes.logistic), "there is one k alone"


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="a single class"):
        placed([[0.0], [1.0]], [1, 1])


# --- nearest neighbours ---


def test_neighbours_vote_with_the_exponential_of_their_cosine() -> None:
    """Three neighbours at angles of 0, 60 and 90 degrees: cosines 1, 1/2 and 0; the class of the second is 1."""
    half = math.sqrt(3) / 2
    sample = placed([[1, 0], [0.5, half], [0, 1]], [0, 1, 0])
    x = probes._unit(torch.from_numpy(sample.features))
    fold, nowhere = torch.arange(3), torch.tensor([-1])
    y = torch.from_numpy(sample.labels)
    one, three = probes._votes(x[:1], nowhere, x, fold, y, 2, [1, 3])
    assert one.tolist() == [[1.0, 0.0]]
    weights = [1.0, math.exp(-0.5 / 0.07), math.exp(-1 / 0.07)]
    assert three[0, 1] == pytest.approx(weights[1] / sum(weights), rel=1e-5)
    (others,) = probes._votes(x[:1], fold[:1], x, fold, y, 2, [1])
    assert others.tolist() == [[0.0, 1.0]]  # its own fold is not asked


def test_neighbours_are_those_of_scikit_learn() -> None:
    sample = a_sample(3)
    probe = probes.knn(sample)
    k = probe.settings["k"]
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = reference.fit(sample.features, sample.labels).predict_proba(a_sample(3, seed=1).features)
    found = probe.answer(a_sample(3, seed=1).features)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)


def test_never_more_neighbours_than_the_smallest_fold_leaves() -> None:
    sample = placed([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0.2], [0, 2]], [0, 0, 1, 1, 0, 1])
    assert set(probes.knn(sample).settings["cv"]) <= {"1", "3"}


# --- few images a class ---


def test_draws_of_few_images_are_nested_seeded_and_of_every_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 40, 3])
    two, eight = (set(probes.few(labels, k, seed=0, number=4).tolist()) for k in (2, 8))
    assert two < eight
    assert np.bincount(labels[sorted(eight)]).tolist() == [8, 8, 3]
    assert eight != set(probes.few(labels, 8, seed=0, number=5).tolist())
    assert eight != set(probes.few(labels, 8, seed=1, number=4).tolist())


def test_the_nearest_mean_by_hand() -> None:
    """Centre (0, 0); means (-1, 0) and (1, 0). Of (0, 5) both are as far away, of (3, 0) the second is the nearer."""
    x: Features = np.array([[-2, 0], [2, 0]], np.float32)
    y: Labels = np.array([0, 1])
    found = probes.nearest_mean(x, y, np.array([[0, 5], [3, 0], [-1, 0]], np.float32), 2)
    np.testing.assert_allclose(found, [0, 4, -4], atol=1e-6)


def test_a_few_shot_curve_rises_and_says_where_classes_are_short() -> None:
    sample = a_sample(3, n=303)
    curve, notes = probes.few_shot(sample, sample.features, sample.labels, shots=(1, 64), draws=3)
    assert [(row["k"], row["n_train"], len(row["scores"])) for row in curve] == [(1, 3, 3), (64, 192, 3)]
    assert curve[1]["mean"] > curve[0]["mean"]
    assert curve[0]["std"] == pytest.approx(np.std(curve[0]["scores"], ddof=1))
    assert notes == ()
    short = TrainingSet(sample.features[:5], sample.labels[:5], sample.groups[:5], 3, "accuracy")
    curve, notes = probes.few_shot(short, sample.features, sample.labels, shots=(1, 2, 4), draws=2)
    assert [row["k"] for row in curve] == [1, 2]
    assert notes == ("1 of 3 classes has fewer than 2 training images (the smallest 1): all of theirs are used",)


# --- an epoch ---


@given(st.integers(2, 200), st.integers(0, 2**40), st.integers(0, 1000))
def test_an_epoch_has_every_image_once_and_its_parts_do_not_depend_on_each_other(
    size: int, seed: int, number: int
) -> None:
    whole = sampling.epoch(size, seed, number)
    assert sorted(whole.row.tolist()) == list(range(size))
    cut = size // 2
    parts = [sampling.epoch(size, seed, number, where) for where in (slice(0, cut), slice(cut, None))]
    for name in ("task", "row", "place", "flips"):
        assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


def test_the_epochs_are_frozen() -> None:
    """A change here changes every fine-tuning: raise the version and say so."""
    drawn = sampling.epoch(10, 7, 3)
    assert drawn.row.tolist() == FROZEN_ORDER
    assert sampling.digest(drawn, [str(i) for i in range(10)])[:16] == FROZEN_EPOCH


def test_first_places_and_flips_of_epochs_are_uniform() -> None:
    drawn = [sampling.epoch(5, 0, number) for number in range(4000)]
    counts = np.bincount([d.row[0] for d in drawn], minlength=5)
    assert ((counts - 800) ** 2 / 800).sum() < 18.5  # chi-square of 4 degrees of freedom at 0.001
    assert np.mean([d.flips.mean() for d in drawn]) == pytest.approx(0.5, abs=0.01)
    assert np.mean([d.place.mean() for d in drawn]) == pytest.approx(2**31, rel=0.02)


# --- calibration ---


def test_the_calibration_error_by_hand() -> None:
    """Two bins. Confidences 0.9 (right) and 0.8 (wrong): 1/2 against 0.85. 0.5 (right, in the lower bin): 1 - 0.5."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5]])
    error = metrics.calibration_error(np.array([0, 1, 0]), probabilities, bins=2)
    assert error == pytest.approx((2 * abs(0.5 - 0.85) + 1 * abs(1 - 0.5)) / 3)


def test_a_sure_and_right_classifier_has_no_calibration_error() -> None:
    assert metrics.calibration_error(np.array([0, 1, 2]), np.eye(3)) == 0


# --- intervals ---


def random_case(classes: int, n: int = 60, seed: int = 0) -> tuple[Labels, metrics.Values, list[str]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    values = rng.normal(size=(n, classes)).round(1) + np.eye(classes)[labels]
    return labels, values[:, 1] if classes == 2 else values, [f"p{i % 9}" for i in range(n)]


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_under_weights_are_those_of_samples_repeated_as_often(classes: int) -> None:
    labels, decisions, groups = random_case(classes)
    _, group = np.unique(groups, return_inverse=True)
    weights = np.random.default_rng(1).integers(0, 3, size=(20, 9)).astype(float)
    weights[0] = 1
    found = dict(bootstrap.weighted_scores(labels, decisions, group, weights, classes))
    for row, values in enumerate(weights):
        times = values[group].astype(int)
        repeated, same = np.repeat(labels, times), np.repeat(decisions, times, axis=0)
        expected = dict(metrics.all_scores(repeated, same, classes))
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, nan_ok=True), (row, name)


def test_an_interval_by_hand() -> None:
    """Two groups of two images, one all right, one all wrong: accuracies 0, 1/2 and 1 with chances 1/4, 1/2, 1/4."""
    labels, decisions = np.array([0, 1, 0, 1]), np.array([-1.0, 1.0, 1.0, -1.0])
    found = bootstrap.intervals(labels, decisions, ["a", "a", "b", "b"], 2)
    assert found["accuracy"] == (0.0, 1.0)
    group, weights = np.array([0, 0, 1, 1]), np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    (name, values), *_ = bootstrap.weighted_scores(labels, decisions, group, weights, 2)
    assert name == "accuracy"
    assert values.tolist() == [1.0, 0.5, 0.0]


def test_groups_that_agree_make_wider_intervals_than_images() -> None:
    labels = np.arange(400) % 2
    right = np.repeat(np.arange(20) % 4 != 0, 20)
    decisions = np.where(right, 1.0, -1.0) * np.where(labels == 1, 1, -1)
    by_group = bootstrap.intervals(labels, decisions, [f"{i // 20}" for i in range(400)], 2)["accuracy"]
    by_image = bootstrap.intervals(labels, decisions, [f"{i}" for i in range(400)], 2)["accuracy"]
    assert by_group[0] < by_image[0] < 0.75 < by_image[1] < by_group[1]
    deviation = math.sqrt(0.75 * 0.25 / 400)
    assert by_image == pytest.approx((0.75 - 1.96 * deviation, 0.75 + 1.96 * deviation), abs=0.006)


def test_a_single_group_has_no_interval_and_the_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, decisions, groups = random_case(3)
    assert bootstrap.intervals(labels, decisions, ["one"] * 60, 3) == {}
    whole = bootstrap.intervals(labels, decisions, groups, 3)
    monkeypatch.setattr(bootstrap, "CELLS_AT_ONCE", 700)
    assert bootstrap.intervals(labels, decisions, groups, 3) == whole
    assert whole == bootstrap.intervals(labels, decisions, groups, 3)
    assert set(whole) == {name for name, _ in metrics.all_scores(labels, decisions, 3)}


@pytest.mark.parametrize("scale", [1e-30, 1e25])
@pytest.mark.parametrize("probe", [probes.knn, probes.logistic])
def test_the_size_of_the_features_does_not_matter(probe: Callable[[TrainingSet], Probe], scale: float) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = (rng.normal(size=(40, 4)) + 2 * y[:, None]).astype(np.float32)
    groups = [str(i) for i in range(40)]
    plain, scaled = (probe(TrainingSet(v, y, groups, 2, "accuracy", "cpu")) for v in (x, x * np.float32(scale)))
    assert scaled.score == plain.score > 0.8
    assert np.allclose(scaled.answer(x * np.float32(scale)).decisions, plain.answer(x).decisions, atol=1e-4)


def test_a_note_on_the_folds_names_what_they_choose() -> None:
    sample = dataclasses.replace(a_sample(2, n=40), groups=["one"] * 40)
    for probe, choice in ((probes.knn, "k"), (probes.logistic, "C")):
        notes = probe(sample).notes
        assert (
            f"all training samples share one group: folds are by image, and scores of {choice} are optimistic" in notes
        )
