"""Open sources whose files were altered: a table that contradicts itself, two masks, unknown kinds of nuclei."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from dpconvert.annotations import Annotation, Annotations, frame
from dpconvert.annotations import read as annotation_files
from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import find
from dpconvert.readers.fakes import draw_fake
from tests.dpconvert.test_sources_drawn import planned, unpacked


def drawn(name: str, folder: Path) -> Path:
    """A fake of one's own, with its archives unpacked."""
    made = draw_fake(find(name), folder)
    if not list(made.rglob("*.zip")):
        return made
    files = unpacked(made, folder / "unpacked")
    for table in made.glob("*.csv"):
        shutil.copy(table, files)
    return files


def edited(table: Path, change: Callable[[list[str]], list[str]]) -> None:
    table.write_text("".join(f"{line}\n" for line in change(table.read_text().splitlines())))


# name of a source, its table, a set there and another one
SETS = [
    ("segpath-epithelium", "*_fileinfo.csv", ",train", ",test"),
    ("ignite", "data_overview.csv", ",train,", ",test,"),
    ("midogpp", "datasets_xvalidation.csv", ";train;", ";test;"),
    ("lizard", "info.csv", ",3", ",1"),
]


@pytest.mark.parametrize(("name", "table", "one", "other"), SETS)
def test_a_second_row_about_an_image_that_says_otherwise_is_refused(
    name: str, table: str, one: str, other: str, tmp_path: Path
) -> None:
    source = drawn(name, tmp_path)
    (path,) = source.rglob(table)
    edited(path, lambda lines: [*lines, lines[1].replace(one, other)])
    with pytest.raises(SourceError, match=r"line \d+: two rows about one image, with different values"):
        planned(name, source, **({"split": "paper"} if name.startswith("segpath") else {}))


@pytest.mark.parametrize(("one", "other"), [(",train", ",test"), (",panCK_Epithelium,", ",CD3CD20_Lymphocyte,")])
def test_the_rows_of_an_image_of_segpath_and_its_mask_must_agree(one: str, other: str, tmp_path: Path) -> None:
    source = drawn("segpath-epithelium", tmp_path)
    (path,) = source.rglob("*_fileinfo.csv")
    edited(path, lambda lines: [*lines[:2], lines[2].replace(one, other), *lines[3:]])
    assert "_mask.png" in path.read_text().splitlines()[2]
    with pytest.raises(SourceError, match=r"line 3: two rows about one image, with different values"):
        planned("segpath-epithelium", source, split="paper")


@pytest.mark.parametrize(("name", "table", "one", "other"), SETS)
def test_a_row_without_a_set_is_refused(name: str, table: str, one: str, other: str, tmp_path: Path) -> None:
    source = drawn(name, tmp_path)
    (path,) = source.rglob(table)
    empty = one.replace("train", "").replace("3", "")
    edited(path, lambda lines: [lines[0], lines[1].replace(one, empty), *lines[2:]])
    with pytest.raises(SourceError, match=r"line 2: an empty cell in column '(train_val_test|split|Dataset|Split)'"):
        planned(name, source)


@pytest.mark.parametrize(
    ("name", "table", "row"),
    [
        ("glas", "Grade.csv", "train_99,1, benign, healthy"),
        ("lizard", "info.csv", "crag_99,train_30,2"),
        ("midogpp", "datasets_xvalidation.csv", "99;train;human breast cancer;Hamamatsu XR;UMC Utrecht;Human"),
        ("ignite", "data_overview.csv", "./images/he/patient99_he_roi1.png,x,he_tissue_segmentation,train,H&E,99"),
        ("segpath-epithelium", "*_fileinfo.csv", "panCK_Epithelium_099_000000_000000_HE.png,panCK,train"),
    ],
)
def test_rows_about_no_image_here_and_empty_rows_are_counted(name: str, table: str, row: str, tmp_path: Path) -> None:
    source = drawn(name, tmp_path)
    (path,) = source.rglob(table)
    edited(path, lambda lines: [*lines, "", row])
    notes = "; ".join(planned(name, source).notes)
    assert f"1 row of {path.relative_to(source)} about no image here" in notes
    assert f"1 empty row of {path.relative_to(source)} passed over" in notes


def test_a_second_mask_of_a_region_of_tiger_is_refused(tmp_path: Path) -> None:
    source = drawn("tiger-rois", tmp_path)
    mask = min(source.rglob("tissue-bcss/masks/*.png"))
    other = tmp_path / "unpacked" / "zz" / "tissue-bcss" / "masks" / mask.name
    other.parent.mkdir(parents=True)
    Image.fromarray(np.ones_like(np.asarray(Image.open(mask)))).save(other)
    with pytest.raises(SourceError, match="two masks of tissue of one name"):
        planned("tiger-rois", source)


def test_masks_of_no_region_of_tiger_are_counted(tmp_path: Path) -> None:
    source = drawn("tiger-rois", tmp_path)
    min(source.rglob("tissue-bcss/images/*.png")).unlink()
    assert "one of the masks of tissue, of no image here" in "; ".join(planned("tiger-rois", source).notes)


def test_a_second_list_of_tiger_s_cells_that_differs_is_refused(tmp_path: Path) -> None:
    source = drawn("tiger-rois", tmp_path)
    (cells,) = source.rglob("tiger-coco.json")
    other = source / "0" / "tissue-cells" / cells.name
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps(json.loads(cells.read_text()) | {"annotations": []}))
    with pytest.raises(SourceError, match="two lists of cells that differ"):
        planned("tiger-rois", source, dense=True)
    planned("tiger-rois", source)


def test_outlines_of_nuclei_of_no_region_of_puma_are_counted(tmp_path: Path) -> None:
    source = drawn("puma", tmp_path)
    min(source.rglob("*.tif")).unlink()
    told = "one of the outlines of nuclei, of no image here"
    assert told in "; ".join(planned("puma", source, dense=True).notes)


def altered(source: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """One array of LyNSeC 3 after a change."""
    path = min(source.rglob("lynsec 3/*.npy"))
    np.save(path, change(np.load(path)))


def with_kind(array: np.ndarray) -> np.ndarray:
    array[..., 4][array[..., 3] == 1] = 7
    return array


def with_part_of_a_number(array: np.ndarray) -> np.ndarray:
    return array + 0.5 * (np.arange(5) == 3) * (array[..., 3:4] > 0)


def with_a_number_below_zero(array: np.ndarray) -> np.ndarray:
    array[..., 3][array[..., 3] == 1] = -1
    return array


def with_no_number(array: np.ndarray) -> np.ndarray:
    array = array.astype(float)
    array[20, 20, 3] = np.nan
    return array


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_kind, "invalid kinds of nuclei; expected 0 to 2; found 7"),
        (with_part_of_a_number, "invalid numbers of nuclei; expected whole numbers from 0; found 1.5"),
        (with_a_number_below_zero, "invalid numbers of nuclei; expected whole numbers from 0; found -1"),
        (with_no_number, "invalid numbers of nuclei; expected whole numbers from 0; found nan"),
        (
            lambda array: np.moveaxis(array, 2, 0),
            "numbers its nuclei.* 5 channels; found 5 x 192 x 192",
        ),
    ],
)
def test_numbers_and_kinds_of_nuclei_in_lynsec_that_are_none_are_refused(
    change: Callable[[np.ndarray], np.ndarray], told: str, tmp_path: Path
) -> None:
    source = drawn("lynsec-tumour", tmp_path)
    altered(source, change)
    with pytest.raises(SourceError, match=told):
        planned("lynsec-tumour", source)


def test_benign_images_of_janowczyk_are_found_without_case_and_others_counted(tmp_path: Path) -> None:
    source = drawn("janowczyk3", tmp_path)
    rows = planned("janowczyk3", source).rows
    kept = {row.key: row.attributes for row in rows}
    listed = (source / "benign.txt").read_text()
    (source / "benign.txt").write_text(listed.upper() + "none.bmp\n")
    made = planned("janowczyk3", source)
    assert {row.key: row.attributes for row in made.rows} == kept
    assert "benign.txt names 1 image of which no file is here, the first: none.bmp" in "; ".join(made.notes)


def test_a_mask_of_segpath_with_a_third_value_is_refused(tmp_path: Path) -> None:
    source = drawn("segpath-epithelium", tmp_path)
    path = min(source.rglob("*_mask.png"))
    mask = np.array(Image.open(path))
    Image.fromarray(mask * 255).save(path)
    planned("segpath-epithelium", source)
    mask[20:60, 20:60] = 77
    Image.fromarray(mask).save(path)
    with pytest.raises(SourceError, match="mask value 77 has no label"):
        planned("segpath-epithelium", source)


@pytest.mark.parametrize("name", ["lizard", "bcss", "tiger-rois"])
def test_a_known_source_that_lacks_a_file_points_to_its_check(name: str, tmp_path: Path) -> None:
    source = drawn(name, tmp_path)
    min([*source.rglob("masks/*.png"), *source.rglob("*.mat")]).unlink()
    with pytest.raises(
        SourceError,
        match=f"for this image; `dpconvert check {name} --source .*` lists the existing and the missing files",
    ):
        planned(name, source)


def test_a_cell_that_is_listed_twice_is_one_sample_and_two_that_are_alike_are_reported(tmp_path: Path) -> None:
    source = drawn("midogpp", tmp_path)
    before = planned("midogpp", source)
    (cells,) = source.rglob("MIDOG++.json")
    told = json.loads(cells.read_text())
    told["annotations"].append(told["annotations"][0])
    cells.write_text(json.dumps(told))
    made = planned("midogpp", source)
    assert [row.box for row in made.rows] == [row.box for row in before.rows]
    assert "annotations: 1 x the same as another, counted once" in made.notes
    told["annotations"][-1] = told["annotations"][0] | {"id": 9999}
    cells.write_text(json.dumps(told))
    made = planned("midogpp", source)
    assert len(made.rows) == len(before.rows) + 1
    assert "annotations: 1 x the label and outline of another, with another id or none, counted as well" in made.notes


def test_a_point_in_two_rows_of_a_table_is_one_point() -> None:
    rows = [Annotation(shapely.Point(3, 4), label, line) for line, label in (("2", "a"), ("3", "b"), ("4", "a"))]
    found = frame.inside(Annotations(rows), (9, 9), "points.csv")
    assert [item.id for item in found.items] == ["2", "3"]
    assert found.remarks == {"the same as another, counted once": 1}


def square(**more: object) -> dict[str, object]:
    corners = [[1, 1], [5, 1], [5, 5], [1, 5], [1, 1]]
    geometry = {"type": "Polygon", "coordinates": [corners]}
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "cell"}}, **more}


@pytest.mark.parametrize(
    ("features", "kept", "told"),
    [
        ([square(id="a"), square(id="a")], 1, "the same as another, counted once"),
        ([square(id="a"), square(id="b")], 2, frame.ALIKE),
        ([square(), square()], 2, frame.ALIKE),
    ],
)
def test_an_outline_that_a_file_holds_twice_is_one_object_only_if_both_have_one_id(
    features: list[dict[str, object]], kept: int, told: str
) -> None:
    data = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    found = annotation_files.read(data, "a.geojson", annotation_files.Subject("a.png", (9, 9)))
    assert isinstance(found, Annotations)
    found = frame.inside(found, (9, 9), "a.geojson")
    assert len({item.id for item in found.items}) == len(found.items) == kept
    assert +found.remarks == {told: 1}


def test_areas_without_an_id_are_all_kept() -> None:
    alike = [Annotation(shapely.box(1, 1, 5, 5), "cell")] * 2
    found = frame.inside(Annotations(alike), (9, 9), "a.json")
    assert (len(found.items), +found.remarks) == (2, {frame.ALIKE: 1})
