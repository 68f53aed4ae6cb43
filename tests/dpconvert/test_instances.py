"""Instances: the pixels of each object, from annotations to shards and back to files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from dpconvert import card as cards
from dpconvert.manifest.dense import Dense
from dpconvert.pixel_runs import cells_of, runs_of
from dpconvert.plan.instances import Instances
from dpconvert.runtime.progress import Reporter
from dpconvert.tasks import dense_targets
from dpconvert.tasks.overlay import COLOURS, overlaid
from dpconvert.tasks.unpack import unpack
from tests.dpconvert.conftest import Converted
from tests.dpconvert.test_dense import areas
from tests.dpconvert.test_dense_sources import kept, stored

Get = Callable[[str], Converted]
SEG = {"classes": ["other", "nucleus", "gland"], "labels": {"n": "nucleus", "g": "gland"}, "unannotated": "other"}
CARD = cards.DenseCard(
    seg=cards.SegCard(classes=["other", "nucleus"]),
    instances=cards.InstancesCard(classes=["nucleus"], exhaustive=True),
)
ROW = {"stored_width": 4, "stored_height": 2}


def test_a_pixel_belongs_to_the_object_that_covers_most_of_it() -> None:
    """Four pixels in a row: 0.6 + 0.4, then 0.3 + 0.3, then 0.4, then half; two objects, one above the other."""
    first = shapely.unary_union([shapely.box(0, 0, 0.6, 1), shapely.box(1, 0, 1.3, 1), shapely.box(3, 0, 3.5, 1)])
    second = shapely.unary_union([shapely.box(0.6, 0, 1, 1), shapely.box(1.7, 0, 2, 1), shapely.box(2, 0, 2.4, 1)])
    found = Instances([(first, 0), (second, 1)])
    assert found.numbers((0, 0, 4, 1), (4, 1)).tolist() == [[1, 2, 0, 1]]
    assert found.runs((0, 0, 4, 1), (4, 1)) == [[0, 1, 3, 1, 0], [1, 1, 1]]
    assert found.runs((2, 0, 2, 1), (2, 1)) == [[1, 1, 0]]


def test_of_objects_that_overlap_the_later_one_is_seen() -> None:
    below, above = shapely.box(0, 0, 3, 1), shapely.box(1, 0, 2, 1)
    assert Instances([(below, 0), (above, 0)]).numbers((0, 0, 3, 1), (3, 1)).tolist() == [[1, 2, 1]]
    assert Instances([(above, 0), (below, 0)]).numbers((0, 0, 3, 1), (3, 1)).tolist() == [[2, 2, 2]]


def test_a_later_label_lies_above_an_earlier_one() -> None:
    from dpconvert.plan.targets import ImageTargets

    dense = Dense.model_validate({"seg": SEG, "instances": {"classes": ["nucleus", "gland"], "labels": SEG["labels"]}})
    drawn = areas(("g", shapely.box(0, 0, 2, 1)), ("n", shapely.box(0, 0, 3, 1)))
    found = ImageTargets(dense, drawn).objects((0, 0, 4, 1), (4, 1))
    assert found["instances"] == [[0, 2, 1], [2, 1, 0]]


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_runs_give_the_pixels_back(rows: list[list[bool]]) -> None:
    cells = np.array(rows)
    if cells.any():
        assert (cells_of(runs_of(cells), (5, len(rows))) == cells).all()


def numbers_of(fields: dict[str, Any]) -> NDArray[np.int64]:
    """As the specification says, without the program: positions row by row."""
    flat = np.zeros(fields["stored_width"] * fields["stored_height"], np.int64)
    for number, (*runs, _) in enumerate(fields["instances"], start=1):
        for start, length in zip(runs[::2], runs[1::2], strict=True):
            flat[start : start + length] = number
    return flat.reshape(fields["stored_height"], fields["stored_width"])


@pytest.mark.parametrize("name", ["lizard", "glas", "nuinsseg"])
def test_instances_are_those_of_the_source(name: str, converted: Get, tmp_path: Path) -> None:
    """Read from the original files by SciPy or Pillow, and back from what `unpack` writes."""
    source = converted(name)
    folder = kept(source)
    unpack(folder, tmp_path / "out", Reporter(quiet=True))
    with (tmp_path / "out" / "objects.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "instance"]
    seen = 0
    for key, parts in stored(folder).items():
        fields = json.loads(parts["json"])
        original = numbers_in_source(name, source.source, fields["picture"])
        crop = original[fields["y"] :, fields["x"] :][: fields["height"], : fields["width"]]
        found = numbers_of(fields)
        assert crop.shape == found.shape
        pairs = {*map(tuple, np.unique(np.stack([crop.ravel(), found.ravel()]), axis=1).T.tolist())}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert (0, 0) in pairs
        seg = np.asarray(Image.open(io.BytesIO(parts["seg.png"])))
        for number, (*_, label) in enumerate(fields["instances"], start=1):
            values = {*np.unique(seg[found == number]).tolist()}  # background is the first class of the masks
            assert values - ({255} if name == "nuinsseg" else set()) <= {label + 1}  # 255: vague areas, on top
        (path,) = (tmp_path / "out" / "instances").rglob(f"{key}.png")
        assert np.array_equal(np.asarray(Image.open(path)), found)
        bounds = [[int(row[c]) for c in ("x", "y", "x2", "y2")] for row in rows if f"/{key}." in row["file"]]
        for number, box in enumerate(bounds, start=1):
            down, across = np.nonzero(found == number)
            assert box == [across.min(), down.min(), across.max() + 1, down.max() + 1]
        seen += len(bounds)
    assert seen == len(rows) > 10


@cache
def numbers_in_source(name: str, folder: Path, picture: str) -> NDArray[np.int64]:
    import zipfile

    if name == "lizard":
        with zipfile.ZipFile(folder / "lizard_labels.zip") as archive:
            member = next(one for one in archive.namelist() if one.endswith(f"/{picture}.mat"))
            return np.asarray(scipy.io.loadmat(io.BytesIO(archive.read(member)))["inst_map"], np.int64)
    ending = f"/label masks modify/{picture}.tif" if name == "nuinsseg" else f"/{picture}_anno.bmp"
    with zipfile.ZipFile(next(folder.glob("*.zip"))) as archive:
        member = next(one for one in archive.namelist() if one.endswith(ending))
        return np.asarray(Image.open(io.BytesIO(archive.read(member))), np.int64)


@pytest.mark.parametrize(
    ("instances", "said"),
    [
        ([[0, 2, 0]], []),
        ([[0, 2, 1]], ["instances of an unknown class"]),
        ([[0, 2, 0], [1, 1, 0]], ["instances that share pixels"]),
        ([[7, 2, 0]], ["instances are not lists of runs of pixels and a class: its runs are not in order within the"]),
        ([[0, 0]], ["instances are not lists of runs of pixels and a class: its runs are not pairs"]),
        ([[0.5, 1, 0]], ["instances are not lists of runs of pixels and a class"]),
        ([["x", 1, 0]], ["instances are not lists of runs of pixels and a class"]),
        (None, ["no instances in the JSON"]),
    ],
)
def test_verify_names_what_is_wrong_with_instances(instances: Any, said: list[str]) -> None:
    fields = {} if instances is None else {"instances": instances}
    found = list(dense_targets.objects(fields, CARD, ROW))
    assert [one.startswith(text) for one, text in zip(found, said, strict=True)] == [True] * len(said)
    assert list(dense_targets.objects({"instances": []}, None, ROW)) == ["instances in the JSON, but not in the card"]


def test_instances_are_drawn_by_their_outlines() -> None:
    image = Image.new("RGB", (8, 6), "white")
    runs = [start + part for row in range(1, 5) for start, part in ((8 * row + 1, 0), (4, 0))]
    drawn = np.asarray(overlaid(image, (8, 6), None, {"instances": [[*runs, 0]]}))
    blue = (drawn == np.array([int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)])).all(2)
    wanted = np.zeros((6, 8), bool)
    wanted[1:5, 1:5] = True
    wanted[2:4, 2:4] = False
    assert (blue == wanted).all()


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (
            {"instances": {"classes": ["nucleus"]}, "points": {"classes": ["nucleus"], "radius_px": 3}},
            "needs .dense.seg",
        ),
        ({"seg": SEG, "instances": {"classes": ["nucleus"], "labels": {"x": "nucleus"}}}, "makes 'x' a 'nucleus'"),
        ({"seg": SEG, "instances": {"classes": ["nucleus"], "labels": {"g": "nucleus"}}}, "makes 'g' a 'nucleus'"),
    ],
)
def test_instances_need_the_masks_of_their_classes(tables: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Dense.model_validate(tables)
