"""Scores of masks and points: worked out by hand, and as other programs have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from mtrain.data.rows import DenseTargets
from mtrain.scoring.dense import confusion, dense_scores, matched
from mtrain.scoring.peaks import counted, found_points
from tests.mtrain.dense_networks import dense_training
from tests.mtrain.dense_pools import write_mixed_pool

SEG = ("other", "disc")


def test_dice_and_iou_are_those_worked_out_by_hand() -> None:
    """Of five annotated pixels: class 0 right twice, once taken for 1; class 1 right once, once taken for 0.

    Dice: 4 / 6 and 2 / 4; intersection over union: 2 / 4 and 1 / 3.
    """
    truth = np.array([[0, 0, 0], [1, 1, 255]], np.uint8)
    found = np.array([[0, 0, 1], [1, 0, 1]], np.uint8)
    table = confusion(truth, found, 2)
    assert table.tolist() == [[2, 1], [1, 1]]
    scores, intervals, numbers = dense_scores(["a"], table[None], None, SEG, ())
    assert scores == pytest.approx(
        {
            "dice": (2 / 3 + 1 / 2) / 2,
            "iou": (1 / 2 + 1 / 3) / 2,
            "dice_other": 2 / 3,
            "dice_disc": 1 / 2,
            "iou_other": 1 / 2,
            "iou_disc": 1 / 3,
        }
    )
    assert (intervals, numbers) == ({}, {})  # one group, and no points


def test_dice_and_iou_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, found = (rng.integers(3, size=(4, 30, 20)).astype(np.uint8) for _ in range(2))
    truth[rng.random(truth.shape) < 0.2] = 255
    tables = np.stack([confusion(*pair, 3) for pair in zip(truth, found, strict=True)])
    scores, _, _ = dense_scores(list("abcd"), tables, None, ("x", "y", "z"), ())
    known = truth != 255
    assert scores["dice"] == pytest.approx(f1_score(truth[known], found[known], average="macro"))
    assert scores["iou"] == pytest.approx(jaccard_score(truth[known], found[known], average="macro"))


def test_dice_and_iou_are_those_of_torchmetrics() -> None:
    """Of three classes that all occur, of a fourth that is only predicted, and of a fifth that is in neither."""
    theirs = pytest.importorskip("torchmetrics.classification", reason="torchmetrics is not installed")
    rng = np.random.default_rng(1)
    truth, found = (rng.integers(classes, size=(4, 30, 20)).astype(np.uint8) for classes in (3, 4))
    truth[rng.random(truth.shape) < 0.2] = 255
    tables = np.stack([confusion(*pair, 5) for pair in zip(truth, found, strict=True)])
    scores, _, _ = dense_scores(list("abcd"), tables, None, tuple("vwxyz"), ())
    pairs = [torch.from_numpy(masks.astype(np.int64)) for masks in (found, truth)]
    for score, metric in (("dice", theirs.MulticlassF1Score), ("iou", theirs.MulticlassJaccardIndex)):
        assert scores[score] == pytest.approx(float(metric(5, average="macro", ignore_index=255)(*pairs)), rel=1e-5)
        of_classes = metric(5, average="none", ignore_index=255)(*pairs)
        assert [scores[f"{score}_{name}"] for name in "vwxy"] == pytest.approx(of_classes[:4].tolist(), rel=1e-5)
        assert scores[f"{score}_y"] == 0
        assert np.isnan(scores[f"{score}_z"])  # theirs gives 0 here


def test_the_surest_find_takes_the_nearest_object_that_is_free() -> None:
    truth = np.array([[0.0, 0.0], [10.0, 0.0]])
    found = np.array([[4.0, 0.0], [5.5, 0.0], [0.0, 1.0], [30.0, 0.0]])
    # surest first: (5.5, 0) takes (10, 0); (4, 0) takes (0, 0); then (0, 1) finds none free, and (30, 0) none near
    assert matched(truth, found, np.array([0.8, 0.9, 0.5, 0.4]), 5) == (2, 2, 0)
    # (0, 1) first takes (0, 0): (4, 0) is 6 from the other object, which (5.5, 0) takes
    assert matched(truth, found, np.array([0.8, 0.5, 0.9, 0.4]), 5) == (2, 2, 0)
    assert matched(truth, found[:1], np.array([0.8]), 3.9) == (0, 1, 2)
    assert matched(truth, found[:1], np.array([0.8]), 4) == (1, 0, 1)  # the radius itself is within it
    nothing = np.zeros((0, 2))
    assert matched(nothing, found, np.ones(4), 5) == (0, 4, 0)
    assert matched(truth, nothing, np.ones(0), 5) == (0, 0, 2)


def test_f1_and_numbers_are_those_worked_out_by_hand() -> None:
    points = np.array([[[3, 1, 0], [0, 0, 0]], [[1, 0, 2], [0, 1, 0]]])  # two samples, two classes
    scores, _, numbers = dense_scores(["a", "b"], None, points, (), ("mitosis", "other"))
    assert scores["f1"] == pytest.approx(8 / (8 + 2 + 2))
    assert scores["f1_mitosis"] == pytest.approx(8 / 11)
    assert scores["f1_other"] == 0
    assert numbers == {"mitosis": {"objects": 6, "found": 5}, "other": {"objects": 0, "found": 1}}


def test_intervals_are_of_whole_groups() -> None:
    """Two groups of two samples, one all right and one all wrong: draws hold none, one or both."""
    right, wrong = np.array([[10, 0], [0, 10]]), np.array([[0, 10], [10, 0]])
    tables = np.stack([right, right, wrong, wrong])
    scores, intervals, _ = dense_scores(list("aabb"), tables, None, SEG, ())
    assert scores["dice"] == 0.5
    assert intervals["dice"] == (0, 1)
    same, within, _ = dense_scores(list("abab"), tables, None, SEG, ())
    assert (same["dice"], within["dice"]) == (0.5, (0.5, 0.5))


def test_peaks_are_found_where_they_are() -> None:
    logits = torch.full((1, 8, 8), -5.0)
    logits[0, 2, 3], logits[0, 2, 4], logits[0, 6, 6], logits[0, 0, 7] = 3.0, 2.0, 1.0, -1.0
    (found,) = found_points(logits, 32, radius=4.0)
    assert found.places.tolist() == [[14.0, 10.0], [26.0, 26.0]]  # places of 4 pixels, the surer one first
    logits[0, 2, 5] = 2.5  # 8 pixels from the first: within a radius of 8 it is of the same disc
    assert [len(found_points(logits, 32, radius=radius)[0].places) for radius in (7.9, 8)] == [3, 2]


def test_answers_without_a_fault_score_one() -> None:
    dense = DenseTargets(seg=SEG, points=("disc",))
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    masks[0, 4:8, 8:12], masks[0, 0] = 1, 255
    seg = torch.stack([masks == 0, masks == 1], dim=1).float()
    discs = torch.full((1, 1, 4, 4), -9.0)
    discs[0, 0, 1, 2] = 9
    tables, hits = counted(seg, discs, dense, masks, torch.tensor([[[10.0, 6.0, 0], [0, 0, -1]]]), torch.tensor([2.0]))
    scores, _, numbers = dense_scores(["a"], tables, hits, SEG, ("disc",))
    assert (scores["dice"], scores["iou"], scores["f1"]) == (1, 1, 1)
    assert numbers == {"disc": {"objects": 1, "found": 1}}


def test_a_training_learns_to_find_discs(tmp_path: Path) -> None:
    ours = dense_training(
        write_mixed_pool(tmp_path),
        iterations=80,
        warmup=0,
        size=32,
        batch=16,
        optimizer="adamw",
        lr=3e-3,
        tau=1.0,
        train_on="train",
        loss_scale="auto",
    )
    ours.model.float()
    before = ours.validate_dense()
    ours.model.double()
    for parts in ours.iterations(range(80)):
        ours.step(*parts)
    ours.model.float()
    after = ours.validate_dense()
    assert before is not None
    assert after is not None
    assert after["Masks"]["dice"] > 0.85
    assert after["Points"]["f1"] > 0.6
    assert before["Masks"]["dice"] < 0.6
    assert ours.validate_dense(enough=lambda: True) is None
