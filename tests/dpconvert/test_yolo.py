"""Text files of YOLO, read as boxes and outlines in pixels."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from dpconvert.annotations import Annotations, programs
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.formats.yolo import EMPTY
from dpconvert.annotations.read import Subject
from dpconvert.errors import ReadError

WIDTH, HEIGHT = 200, 100
BOX = "1 0.5 0.25 0.2 0.4\n"
OUTLINE = "0 0.1 0.1 0.3 0.1 0.3 0.6 0.1 0.6\n"


def read(text: str, known: tuple[str, ...] = ()) -> Annotations:
    found = annotation_files.read(text.encode(), "a.txt", Subject("a.png", (WIDTH, HEIGHT)), known)
    assert isinstance(found, Annotations)
    return found


def test_boxes_and_outlines_are_scaled_to_pixels() -> None:
    """Values by hand: fractions of 200 x 100 pixels."""
    box, outline = read(BOX + OUTLINE).items
    assert (box.label, box.geometry.bounds) == ("1", (80, 5, 120, 45))
    assert outline.label == "0"
    assert shapely.equals(outline.geometry, shapely.Polygon([(20, 10), (60, 10), (60, 60), (20, 60)]))


def test_a_rotated_box_is_its_four_corners() -> None:
    corners = np.array([[100, 20], [120, 40], [100, 60], [80, 40]])
    text = " ".join(f"{value:.6f}" for value in (corners / [WIDTH, HEIGHT]).ravel())
    (found,) = read(f"3 {text}\n").items
    assert found.geometry.area == pytest.approx(800)


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_an_empty_file_says_that_nothing_is_on_the_image(text: str) -> None:
    found = read(text)
    assert found.items == []
    assert found.remarks == {EMPTY: 1}


def test_predictions_with_confidences_are_refused() -> None:
    with pytest.raises(ReadError, match=r"a\.txt, line 2: a confidence .*; found 5 numbers; predictions of a model"):
        read(BOX + "0 0.5 0.5 0.2 0.2 0.93\n")


@pytest.mark.parametrize("line", ["0 0.5 0.5", "x 0.1 0.1 0.1 0.1", "0 0.5 0.5 0.2 1.5"])
def test_a_line_far_down_that_is_cut_is_refused(line: str) -> None:
    """Beyond what is looked at to tell the format."""
    with pytest.raises(ReadError, match=r"a\.txt, line 61: not a line of YOLO; expected the number of a class"):
        read(BOX * 60 + line)


def test_a_class_without_a_name_in_the_manifest_is_refused() -> None:
    with pytest.raises(ReadError, match="unknown annotation label '0'"):
        read(OUTLINE, ("1", "2"))


@pytest.mark.parametrize("text", ["0 12 30 40 50\n", "0 0.5 0.5 0.2\n", "0 0.5 0.5 1.2 0.2\n", "a 0.5 0.5 0.2 0.2\n"])
def test_other_texts_are_not_taken_for_files_of_yolo(text: str) -> None:
    with pytest.raises(ReadError, match="of no known annotation format"):
        programs.detect(text.encode(), "a.txt")
