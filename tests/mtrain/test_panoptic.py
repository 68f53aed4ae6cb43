"""Panoptic quality and AJI: cases worked out by hand, agreement with torchmetrics, and a transfer with instances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from mtrain.data.batches.batch import Batch
from mtrain.data.instances import instances_of
from mtrain.data.task import open_task
from mtrain.errors import ShardError
from mtrain.scoring.dense_counts import DenseAnswers, read_counts, write_counts
from mtrain.scoring.panoptic import matches, panoptic_scores
from mtrain.transfers.dense.dense_frozen import FrozenDense
from tests.mtrain.dense_pools import Sample, write_dense_task
from tests.mtrain.test_dense_tuning import network

Case = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]


def row(*values: int) -> NDArray[np.int32]:
    return np.array([values], np.int32)


def scores(sums: NDArray[np.float64], classes: tuple[str, ...]) -> dict[str, float]:
    return {name: float(values[0]) for name, values in panoptic_scores(sums[None], classes)}


def test_a_match_needs_more_than_half_of_the_union() -> None:
    """Areas of four pixels: of one, three and another are found (3 / 5); of the other, two alone (2 / 4)."""
    truth = row(0, 1, 1, 1, 1, 0, 0, 2, 2, 2, 2)
    found = row(1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0).astype(np.uint8)
    mask = (truth > 0).astype(np.uint8)
    counts = matches(truth, np.array([0, 0]), mask, found, (1,))
    assert counts.tolist() == [[pytest.approx(0.6), 1, 1, 1, 3 + 2, 5 + 4]]
    of_class = {"pq": 0.3, "dq": 0.5, "sq": 0.6, "aji": 5 / 9}
    assert scores(counts, ("n",)) == pytest.approx(of_class | {f"{name}_n": one for name, one in of_class.items()})


def test_objects_that_touch_in_the_prediction_are_one() -> None:
    """Two true objects of two pixels; their joint area has IoU 2 / 4 with each, which is not more than half."""
    truth = row(0, 1, 1, 2, 2, 0)
    mask = (truth > 0).astype(np.uint8)
    assert matches(truth, np.array([0, 0]), mask, mask, (1,)).tolist() == [[0, 0, 1, 2, 2 + 2, 4 + 4]]


def test_pixels_that_touch_at_a_corner_are_connected() -> None:
    truth = np.array([[1, 0], [0, 1]], np.int32)
    assert matches(truth, np.array([0]), truth.astype(np.uint8), truth.astype(np.uint8), (1,)).tolist() == [
        [1, 1, 0, 0, 2, 2]
    ]


def test_classes_are_matched_apart() -> None:
    """An object found as the other class is missed in its own and false in the other."""
    truth = row(1, 1, 0, 2, 2)
    found = row(1, 1, 0, 1, 1).astype(np.uint8)
    counts = matches(truth, np.array([0, 1]), row(1, 1, 0, 2, 2).astype(np.uint8), found, (1, 2))
    assert counts.tolist() == [[1, 1, 1, 0, 2, 2 + 2], [0, 0, 0, 1, 0, 2]]
    assert scores(counts, ("a", "b"))["pq"] == pytest.approx((1 / 1.5 + 0) / 2)
    assert np.isnan(scores(counts, ("a", "b"))["sq_b"])
    assert np.isnan(scores(np.zeros((1, 6)), ("a",))["pq"])
    assert np.isnan(scores(np.zeros((1, 6)), ("a",))["aji"])


def test_what_is_not_annotated_is_neither_area_nor_false() -> None:
    """255 from the fifth pixel on: a find with two of its three pixels there is none; one with half of them is."""
    mask = row(1, 1, 0, 0, 255, 255, 255, 255).astype(np.uint8)
    truth = row(1, 1, 0, 0, 0, 0, 0, 0)
    assert matches(truth, np.array([0]), mask, row(1, 1, 0, 1, 1, 1, 0, 1).astype(np.uint8), (1,)).tolist() == [
        [1, 1, 0, 0, 2, 2]
    ]
    assert matches(truth, np.array([0]), mask, row(1, 1, 0, 1, 1, 0, 0, 1).astype(np.uint8), (1,)).tolist() == [
        [1, 1, 1, 0, 2, 2 + 1]
    ]


def drawn(number: int) -> Case:
    """Instances of 48 x 48 with ellipses of two classes, an unknown border, and a moved copy as the prediction."""
    rng = np.random.Generator(np.random.Philox(number))
    rows, columns = np.mgrid[:48, :48]
    truth, mask, classes = np.zeros((48, 48), np.int32), np.zeros((48, 48), np.uint8), []
    found = np.zeros((48, 48), np.uint8)
    for _ in range(int(rng.integers(4, 9))):
        y, x, a, b = rng.integers(3, 45, 2).tolist() + rng.integers(3, 8, 2).tolist()
        label = int(rng.integers(2))
        inside = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1
        classes.append(label)
        truth[inside], mask[inside] = len(classes), label + 1
        dy, dx = rng.integers(-2, 3, 2).tolist()
        moved = ((rows - y - dy) / a) ** 2 + ((columns - x - dx) / (b - 1)) ** 2 <= 1
        if rng.random() < 0.8:
            found[moved] = label + 1 if rng.random() < 0.9 else 2 - label
    mask[columns < 9 if number % 2 else rows > 40] = 255
    return truth, np.array(classes, np.int64), mask, found


def test_scores_are_those_of_torchmetrics() -> None:
    """torchmetrics 1.x, PanopticQuality(things={1, 2}, stuffs={0}, return_sq_and_rq=True, return_per_class=True), on
    these images at once; its instances are those of skimage.measure.label(connectivity=2), its void is 255.
    """
    sums = sum(matches(*drawn(number), (1, 2)) for number in range(8))
    assert isinstance(sums, np.ndarray)
    assert sums[:, 1:4].tolist() == [[10, 4, 16], [5, 7, 19]]
    assert sums[:, 0] == pytest.approx([6.4330, 3.4486], abs=5e-5)
    found = scores(sums, ("a", "b"))
    assert [found[f"{score}_{name}"] for name in "ab" for score in ("pq", "sq", "dq")] == pytest.approx(
        [0.3217, 0.6433, 0.5000, 0.1916, 0.6897, 0.2778], abs=5e-5
    )


@pytest.mark.parametrize("number", range(12, 18))
def test_matches_are_those_of_torchmetrics(number: int) -> None:
    detection = pytest.importorskip("torchmetrics.detection", reason="torchmetrics is not installed")
    truth, classes, mask, found = drawn(number)
    areas = np.zeros_like(truth)
    for value in (1, 2):
        areas += ndimage.label(found == value, np.ones((3, 3)))[0]
    theirs = detection.PanopticQuality(things={1, 2}, stuffs={0})  # 255 is neither: void
    pair = (np.stack([masks, objects], axis=-1)[None] for masks, objects in ((found, areas), (mask, truth)))
    theirs.update(*(torch.from_numpy(masks.astype(np.int64)) for masks in pair))
    sums = [theirs.iou_sum, theirs.true_positives, theirs.false_positives, theirs.false_negatives]
    rows = [theirs.cat_id_to_continuous_id[value] for value in (1, 2)]
    expected = torch.stack([values.double() for values in sums], dim=1)[rows]
    assert matches(truth, classes, mask, found, (1, 2))[:, :4] == pytest.approx(expected.numpy())


Pixels = set[tuple[int, int]]


def jaccard_by_the_paper(objects: list[Pixels], finds: list[Pixels], void: Pixels) -> tuple[int, int]:
    """C and U of algorithm 1 of Kumar et al., over sets of pixels without void ones."""
    shared, union, used = 0, 0, set()
    for one in objects:
        overlaps = [len(one & other) / len(one | (other - void)) for other in finds]
        if max(overlaps, default=0) == 0:
            union += len(one)
            continue
        best = overlaps.index(max(overlaps))
        shared, union = shared + len(one & finds[best]), union + len(one | (finds[best] - void))
        used.add(best)
    unused = [other for number, other in enumerate(finds) if number not in used and 2 * len(other & void) <= len(other)]
    return shared, union + sum(len(other - void) for other in unused)


def by_the_paper(cases: list[Case], of: tuple[int, ...]) -> dict[str, float]:
    """PQ as section 4 of its paper words it, and AJI, over sets of pixels, without arrays: segments by scipy, matches
    of more than half of the union without void pixels, and predictions that lie mostly in void left out.
    """
    found: dict[str, list[float]] = {"pq": [], "dq": [], "sq": [], "aji": []}
    for number, value in enumerate(of):
        overlaps, false, missed, shared, union = [], 0, 0, 0, 0
        for truth, classes, mask, prediction in cases:
            void = set(zip(*np.nonzero(mask == 255), strict=True))
            objects = [
                {*zip(*np.nonzero(truth == one), strict=True)} - void
                for one in range(1, len(classes) + 1)
                if classes[one - 1] == number
            ]
            labelled, count = ndimage.label(prediction == value, structure=np.ones((3, 3)))
            finds = [{*zip(*np.nonzero(labelled == one), strict=True)} for one in range(1, count + 1)]
            objects = [one for one in objects if one]
            pairs = [
                (o, f, len(one & other) / len(one | (other - void)))
                for o, one in enumerate(objects)
                for f, other in enumerate(finds)
            ]
            hits = [pair for pair in pairs if pair[2] > 0.5]
            overlaps += [pair[2] for pair in hits]
            missed += len(objects) - len({o for o, _, _ in hits})
            hit = {f for _, f, _ in hits}
            false += sum(f not in hit and 2 * len(other & void) <= len(other) for f, other in enumerate(finds))
            one_of = jaccard_by_the_paper(objects, finds, void)
            shared, union = shared + one_of[0], union + one_of[1]
        if overlaps or false or missed:
            found["pq"].append(sum(overlaps) / (len(overlaps) + false / 2 + missed / 2))
            found["dq"].append(len(overlaps) / (len(overlaps) + false / 2 + missed / 2))
            found["aji"].append(shared / union)
        if overlaps:
            found["sq"].append(sum(overlaps) / len(overlaps))
    return {name: float(np.mean(of_class)) if of_class else float("nan") for name, of_class in found.items()}


def half() -> Case:
    """An object of two pixels of which one is found with none beside it (IoU 1 / 2), and an image without any."""
    truth = row(0, 1, 1, 0, 0)
    return truth, np.array([0]), (truth > 0).astype(np.uint8), row(0, 1, 0, 0, 0).astype(np.uint8)


def nothing(find: int = 0) -> Case:
    empty = np.zeros((6, 6), np.int32)
    prediction = np.zeros((6, 6), np.uint8)
    prediction[1:3, 1:3] = find
    return empty, np.zeros(0, np.int64), empty.astype(np.uint8), prediction


@pytest.mark.parametrize(
    "cases",
    [
        [drawn(number) for number in range(6)],
        [half()],
        [nothing()],
        [nothing(1)],
        [nothing(), nothing(2), half()],
        [(row(1, 1, 0), np.array([0]), row(255, 255, 255).astype(np.uint8), row(1, 1, 1).astype(np.uint8))],
        [drawn(9), nothing(), half()],
    ],
    ids=["drawn", "half", "empty", "false", "empty and absent", "void alone", "together"],
)
def test_scores_are_those_of_the_paper_s_words(cases: list[Case]) -> None:
    sums = np.sum([matches(*case, (1, 2)) for case in cases], axis=0)
    found = scores(sums, ("a", "b"))
    expected = by_the_paper(cases, (1, 2))
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def blocks(*spans: tuple[int, int]) -> Sample:
    """An image with blocks of ten rows between these columns, and their centres."""
    mask = np.zeros((32, 32), np.uint8)
    for left, right in spans:
        mask[10:20, left:right] = 1
    return np.full((32, 32, 3), 90, np.uint8), mask, [[(left + right) / 2, 15.0, 0] for left, right in spans]


def test_a_transfer_scores_the_instances_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the true masks as predictions, two blocks apart are found, and two that touch are one: TP 2, FP 1, FN 2."""
    both = [blocks((2, 8), (20, 30)), blocks((4, 14), (14, 24))] * 2
    folder = write_dense_task(tmp_path / "Apart", kinds=("seg", "instances"), samples={"train": both, "val": both})
    task = open_task(str(folder))
    assert task.dense is not None
    assert task.dense.instances == ("disc",)

    def perfect(self: FrozenDense, batch: Batch) -> tuple[torch.Tensor, None]:
        return torch.nn.functional.one_hot(batch.masks.long(), 2).permute(0, 3, 1, 2).float(), None

    monkeypatch.setattr(FrozenDense, "logits", perfect)
    answers = FrozenDense(network(), task.dense, 32, 0, "cpu").answers(task, task.rows["val"], 3, 0)
    found = answers.scored()
    assert found["scores"]["pq"] == found["scores"]["pq_disc"] == pytest.approx(2 / (2 + 0.5 + 1))
    assert found["scores"]["sq"] == 1
    # two blocks of 60 and 100 pixels found as they are; two of 100 within a find of 200, which both are paired with
    assert found["scores"]["aji"] == found["scores"]["aji_disc"] == pytest.approx((160 + 200) / (160 + 400))
    assert found["intervals"]["aji"] == pytest.approx((360 / 560, 360 / 560))
    assert found["intervals"]["pq"] == pytest.approx((2 / 3.5, 2 / 3.5))  # both groups are alike
    assert found["scores"]["dice"] == 1
    write_counts(tmp_path / "kept.npz", answers)
    again = read_counts(tmp_path / "kept.npz")
    assert isinstance(again, DenseAnswers)
    assert again.scored() == found
    assert again.same_samples(answers)
    drawn_again = again.drawn("pq")
    assert drawn_again is not None
    assert drawn_again == pytest.approx(np.full(1000, 2 / 3.5))


def test_counts_of_earlier_versions_have_no_aji() -> None:
    sums = matches(*drawn(6), (1, 2))
    now, before = scores(sums, ("a", "b")), scores(sums[:, :4], ("a", "b"))
    assert before == {name: score for name, score in now.items() if not name.startswith("aji")}


@pytest.mark.parametrize(
    ("instances", "said"),
    [(None, "its JSON has no 'instances'"), ([[0, 1, 7]], "not of a class in 0..0"), ([[5, 0]], "not pairs")],
)
def test_instances_that_do_not_fit_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instances: Any, said: str
) -> None:
    task = open_task(str(write_dense_task(tmp_path / "Apart", kinds=("seg", "instances"))))
    monkeypatch.setattr("mtrain.data.instances.read_json", lambda *_: edited(instances))
    with pytest.raises(ShardError, match=said):
        list(instances_of(task, task.rows["val"], 32))


def edited(instances: Any) -> dict[str, Any]:
    fields = {"stored_width": 40, "stored_height": 48}
    return fields if instances is None else json.loads(json.dumps(fields | {"instances": instances}))
