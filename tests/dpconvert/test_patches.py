"""The labelling rules, by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpconvert.annotations import LabelMask
from dpconvert.errors import ReadError
from dpconvert.image import Flat
from dpconvert.plan.grid import grid, holds, shifted
from dpconvert.source.record import Box
from tests.dpconvert.scenes import Scene, annotations, counts, labels, records, scene

AREA = {"type": "area", "size": 100, "positive": ["tumour"], "cut": ["hole"], "share": 0.10}
OBJECTS = {"type": "objects", "size": 250, "positive": "mitosis", "none": "none"}


@pytest.mark.parametrize(
    ("width", "height", "size", "overlap", "columns", "rows"),
    [
        (2000, 2000, 250, 125, 15, 15),  # Janowczyk1
        (1000, 1000, 200, 100, 9, 9),  # Janowczyk2
        (2000, 2000, 250, 0, 8, 8),  # Janowczyk5
        (1388, 1040, 384, 0, 3, 2),  # Janowczyk7
        (2048, 1536, 512, 0, 4, 3),  # BACH18Micro
        (500, 500, 100, 0, 5, 5),  # WarwickCRC
        (100, 99, 100, 0, 0, 0),
        (100, 100, 100, 50, 1, 1),
    ],
)
def test_the_grid_of_the_paper_s_images(
    width: int, height: int, size: int, overlap: int, columns: int, rows: int
) -> None:
    boxes = grid(width, height, size, overlap)
    assert len(boxes) == columns * rows
    if len(boxes):
        assert tuple(boxes[0]) == (0, 0, size, size)
        assert len(set(boxes[:, 0].tolist())) == columns
        assert boxes[:, 0].max() + size <= width
        assert boxes[:, 1].max() + size <= height


def test_the_grid_goes_row_by_row_and_drops_partial_patches() -> None:
    assert grid(1388, 1040, 384).tolist() == [
        [0, 0, 384, 384],
        [384, 0, 384, 384],
        [768, 0, 384, 384],
        [0, 384, 384, 384],
        [384, 384, 384, 384],
        [768, 384, 384, 384],
    ]


def test_a_point_on_an_edge_is_in_no_patch() -> None:
    boxes = grid(20, 20, 10)
    points = np.array([(10.0, 5.0), (5.0, 10.0), (0.0, 5.0), (20.0, 15.0), (10.0, 10.0)])
    assert not holds(boxes, points).any()
    assert holds(boxes, np.array([(10.001, 5.0)])).tolist() == [False, True, False, False]
    assert holds(boxes, np.array([(9.999, 19.999)])).tolist() == [False, False, True, False]
    assert not holds(boxes, np.zeros((0, 2))).any()


def test_presence_is_a_positive_point_strictly_inside() -> None:
    rule = {"type": "presence", "size": 100, "positive": ["inflammatory"]}
    found = records(rule, scene(250, 100, [((50, 50), "epithelial"), ((150, 50), "inflammatory"), ((200, 50), "x")]))
    assert labels(found) == {(0, 0): "no", (100, 0): "yes"}
    assert labels(records(rule, scene(200, 100, [((100, 50), "inflammatory")]))) == {(0, 0): "no", (100, 0): "no"}


def test_an_object_takes_its_tile_out_of_the_grid_and_gives_its_crops() -> None:
    found = records(OBJECTS, scene(500, 500, [((100, 100), "mitosis")]), classes=["none", "mitosis"])
    negatives = [r for r in found if r.label == "none"]
    assert labels(negatives) == {(250, 0): "none", (0, 250): "none", (250, 250): "none"}
    crops = [r.box for r in found if r.label == "mitosis" and r.box]
    assert len(crops) == 10
    assert all(b.x < 100 < b.x + 250 and b.y < 100 < b.y + 250 for b in crops)
    assert all(0 <= b.x <= 250 and 0 <= b.y <= 250 and (b.width, b.height) == (250, 250) for b in crops)
    assert len(set(crops)) > 5


def test_an_object_on_the_edge_of_tiles_drops_none_and_is_cropped_all_the_same() -> None:
    found = records(OBJECTS | {"crops": 3}, scene(500, 500, [((250, 100), "mitosis")]), classes=["none", "mitosis"])
    assert counts(found) == {"none": 4, "mitosis": 3}


def test_a_look_alike_makes_its_tile_the_third_class_unless_an_object_is_there_too() -> None:
    rule = OBJECTS | {"other": "lookalike", "crops": 1}
    points = [((100, 100), "mitosis"), ((101, 101), "lookalike"), ((300, 300), "lookalike")]
    found = records(rule, scene(500, 500, points), classes=["none", "mitosis", "lookalike"])
    tiles = [r for r in found if r.label != "mitosis"]
    assert labels(tiles) == {(250, 0): "none", (0, 250): "none", (250, 250): "lookalike"}


def test_objects_in_an_image_smaller_than_a_patch_are_an_error_and_none_are_nothing() -> None:
    classes = ["none", "mitosis"]
    assert records(OBJECTS, scene(249, 500), classes=classes) == []
    with pytest.raises(ReadError, match=r"p: smaller than a patch of 250 px; found 249 x 500"):
        records(OBJECTS, scene(249, 500, [((100, 100), "mitosis")]), classes=classes)


def test_keys_of_crops_differ_even_where_two_crops_lie_in_one_place() -> None:
    found = records(OBJECTS | {"crops": 10}, scene(250, 250, [((9, 9), "mitosis")]), classes=["none", "mitosis"])
    assert {r.box for r in found} == {Box(0, 0, 250, 250)}
    assert len({r.suffix for r in found}) == len(found) == 10


@given(st.data())
def test_a_shifted_patch_lies_in_the_image_and_holds_its_point(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 300))
    width, height = (data.draw(st.integers(size, 1000)) for _ in range(2))
    x = data.draw(st.floats(0, width, allow_subnormal=False))
    y = data.draw(st.floats(0, height, allow_subnormal=False))
    box = shifted((x, y), (size, size), width, height, "a", data.draw(st.integers(0, 99)))
    assert box.x >= 0
    assert box.y >= 0
    assert (box.width, box.height) == (size, size)
    assert box.x + size <= width
    assert box.y + size <= height
    for at, low, length in ((x, box.x, width), (y, box.y, height)):
        inside = low < at < low + size
        assert inside or (at in (0, length) and at in (low, low + size))


@pytest.mark.parametrize(
    ("at", "corners"),
    [
        (50.5, {47, 48, 49, 50}),
        (50.0, {47, 48, 49}),
        (0.0, {0}),
        (0.5, {0}),
        (2.0, {0, 1}),
        (99.5, {96}),
        (100.0, {96}),
    ],
)
def test_every_corner_that_holds_the_point_is_drawn_and_no_other(at: float, corners: set[int]) -> None:
    assert {shifted((at, 50), (4, 4), 100, 100, k).x for k in range(200)} == corners
    assert {shifted((50, at), (4, 4), 100, 100, k).y for k in range(200)} == corners


def test_exactly_the_share_is_not_more_than_the_share() -> None:
    tenth, more = shapely.box(0, 0, 10, 100), shapely.box(0, 0, 10.01, 100)
    assert labels(records(AREA, scene(100, 100, [(tenth, "tumour")]))) == {(0, 0): "no"}
    assert labels(records(AREA, scene(100, 100, [(more, "tumour")]))) == {(0, 0): "yes"}


def test_overlapping_regions_count_once() -> None:
    twice = [(shapely.box(0, 0, 6, 100), "tumour"), (shapely.box(2, 0, 8, 100), "tumour")]
    assert labels(records(AREA, scene(100, 100, twice))) == {(0, 0): "no"}


def test_holes_and_cut_outs_do_not_count() -> None:
    region = shapely.box(0, 0, 50, 100)
    holed = shapely.difference(region, shapely.box(5, 0, 45, 100))
    assert labels(records(AREA, scene(100, 100, [(holed, "tumour")]))) == {(0, 0): "no"}
    cut = [(region, "tumour"), (shapely.box(0, 0, 41, 100), "hole")]
    assert labels(records(AREA, scene(100, 100, cut))) == {(0, 0): "no"}
    cut[1] = (shapely.box(0, 0, 39, 100), "hole")
    assert labels(records(AREA, scene(100, 100, cut))) == {(0, 0): "yes"}


def test_an_annotation_that_the_rule_does_not_know_is_an_error() -> None:
    with pytest.raises(ReadError, match=r"unknown annotation label 'necrosis'; expected tumour, hole"):
        records(AREA, scene(100, 100, [(shapely.box(0, 0, 1, 1), "necrosis")]))
    assert len(records(AREA | {"ignore": ["necrosis"]}, scene(100, 100, [(shapely.box(0, 0, 1, 1), "necrosis")]))) == 1


def test_centre_asks_for_the_central_pixel_only() -> None:
    rule = {"type": "centre", "size": 10, "positive": ["tumour"]}
    dot = shapely.box(4.9, 4.9, 5.1, 5.1)
    assert labels(records(rule, scene(20, 10, [(dot, "tumour")]))) == {(0, 0): "yes", (10, 0): "no"}
    around = shapely.difference(shapely.box(0, 0, 20, 10), shapely.box(4, 4, 6, 6))
    assert labels(records(rule, scene(20, 10, [(around, "tumour")]))) == {(0, 0): "no", (10, 0): "yes"}


def test_label_masks_serve_area_and_centre() -> None:
    values = np.zeros((10, 20), np.uint8)
    values[:, 0] = values[5, 15] = 1
    mask = LabelMask(values, {0: "stroma", 1: "tumour"}, 200, 100)
    share = AREA | {"cut": []}
    assert labels(records(share, scene(200, 100, mask))) == {(0, 0): "no", (100, 0): "no"}
    assert labels(records(share | {"share": 0.099}, scene(200, 100, mask))) == {(0, 0): "yes", (100, 0): "no"}
    centre = {"type": "centre", "size": 100, "positive": ["tumour"]}
    assert labels(records(centre, scene(200, 100, mask))) == {(0, 0): "no", (100, 0): "yes"}


def test_patches_are_stored_at_the_size_of_the_rule() -> None:
    (record,) = records(AREA | {"stored": 50}, scene(100, 100))
    assert (record.box, record.stored) == (Box(0, 0, 100, 100), (50, 50))


def test_background_is_dropped() -> None:
    pixels = np.full((100, 300, 3), 240, np.uint8)
    pixels[:, :105] = (200, 90, 160)
    pixels[:, 200:] = 0
    at = Scene(scene(1, 1).source_image, Flat(pixels), annotations([]))
    assert labels(records(AREA | {"tissue": 0.04}, at)) == {(0, 0): "no", (100, 0): "no"}
    assert labels(records(AREA | {"tissue": 0.10}, at)) == {(0, 0): "no"}


def test_a_cap_is_kept_per_class_in_the_order_of_the_grid() -> None:
    at = scene(1000, 1000, [(shapely.box(0, 0, 500, 100), "tumour")])
    found = records(AREA | {"cap": 10}, at)
    assert counts(found) == {"yes": 5, "no": 10}
    assert [(r.box.y, r.box.x) for r in found if r.box] == sorted((r.box.y, r.box.x) for r in found if r.box)
    fewer, more = labels(records(AREA | {"cap": 4}, at)), labels(records(AREA | {"cap": 20}, at))
    assert fewer.keys() < labels(found).keys() < more.keys()
    assert max(y for _, y in labels(found)) > 300


def test_crops_are_clipped_bounding_boxes() -> None:
    items = [
        (shapely.box(-5, -5, 10.2, 20.7), "yes"),
        (shapely.box(90.5, 95, 130, 130), "no"),
        (shapely.box(200, 200, 210, 210), "yes"),
        (shapely.box(0, 0, 5, 5), "other"),
    ]
    found = records({"type": "crop"}, scene(100, 100, items))
    assert [(r.box, r.label, r.suffix) for r in found] == [
        (Box(0, 0, 11, 21), "yes", "0"),
        (Box(90, 95, 10, 5), "no", "1"),
    ]


def test_an_image_that_is_cut_out_already_is_its_own_crop() -> None:
    (record,) = records({"type": "crop"}, scene(30, 30, label="yes"))
    assert (record.box, record.label) == (None, "yes")


def test_tiles_have_the_label_of_their_image_and_whole_images_too() -> None:
    assert labels(records({"type": "tiles", "size": 10}, scene(25, 10, label="yes"))) == {(0, 0): "yes", (10, 0): "yes"}
    (whole,) = records({"type": "whole"}, scene(25, 10, label="no"))
    assert (whole.box, whole.label) == (None, "no")
    with pytest.raises(ReadError, match="p: no label is known for this image"):
        records({"type": "tiles", "size": 10}, scene(25, 10))


def test_the_connected_areas_of_a_mask_are_its_objects() -> None:
    values = np.zeros((10, 20), np.uint8)
    values[4:6, 4:6] = values[8:, 18:] = 1
    mask = LabelMask(values, {0: "no", 1: "cell"}, 200, 100)
    rule = {"type": "presence", "size": 100, "positive": ["cell"]}
    assert labels(records(rule, scene(200, 100, mask))) == {(0, 0): "yes", (100, 0): "yes"}
    found = records({"type": "crop"}, scene(200, 100, mask), classes=["cell"])
    assert [r.box for r in found] == [Box(40, 40, 20, 20), Box(180, 80, 20, 20)]


# --- the class of the middle

GRADES = ["benign", "three", "four"]
MIDDLE = {"type": "middle", "size": 30, "centre": 10}
MASKED = {0: "benign", 1: "three", 2: "four", 9: "unlabelled"}


def middle(values: NDArray[np.uint8], **rule: object) -> dict[tuple[int, int], str]:
    height, width = values.shape
    at = scene(width, height, LabelMask(values, MASKED, width, height))
    return labels(records(MIDDLE | {"ignore": ["unlabelled"]} | rule, at, classes=GRADES))


def test_a_patch_is_of_the_class_that_covers_most_of_its_middle() -> None:
    values = np.full((30, 90), 9, np.uint8)
    values[10:20, 10:20] = 1
    values[0:10, 0:30] = 2  # outside the middle
    values[10:15, 40:50] = 0
    values[15:20, 40:50] = 2  # half and half: neither covers more than half
    values[10:16, 70:80] = 2
    values[16:20, 70:80] = 0
    assert middle(values) == {(0, 0): "three", (60, 0): "four"}
    assert middle(values, others=0.3) == {(0, 0): "three"}
    assert middle(values, centre=None, share=0.3, others=0.2) == {(0, 0): "four"}  # 300, 100 and 500 of 900 px
    assert middle(values, share=0.6) == {(0, 0): "three"}


def test_the_only_class_of_the_middle_is_enough_where_no_other_is_there() -> None:
    values = np.full((30, 60), 9, np.uint8)
    values[19, 19] = 1
    values[10, 40] = 1
    values[19, 49] = 2
    assert middle(values, share=0, others=0) == {(0, 0): "three"}


def test_the_middle_is_recognized_by_outlines_too_and_what_has_no_class_is_counted() -> None:
    at = scene(60, 30, [(shapely.box(0, 0, 30, 30), "three"), (shapely.box(45, 0, 60, 30), "unlabelled")])
    found = records(MIDDLE | {"ignore": ["unlabelled"]}, at, classes=GRADES)
    assert labels(found) == {(0, 0): "three"}
    assert at.remarks == {"patch whose middle is of no single class, left out": 1}
    with pytest.raises(ReadError, match="unknown annotation label 'unlabelled'"):
        records(MIDDLE, at, classes=GRADES)


def test_classes_that_lie_on_each_other_give_the_first_and_are_counted() -> None:
    at = scene(60, 30, [(shapely.box(0, 0, 60, 30), "four"), (shapely.box(0, 0, 30, 30), "three")])
    assert labels(records(MIDDLE, at, classes=GRADES)) == {(0, 0): "three", (30, 0): "four"}
    told = "patch whose middle several classes cover equally, given to the first of `classes`"
    assert at.remarks == {told: 1}


def test_a_class_may_have_so_many_patches_of_an_image() -> None:
    values = np.repeat(np.array([[0, 1, 1, 1, 1]], np.uint8), 30, 1).repeat(30, 0)
    assert Counter(middle(values, cap=2).values()) == {"benign": 1, "three": 2}
    assert middle(values, cap=2).items() <= middle(values).items()


@pytest.mark.parametrize("wrong", [{"centre": 40}, {"share": 0.3}, {"share": 1}])
def test_rules_by_which_two_classes_could_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"centre must not be|two classes could|less than 1"):
        records(MIDDLE | wrong, scene(30, 30), classes=GRADES)
