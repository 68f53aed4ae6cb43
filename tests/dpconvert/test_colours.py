"""What colours alone reveal: histograms by hand, scores beside scikit-learn, and classes that differ in hue or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from dpconvert.tasks.gallery import colours
from tests.dpconvert.conftest import Answer
from tests.dpconvert.test_audit import Given, png, task

Call = Callable[..., Answer]
Pixels = NDArray[np.uint8]


def patch(hue: int, rng: np.random.Generator) -> Pixels:
    """Noise around one of two colours."""
    return np.clip(rng.normal((200, 120, 160) if hue else (120, 120, 200), 30, (24, 24, 3)), 0, 255).astype(np.uint8)


def test_a_histogram_counts_pixels_in_cells_of_32_grey_levels() -> None:
    """Three of four pixels in the cell (7, 0, 0), number 448; one in (0, 1, 2), number 10. Roots of the shares."""
    pixels = np.array([[[255, 0, 31], [224, 31, 0]], [[230, 3, 5], [31, 32, 64]]], np.uint8)
    found = colours.histogram(pixels)
    assert {int(i): float(found[i]) for i in np.flatnonzero(found)} == pytest.approx({448: 0.75**0.5, 10: 0.5})


def reader(images: list[Pixels]) -> colours.Reader:
    def read(rows: list[int]) -> Iterator[tuple[int, Pixels]]:
        return ((row, images[row]) for row in rows)

    return read


@pytest.mark.parametrize(("metric", "classes"), [("roc_auc", 2), ("accuracy", 3)])
def test_the_scores_are_those_of_scikit_learn(metric: str, classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % classes
    images = [np.clip(rng.normal(100 + 12 * label, 40, (8, 8, 3)), 0, 255).astype(np.uint8) for label in labels]
    train, val = list(range(60)), list(range(60, 90))
    found = colours.baseline(metric, classes, (train, labels[train]), (val, labels[val]), reader(images))
    assert found is not None
    x = np.stack([colours.histogram(image) for image in images])
    machine = KNeighborsClassifier(10, metric="cosine", weights=lambda distances: 1 - distances)
    p = machine.fit(x[train], labels[train]).predict_proba(x[val])
    expected = roc_auc_score(labels[val], p[:, 1]) if metric == "roc_auc" else (p.argmax(1) == labels[val]).mean()
    assert found.score == pytest.approx(expected, abs=0.04)
    assert 0.5 < found.score < 1
    assert found.chance == pytest.approx(0.5 if metric == "roc_auc" else 1 / 3, abs=0.01)


def test_nothing_is_scored_without_two_classes_or_a_validation_set() -> None:
    images = [patch(0, np.random.default_rng(0))] * 4
    zeros, both = np.zeros(2, np.int64), np.array([0, 1])
    assert colours.baseline("accuracy", 2, ([0, 1], zeros), ([2, 3], both), reader(images)) is None
    assert colours.baseline("roc_auc", 2, ([0, 1], both), ([2, 3], zeros), reader(images)) is None
    assert colours.baseline("accuracy", 2, ([0, 1], both), ([], zeros[:0]), reader(images)) is None


@pytest.mark.parametrize(("differ", "low", "high"), [(True, 0.99, 1.0), (False, 0.2, 0.8)])
def test_the_preview_shows_a_shortcut_and_reads_no_test_image(
    dpconvert: Call, tmp_path: Path, differ: bool, low: float, high: float
) -> None:
    rng = np.random.default_rng(3)
    given: list[Given] = [
        (split, png(patch(number % 2 if differ else 0, rng)), number % 2, f"g{number}")
        for number, split in enumerate(["train"] * 40 + ["val"] * 40)
    ]
    given.append(("test", png(patch(0, rng))[:60], 0, "g99"))  # cut off: it could not be decoded
    task(tmp_path / "shards" / "Toy", given)
    page = tmp_path / "preview.html"
    answer = dpconvert("preview", tmp_path / "shards", "--out", page, "--json")
    (found,) = json.loads(answer.out)["tasks"]
    assert low <= found["colours"]["score"] <= high
    assert (found["colours"]["train"], found["colours"]["val"]) == (40, 40)
    assert f"{found['colours']['score']:.2f} area under the ROC curve on 40 validation images" in page.read_text()
