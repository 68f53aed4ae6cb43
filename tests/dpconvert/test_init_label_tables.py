"""`dpconvert init` of slides, and of images with masks, whose labels, patients and sets a table states."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from dpconvert.readers.draft import large
from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Answer

Call = Callable[..., Answer]
DESCRIPTION = "Aperio Image Library v1\n256x256|AppMag = 20|MPP = 0.5"


def draw_slide(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((256, 256, 3), 120, np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", description=DESCRIPTION, metadata=None)


def draw_masked(folder: Path, numbers: Iterable[int], values: tuple[int, ...] = (0, 255)) -> None:
    for number in numbers:
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"images/{number}.png")
        mask = np.full((20, 20), values[0], np.uint8)
        for value in values[1:]:
            mask[5 + value % 7 :, 3 + number % 9 :] = value
        Image.fromarray(mask).save(folder / f"masks/{number}.png")


def write(folder: Path, head: str, rows: Iterable[str], name: str = "labels.csv") -> None:
    (folder / name).write_text("\n".join([head, *rows]) + "\n")


@pytest.fixture
def draft(tmp_path: Path, dpconvert: Call) -> Callable[..., tuple[dict[str, Any], Answer]]:
    def drafted(*, ready: bool = True) -> tuple[dict[str, Any], Answer]:
        answer = dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml")
        assert answer.code == (0 if ready else 1), answer.out + answer.err
        return tomllib.loads((tmp_path / "my.toml").read_text()), answer

    return drafted


def converted(tmp_path: Path, dpconvert: Call) -> list[dict[str, Any]]:
    answer = dpconvert(tmp_path / "my.toml", "--source", tmp_path / "s", "--out", tmp_path / "out", "--workers", 1)
    assert answer.code == 0, answer.err
    assert dpconvert("verify", tmp_path / "out", "--workers", 1).code == 0
    return list(read_index(tmp_path / "out" / "S" / "index.parquet").to_pylist())


@pytest.mark.parametrize("cell", ["S{}", "S{}.svs", "scans/S{}.svs"])
def test_a_table_states_label_patient_and_set_of_slides(
    cell: str, draft: Callable[..., Any], tmp_path: Path, dpconvert: Call
) -> None:
    sets = ("train", "val", "test")
    for number in range(12):
        draw_slide(tmp_path / "s" / "scans" / f"S{number}.svs")
    stated = {number: ("pos", "neg")[number // 2 % 2] for number in range(12)}
    rows = [f"{cell.format(n)},P{n // 2},{stated[n]},{sets[n // 4]}" for n in range(12)]
    write(tmp_path / "s", "slide_id,case_id,label,split", rows)
    manifest, _ = draft()
    assert (manifest["shape"], manifest["kind"], manifest["classes"]) == ("slides", "classification", ["neg", "pos"])
    for row in converted(tmp_path, dpconvert):
        number = int(row["source"].split("S")[1].removesuffix(".svs"))
        assert (row["group"].rpartition(":")[2], row["split"]) == (f"P{number // 2}", sets[number // 4])
        assert manifest["classes"][row["label"]] == stated[number]


def test_numbers_of_a_table_are_padded_as_slides_are_called(
    draft: Callable[..., Any], tmp_path: Path, dpconvert: Call
) -> None:
    for number in range(1, 13):
        draw_slide(tmp_path / "s" / f"{number:03}.svs")
    write(tmp_path / "s", "id,label", [f"{n},{'xy'[n % 2]}" for n in range(1, 13)])
    manifest, _ = draft()
    assert manifest["layout"]["slide"].startswith("{id:03}")
    found = {row["source"]: manifest["classes"][row["label"]] for row in converted(tmp_path, dpconvert)}
    assert found == {f"{n:03}.svs": "xy"[n % 2] for n in range(1, 13)}
    text = (tmp_path / "my.toml").read_text().replace("{id:03}", "{no:03}")
    (tmp_path / "my.toml").write_text(text)
    answer = dpconvert("check", tmp_path / "my.toml", "--source", tmp_path / "s", "-q")
    assert "slide: '{no:03}.svs' does not fit the table's columns ('no')" in answer.err


def patients(folder: Path) -> dict[str, str]:
    """Slides of eight patients, of whom every second has two; file -> patient."""
    found = {}
    for number in range(8):
        for slide in range(1 + number % 2):
            found[f"TCGA-A{number}-00{number}0-01Z-00-DX{slide + 1}.svs"] = f"TCGA-A{number}-00{number}0"
    for file in found:
        draw_slide(folder / file)
    return found


def test_a_table_states_label_and_set_of_all_slides_of_a_patient(
    draft: Callable[..., Any], tmp_path: Path, dpconvert: Call
) -> None:
    of_slide, sets = patients(tmp_path / "s"), ("train", "val", "test", "train")
    stated = {patient: ("LUSC", "LUAD")[n // 2 % 2] for n, patient in enumerate(sorted({*of_slide.values()}))}
    rows = [f"{p.lower()},{50 + n},{label},{sets[n // 2]}" for n, (p, label) in enumerate(stated.items())]
    write(tmp_path / "s", "case_id,age,subtype,split", [*rows, rows[0], "TCGA-ZZ-9999,70,LUSC,train"], "clinical.csv")
    manifest, answer = draft()
    assert manifest["layout"] == {"slide": "", "group": "case_id", "split": "split", "label": "subtype"}
    assert "12 images of 8 patients" in answer.out
    found = converted(tmp_path, dpconvert)
    assert len(found) == 12
    for row in found:
        patient = of_slide[row["source"]]
        assert row["group"].rpartition(":")[2].upper() == patient
        assert manifest["classes"][row["label"]] == stated[patient]
        assert row["split"] == sets[int(patient[6]) // 2]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "(?P<group>",
            "(?:",
            'the name tells no patient; `slide = ""` in [layout] says that a row of the table is about',
        ),
        ('group = "case_id"', 'group = ""', "no column names the patient of a row"),
        ("", "", "no line of the table is about this slide"),
    ],
)
def test_a_table_of_patients_that_cannot_be_read_so_is_refused(
    old: str, new: str, told: str, draft: Callable[..., Any], tmp_path: Path, dpconvert: Call
) -> None:
    of_slide = patients(tmp_path / "s")
    rows = [f"{patient},{'ab'[n % 2]}" for n, patient in enumerate(sorted({*of_slide.values()}))]
    write(tmp_path / "s", "case_id,label", rows)
    draft()
    if old:
        (tmp_path / "my.toml").write_text((tmp_path / "my.toml").read_text().replace(old, new))
    else:
        write(tmp_path / "s", "case_id,label", rows[1:])
    answer = dpconvert("check", tmp_path / "my.toml", "--source", tmp_path / "s", "-q")
    assert answer.code == 1
    assert told in answer.err


def test_rows_that_differ_about_a_patient_are_refused(
    draft: Callable[..., Any], tmp_path: Path, dpconvert: Call
) -> None:
    of_slide = patients(tmp_path / "s")
    rows = [f"{patient},{'ab'[n % 2]}" for n, patient in enumerate(sorted({*of_slide.values()}))]
    write(tmp_path / "s", "case_id,label", rows)
    draft()
    write(tmp_path / "s", "case_id,label", [*rows, rows[0].replace(",a", ",b")])
    answer = dpconvert("check", tmp_path / "my.toml", "--source", tmp_path / "s", "-q")
    assert "labels.csv, line 10: two lines about one slide, with different values" in answer.err


def test_a_table_of_patients_counts_beside_outlines(draft: Callable[..., Any], tmp_path: Path) -> None:
    square = '{"type":"Feature","properties":{"classification":{"name":"tumour"}},"geometry":{"type":"Polygon",'
    square += '"coordinates":[[[2,2],[40,2],[40,40],[2,40],[2,2]]]}}'
    for number in range(8):
        draw_slide(tmp_path / "s" / f"S{number}.svs")
        (tmp_path / "s" / f"S{number}.geojson").write_text(f'{{"type":"FeatureCollection","features":[{square}]}}')
    write(tmp_path / "s", "slide,patient,grade", [f"S{n},P{n % 3},{'high' if n % 2 else 'low'}" for n in range(8)])
    manifest, answer = draft()
    assert manifest["layout"]["group"] == "patient"
    assert manifest["group"]["kind"] == "patient"
    assert "8 images of 3 patients" in answer.out
    assert "labels.csv also states 'grade' of each slide: not used" in answer.out


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["S{n},P{n},"], "8 slides in labels.csv without a label"),
        (["S{n},P{n},a"], "No column is surely the label"),
    ],
)
def test_slides_whose_label_is_not_clear(rows: list[str], told: str, draft: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(16):
        draw_slide(tmp_path / "s" / f"S{number}.svs")
    filled = [rows[0].format(n=n) if n % 2 or "a" in rows[0] else f"S{n},P{n},{'ab'[n // 2 % 2]}" for n in range(16)]
    write(tmp_path / "s", "slide,patient,label", filled)
    _, answer = draft(ready=False)
    assert told in answer.err


def test_folders_of_classes_and_a_column_of_labels_are_asked_about(draft: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(8):
        draw_slide(tmp_path / "s" / "ab"[number % 2] / f"S{number}.svs")
    write(tmp_path / "s", "slide,label", [f"S{n},{'xy'[n // 4]}" for n in range(8)])
    _, answer = draft(ready=False)
    assert "Both folders and the column 'label' of labels.csv may be the class" in answer.err


def test_slides_in_no_row_are_asked_about(draft: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(12):
        draw_slide(tmp_path / "s" / f"S{number}.svs")
    write(tmp_path / "s", "slide,label", [f"S{n},{'xy'[n % 2]}" for n in range(11)])
    _, answer = draft(ready=False)
    assert "1 slide, the first S11.svs, in no row of labels.csv" in answer.err


def test_masks_beside_labelled_images_are_kept(draft: Callable[..., Any], tmp_path: Path, dpconvert: Call) -> None:
    draw_masked(tmp_path / "s", range(12))
    write(tmp_path / "s", "image,patient,grade", [f"{n}.png,P{n // 2},{'xy'[n // 2 % 2]}" for n in range(12)])
    manifest, answer = draft()
    assert (manifest["kind"], manifest["classes"], manifest["rule"]) == (
        "classification",
        ["x", "y"],
        {"type": "whole"},
    )
    assert "not used" not in answer.out
    rows = converted(tmp_path, dpconvert)
    assert {row["source"]: (manifest["classes"][row["label"]], row["group"].rpartition(":")[2]) for row in rows} == {
        f"images/{n}.png": ("xy"[n // 2 % 2], f"P{n // 2}") for n in range(12)
    }
    assert dpconvert("unpack", tmp_path / "out" / "S", "--out", tmp_path / "unpacked").code == 0
    for number in range(12):
        (path,) = (tmp_path / "unpacked" / "masks").rglob(f"{number}.png")
        kept, drawn = (np.asarray(Image.open(file)) for file in (path, tmp_path / "s" / f"masks/{number}.png"))
        np.testing.assert_array_equal(kept, drawn // 255)


def test_images_without_a_mask_keep_their_label(draft: Callable[..., Any], tmp_path: Path, dpconvert: Call) -> None:
    draw_masked(tmp_path / "s", range(12))
    (tmp_path / "s" / "masks" / "3.png").unlink()
    write(tmp_path / "s", "image,label", [f"{n}.png,{'xy'[n % 2]}" for n in range(12)])
    manifest, _ = draft()
    assert manifest["layout"]["missing"] == "none"
    assert len(converted(tmp_path, dpconvert)) == 12
    assert dpconvert("unpack", tmp_path / "out" / "S", "--out", tmp_path / "unpacked").code == 0
    (path,) = (tmp_path / "unpacked" / "masks").rglob("3.png")
    assert set(np.unique(np.asarray(Image.open(path)))) == {255}  # not annotated


def test_masks_whose_values_have_no_name_are_asked_about(draft: Callable[..., Any], tmp_path: Path) -> None:
    draw_masked(tmp_path / "s", range(12), values=(0, 1, 3))
    write(tmp_path / "s", "image,label", [f"{n}.png,{'xy'[n % 2]}" for n in range(12)])
    manifest, answer = draft(ready=False)
    assert manifest["classes"] == ["x", "y"]
    assert "name them under `values` and, in the same words, in [dense.seg]" in answer.err


def test_masks_of_objects_beside_labelled_images_are_asked_about(draft: Callable[..., Any], tmp_path: Path) -> None:
    draw_masked(tmp_path / "s", range(12))
    for number, part in itertools.product(range(12), (1, 2)):
        mask = np.zeros((20, 20), np.uint8)
        mask[5 * part : 5 * part + 3, 4:9] = 255
        Image.fromarray(mask).save(tmp_path / "s" / f"masks/{number}_{part}.png")
        (tmp_path / "s" / f"masks/{number}.png").unlink(missing_ok=True)
    write(tmp_path / "s", "image,label", [f"{n}.png,{'xy'[n % 2]}" for n in range(12)])
    _, answer = draft(ready=False)
    assert "masks" in answer.err


@pytest.mark.parametrize("axes", ["x,y", "X,Y", "Centroid X,Centroid Y"])
def test_a_column_of_decimals_is_no_label_of_points(axes: str, draft: Callable[..., Any], tmp_path: Path) -> None:
    draw_masked(tmp_path / "s", range(8))
    for path in (tmp_path / "s" / "masks").iterdir():
        path.unlink()
    rows = [f"{n % 8}.png,{2 + n},{5 + n % 7},{'ab'[n % 2]},0.{n}" for n in range(16)]
    write(tmp_path / "s", f"image,{axes},cell_type,score", rows, "cells.csv")
    manifest, _ = draft()
    x, y = axes.split(",")
    assert manifest["layout"]["names"] == {"image": "image", "x": x, "y": y, "label": "cell_type"}


@pytest.mark.parametrize(
    ("head", "cell", "told"),
    [
        ("image,x,y,label", "{n}.png", 'names = {image = "image", x = "x", y = "y", label = "label"}'),
        ("case,no,x,y,label", "A,{n}", "one column that names the image, in place of case, no"),
    ],
)
def test_places_in_images_are_asked_about_with_all_that_points_need(
    head: str, cell: str, told: str, draft: Callable[..., Any], tmp_path: Path
) -> None:
    draw_masked(tmp_path / "s", range(8))
    for number in range(8):
        (tmp_path / "s" / "masks" / f"{number}.png").unlink()
        if "case" in head:
            (tmp_path / "s" / "images" / f"{number}.png").rename(tmp_path / "s" / "images" / f"A_{number}.png")
    rows = [f"{cell.format(n=n)},{2 + n},{5 + n % 7},{'ab'[n % 2]}" for n in range(8)]
    write(tmp_path / "s", head, rows, "cells.csv")
    _, answer = draft(ready=False)
    assert told in answer.err


# --- TIFFs that are slides by their content


def draw_pyramid(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for step in (1, 4):
            file.write(pixels[::step, ::step], tile=(64, 64), photometric="rgb", subfiletype=int(step > 1))


@pytest.fixture
def small_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE", 256 * 256)


@pytest.mark.usefixtures("small_slides")
def test_a_table_states_the_labels_of_tiffs_that_are_slides(
    draft: Callable[..., Any], tmp_path: Path, dpconvert: Call
) -> None:
    """The table has the name that the shape's own pattern matches, and other columns than the shape's own."""
    for number in range(8):
        draw_pyramid(tmp_path / "s" / f"S{number}.tif", np.full((320, 320, 3), 100 + number, np.uint8))
    write(tmp_path / "s", "image_id,label", [f"S{n},{'ab'[n % 2]}" for n in range(8)], "slides.csv")
    manifest, _ = draft()
    assert (manifest["shape"], manifest["rule"]["type"]) == ("slides", "tiles")
    rows = converted(tmp_path, dpconvert)
    assert len(rows) == 8
    assert all(manifest["classes"][row["label"]] == "ab"[int(row["source"][1]) % 2] for row in rows)


@pytest.mark.usefixtures("small_slides")
def test_masks_that_are_pyramids_too_are_no_slides(draft: Callable[..., Any], tmp_path: Path) -> None:
    """As in PANDA."""
    for number in range(8):
        draw_pyramid(tmp_path / f"s/train_images/{number:04}.tiff", np.full((320, 320, 3), 100 + number, np.uint8))
        mask = np.zeros((320, 320, 3), np.uint8)
        mask[50:200, 50:200, 0] = 1 + number % 3
        draw_pyramid(tmp_path / f"s/train_label_masks/{number:04}_mask.tiff", mask)
    write(tmp_path / "s", "image_id,isup_grade", [f"{n:04},{n % 3}" for n in range(8)], "train.csv")
    manifest, answer = draft(ready=False)
    assert manifest["files"]["slides"]["pattern"] == r"^train_images/(?P<name>[^/]+)\.(?i:tiff)$"
    assert "The masks hold the values #000000, #010000, #020000, #030000" in answer.err
    assert "train.csv also states 'isup_grade' of each slide: not used" in answer.out


@pytest.mark.usefixtures("small_slides")
@pytest.mark.parametrize("layout", ["a table", "folders"])
def test_images_as_large_as_slides_are_stored_whole_only_if_meant(
    layout: str, draft: Callable[..., Any], tmp_path: Path
) -> None:
    for number in range(8):
        folder = tmp_path / "s" / ("ab"[number % 2] if layout == "folders" else "images")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 260), (number, 0, 0)).save(folder / f"{number}.png")
    if layout == "a table":
        write(tmp_path / "s", "image,label", [f"{n}.png,{'ab'[n % 2]}" for n in range(8)])
    _, answer = draft(ready=False)
    assert "Images are as large as slides (300 x 260 px), and each is one sample" in answer.err
