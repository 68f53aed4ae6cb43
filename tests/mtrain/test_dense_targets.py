"""Masks and points in batches: read, cropped, resized, mirrored and turned with their images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpconvert.card import DenseCard
from mtrain.config import FitConfig
from mtrain.data.batches import colour
from mtrain.data.batches.augment import CENTRE, flip, put_mask, square_points
from mtrain.data.batches.image_batches import OrderedBatches, TrainingBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches
from mtrain.data.dense_sample import IGNORE
from mtrain.data.pool import Pool, open_pool, training_on
from mtrain.data.sampling import Stream
from mtrain.data.targets import MasksAndPoints, turned
from mtrain.data.task import open_task
from mtrain.errors import ShardError
from mtrain.model.heads import about
from mtrain.runs.seen import Seen
from mtrain.train.reporting.remarks import remarks
from tests.mtrain.dense_pools import draw_sample, write_dense_task, write_mixed_pool
from tests.mtrain.pools import write_task

SIZE = 20


def parts(folder: Path) -> list:
    return [(task, task.rows["train"]) for task in open_pool(folder).tasks]


def test_cards_say_what_masks_and_points_a_task_has(tmp_path: Path) -> None:
    dense = open_task(write_dense_task(tmp_path / "Both")).dense
    assert dense is not None
    assert (dense.seg, dense.points, dense.radius_px, dense.metrics) == (
        ("other", "disc"),
        ("disc",),
        5.0,
        ("dice", "f1"),
    )
    assert open_task(write_task(tmp_path / "Plain")).dense is None


@pytest.mark.parametrize(
    ("given", "what", "remedy"),
    [
        (None, "neither masks nor points", "convert its source with --dense"),
        ({"boxes": {"classes": ["disc"], "exhaustive": True}}, "not used: boxes", "takes the labels of boxes"),
        (
            {"points": {"classes": ["disc"], "radius_um": 2.5, "radius_px": 5, "exhaustive": False}},
            "not used: points, which are not exhaustive",
            "exhaustive = true",
        ),
    ],
)
def test_a_task_without_usable_targets_says_why(tmp_path: Path, given: Any, what: str, remedy: str) -> None:
    task = open_task(write_task(tmp_path / "Plain"))
    dense = None if given is None else DenseCard.model_validate(given)
    why = replace(task, card=task.card.model_copy(update={"dense": dense})).why_not_dense
    assert why is not None
    assert (what in why[0], remedy in why[1]) == (True, True)


@pytest.mark.parametrize("exhaustive", [True, False])
def test_instances_are_never_trained_on_and_boxes_and_incomplete_points_never_used(
    tmp_path: Path, exhaustive: bool
) -> None:
    task = open_task(write_dense_task(tmp_path / "Both", kinds=("seg", "points", "instances")))
    given = task.card.dense
    assert given is not None
    assert given.points is not None
    assert given.instances is not None
    points, instances = (part.model_copy(update={"exhaustive": exhaustive}) for part in (given.points, given.instances))
    dense = given.model_copy(update={"points": points, "instances": instances})
    task = replace(task, card=task.card.model_copy(update={"dense": dense}))
    some = [] if exhaustive else ["points, which are not exhaustive"]
    assert task.untrained == [*some, "instances, which only scores read"]
    assert task.unused == (some and [*some, "instances, which are not exhaustive"])
    said = remarks(FitConfig(dense=True), Pool((task,), ""), Seen(), [])
    (note,) = [line for line in said if "not trained" in line]
    assert note == f"Both: not trained on: {' and '.join(task.untrained)}"


def test_masks_are_those_of_the_pixels_they_are_drawn_at() -> None:
    mask = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4)
    found = np.empty((4, 4), np.uint8)
    put_mask(mask, CENTRE, found)
    assert found.tolist() == mask[1:5].tolist()  # the middle of the longer side
    put_mask(mask, 0, half := np.empty((2, 2), np.uint8))
    assert half.tolist() == [[5, 7], [13, 15]]  # the pixel that holds the centre of each 2 x 2
    put_mask(mask, (1 << 32) - 1, double := np.empty((8, 8), np.uint8))
    assert double.tolist() == np.kron(mask[2:], np.ones((2, 2), np.uint8)).tolist()


def test_points_move_with_the_square_and_those_outside_it_are_left_out() -> None:
    points = np.array([[1.0, 1.5, 0], [3.0, 2.0, 1], [3.5, 5.99, 0]])
    moved, scale = square_points(points, (6, 4), 8, (1 << 32) - 1)  # rows 2 to 5, each pixel twice as large
    assert scale == 2
    assert moved.tolist() == [[6.0, 0.0, 1], [7.0, 7.98, 0]]


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("quarter", [False, True])
def test_image_mask_and_points_are_mirrored_and_turned_alike(horizontal: bool, vertical: bool, quarter: bool) -> None:
    size, (x, y) = 8, (5, 2)
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    image[0, :, y, x] = 1
    flips, turn = torch.tensor([[horizontal, vertical]]), torch.tensor([quarter])
    there = colour.quarter_turn(flip(image, flips), turn)
    masks, points = turned(image[:, 0], torch.tensor([[[x + 0.5, y + 0.5, 0.0]]]), flips, turn)
    assert torch.equal(masks, there[:, 0])
    row, column = (int(part) for part in masks[0].nonzero()[0])
    assert points[0, 0].tolist() == [column + 0.5, row + 0.5, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_the_targets_of_their_images(workers: int, tmp_path: Path) -> None:
    found = parts(write_mixed_pool(tmp_path))
    images, targets = Images(found), MasksAndPoints(found)
    drawn = TrainingBatches(images, SIZE, 3, range(12), Stream.TRAIN, targets=targets)
    for number, batch in enumerate(batches(drawn, range(4), workers=workers)):
        index = [i for i in drawn.drawn(number).index.tolist() if targets.has(i)]
        assert len(batch.masks) == len(batch.points) == len(batch.radii) == len(index)
        assert len(batch.labels) == 12
        for entry, i in enumerate(index):
            is_points = found[int(images.task_of(i))][0].name == "Points"
            assert bool((batch.masks[entry] == IGNORE).all()) == is_points
            assert float(batch.radii[entry]) == (5 * SIZE / 40 if is_points else 0)


def test_bright_discs_lie_where_mask_and_points_say(tmp_path: Path) -> None:
    task = open_task(write_dense_task(tmp_path / "Both"))
    rows = [(task, task.rows["train"])]
    drawn = TrainingBatches(Images(rows), 40, 1, range(8), Stream.TRAIN, targets=MasksAndPoints(rows))
    (batch,) = batches(drawn, range(1), workers=0)
    masks, points = turned(batch.masks, batch.points, batch.flips)
    red = batch.images(40)[:, 0]
    assert float(red[masks == 1].float().mean()) > 150
    assert float(red[masks == 0].float().mean()) < 70
    there = points[points[..., 2] >= 0]
    assert len(there) > 3
    for image, of_image in zip(red, points, strict=True):
        for x, y, kind in of_image.tolist():
            assert kind < 0 or int(image[int(y), int(x)]) > 110


def test_batches_without_targets_cost_nothing_and_hold_the_same_images(tmp_path: Path) -> None:
    found = parts(write_mixed_pool(tmp_path))
    plain, dense = (
        next(iter(batches(OrderedBatches(Images(found), SIZE, 50, targets=targets), range(1), workers=0)))
        for targets in (None, MasksAndPoints(found))
    )
    assert all(part.numel() == 0 for part in (plain.masks, plain.points, plain.radii))
    assert all(torch.equal(*pair) for pair in zip(plain[:6], dense[:6], strict=True))


def test_a_radius_in_micrometres_is_that_of_the_resolution_of_the_sample(tmp_path: Path) -> None:
    task = open_task(write_dense_task(tmp_path / "Points", kinds=("points",), radius_px=None))
    rows = [(task, task.rows["val"])]
    (batch,) = batches(OrderedBatches(Images(rows), 40, 8, targets=MasksAndPoints(rows)), range(1), workers=0)
    assert batch.radii.tolist() == [5.0] * 8  # 2.5 um of 0.5 um, stored 40 px wide


def test_sets_that_train_together_keep_their_targets(tmp_path: Path) -> None:
    pool = training_on(open_pool(write_mixed_pool(tmp_path)), ["train", "val"])
    (task,) = (task for task in pool.tasks if task.name == "Masks")
    rows = task.rows["train"]
    assert rows.seg_offset is not None
    assert len(rows.seg_offset) == len(rows) == 24


def test_sizes_are_read_past_the_masks(tmp_path: Path) -> None:
    assert about(open_task(write_dense_task(tmp_path / "Both"))).side == 40


def read_all(folder: Path) -> None:
    task = open_task(folder)
    rows = [(task, task.rows["train"])]
    list(batches(OrderedBatches(Images(rows), SIZE, 4, targets=MasksAndPoints(rows)), range(1), workers=0))


def refuse(folder: Path, change: dict[str, object], match: str) -> None:
    pixels, mask, points = draw_sample(np.random.default_rng(3))
    sample = {"pixels": pixels, "mask": mask, "points": points} | change
    write_dense_task(folder, samples={"train": [tuple(sample.values())] * 4})  # type: ignore[list-item]
    with pytest.raises(ShardError, match=match):
        read_all(folder)


def test_targets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path / "A", {"mask": np.full((48, 40), 2, np.uint8)}, r"holds 2, but the task has classes 0\.\.1")
    refuse(tmp_path / "B", {"mask": np.zeros((40, 40), np.uint8)}, "its mask is 40x40 px, its image 40x48")
    refuse(tmp_path / "C", {"points": [[3, 4, 1]]}, r"not x, y and a class in 0\.\.0")
    refuse(tmp_path / "D", {"points": [[3, float("nan"), 0]]}, "not x, y and a class")


def test_a_changed_mask_is_found(tmp_path: Path) -> None:
    folder = write_dense_task(tmp_path / "Masks", kinds=("seg",))
    task = open_task(folder)
    rows = task.rows["train"]
    assert rows.seg_offset is not None
    with (folder / "train-000000.tar").open("r+b") as file:
        file.seek(int(rows.seg_offset[0]) + 45)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ShardError, match="cannot read the mask or points of masks-train-00000: its mask has changed"):
        read_all(folder)


def test_settings_do_not_know_targets_unless_requested() -> None:
    assert "dense" not in FitConfig().determining()
