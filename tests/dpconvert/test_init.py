"""`dpconvert init`: a folder in, a manifest that works out; or one that says what is unclear.

What was made is compared with the files themselves: names, `csv`, numpy, never with what the draft says.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import tarfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
import tifffile
from PIL import Image

from dpconvert.manifest.catalog import find
from dpconvert.readers import draft
from dpconvert.readers.fakes import draw_fake
from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Answer, one_line

Call = Callable[..., Answer]
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def draw_image(path: Path, side: int = 16, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(abs(hash_of(path)) + value).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def hash_of(path: Path) -> int:
    return sum(map(ord, "/".join(path.parts[-3:])))


@pytest.fixture
def init(tmp_path: Path, dpconvert: Call) -> Callable[..., Any]:
    """`init(folder)`: the manifest, and the rows of what is converted by it; the answer alone where it is not ready."""

    def drafted(folder: Path, *options: object, ready: bool = True) -> Any:
        path = tmp_path / "drafted" / "my.toml"
        path.parent.mkdir(exist_ok=True)
        answer = dpconvert("init", folder, "--out", path, "-q")
        manifest = tomllib.loads(path.read_text())
        assert answer.code == (0 if ready else 1), answer.out + answer.err
        checked = dpconvert("check", path, "--source", folder, "-q")
        if not ready:
            assert "unclear: " in answer.err
            assert "NOT READY" in path.read_text()
            return manifest, answer, checked
        assert checked.code == 0, checked.err
        assert "next: dpconvert check" in answer.out
        made = dpconvert(path, "--source", folder, "--out", tmp_path / "out", "--workers", 1, "-q", *options)
        assert made.code == 0, made.err
        rows = read_index(tmp_path / "out" / manifest["task"] / "index.parquet").to_pylist()
        return manifest, rows, answer

    return drafted


def labels(manifest: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, str]:
    """Image -> the name of its class."""
    return {row["source"]: manifest["classes"][row["label"]] for row in rows}


def homes(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Group -> the sets that it lies in."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["group"].rpartition(":")[2], set()).add(row["split"])
    return found


def test_folders_become_classes_and_patients_in_names_are_kept_whole(init: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "my cells"
    for kind in ("lymphocyte", "tumour"):
        for number in range(16):
            draw_image(folder / kind / f"P{number // 2:02}_{kind[0]}{number}.png")
    manifest, rows, answer = init(folder)
    assert manifest["task"] == "MyCells"
    assert labels(manifest, rows) == {f"{p.parent.name}/{p.name}": p.parent.name for p in folder.rglob("*.png")}
    assert homes(rows).keys() == {f"P{n:02}" for n in range(8)}
    assert {len(found) for found in homes(rows).values()} == {1}
    assert "8 beginnings in common, such as P00" in answer.out


def test_without_a_patient_it_is_said_that_every_image_stands_alone(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(12):
        draw_image(tmp_path / "s" / "ab"[number % 2] / f"img{number}.jpg")
    manifest, rows, answer = init(tmp_path / "s")
    assert manifest["group"]["kind"] == "image"
    assert len(homes(rows)) == 12
    assert "every image is its own group. If several images of one patient are here" in answer.out


@pytest.mark.parametrize("order", ["patient/class", "class/patient"])
def test_folders_of_patients_are_distinguished_from_those_of_classes(
    init: Callable[..., Any], tmp_path: Path, order: str
) -> None:
    for number in range(24):
        parts = {"patient": str(8863 + number % 6), "class": str(number // 6 % 2)}
        draw_image(tmp_path / "s" / "/".join(parts[part] for part in order.split("/")) / f"i{number}.png")
    manifest, rows, _ = init(tmp_path / "s")
    at = order.split("/").index("class")
    assert labels(manifest, rows) == {row["source"]: row["source"].split("/")[at] for row in rows}
    assert homes(rows).keys() == {str(8863 + n) for n in range(6)}


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train_set", "validation", "Test_set"), ("train", "test")]
)
def test_folders_of_sets_are_kept(init: Callable[..., Any], tmp_path: Path, names: tuple[str, ...]) -> None:
    for number in range(40):
        draw_image(tmp_path / "s" / names[number % len(names)] / "ab"[number // 3 % 2] / f"x{number}.png")
    manifest, rows, _ = init(tmp_path / "s")
    assert labels(manifest, rows) == {row["source"]: row["source"].split("/")[1] for row in rows}
    for row in rows:
        home = row["source"].split("/")[0].lower()[:2]
        assert row["split"][:2] == home or (home == "tr" and len(names) == 2 and row["split"] == "val")
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_a_patient_in_two_sets_of_the_release_is_reported(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(24):
        draw_image(
            tmp_path / "s" / ("train", "test")[number % 2] / "ab"[number // 2 % 2] / f"P{number // 4}_{number}.png"
        )
    _, answer, checked = init(tmp_path / "s", ready=False)
    assert re.search(r"6 groups \(P0, P1, P2 and 3 more\) lie in more than one of the sets", answer.err)
    assert "one group in several official sets" in checked.err


def test_of_two_levels_that_may_be_classes_none_is_taken(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(24):
        draw_image(tmp_path / "s" / ("benign", "malignant")[number % 2] / "ab"[number // 2 % 2] / f"i{number}.png")
    manifest, answer, checked = init(tmp_path / "s", ready=False)
    assert "classes" not in manifest
    assert "folder 1 of the path (benign, malignant); folder 2 of the path (a, b)" in answer.err
    assert checked.code == 1


def test_folders_that_may_be_patients_are_not_taken_for_classes(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(24):
        draw_image(tmp_path / "s" / f"P{number % 8}" / f"i{number}.png")
    manifest, answer, _ = init(tmp_path / "s", ready=False)
    assert "classes" not in manifest
    assert "What the class of an image is: folder 1 of the path (P0, P1" in answer.err


def test_files_beside_images_that_may_hold_labels_are_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(8):
        draw_image(tmp_path / "s" / "xy"[number % 2] / f"i{number}.png")
        (tmp_path / "s" / "xy"[number % 2] / f"i{number}_epithelial.mat").write_bytes(b"?")
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "8 files called as images, such as x/i0_epithelial.mat, may hold labels" in answer.err


def test_archives_are_looked_into(init: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with zipfile.ZipFile(tmp_path / "s" / "cells.zip", "w") as archive:
        for number in range(12):
            draw_image(tmp_path / "x.png", value=number)
            archive.write(tmp_path / "x.png", f"{'ab'[number % 2]}/i{number}.png")
    manifest, rows, _ = init(tmp_path / "s")
    assert Counter(labels(manifest, rows).values()) == {"a": 6, "b": 6}


# --- tables


def table(folder: Path, head: str, lines: list[str], name: str = "labels.csv") -> None:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("\n".join([head, *lines]) + "\n")


def test_a_table_s_columns_are_recognized_by_what_they_hold(init: Callable[..., Any], tmp_path: Path) -> None:
    lines = []
    for number in range(1, 25):
        draw_image(tmp_path / "s" / "images" / f"{number:03}.png")
        lines.append(f"{number};{'benign' if number % 3 else 'malignant'};{'mf'[number % 2]};pat{number // 4}")
    table(tmp_path / "s", "id;diagnosis;sex;patient_id", [*lines, "99;benign;m;pat9"])
    manifest, rows, answer = init(tmp_path / "s")
    assert manifest["layout"]["file"] == "{id:03}.png"
    with (tmp_path / "s" / "labels.csv").open() as file:
        told = {f"images/{int(row['id']):03}.png": row for row in csv.DictReader(file, delimiter=";")}
    told.pop("images/099.png")
    assert labels(manifest, rows) == {name: row["diagnosis"] for name, row in told.items()}
    assert {row["source"]: row["group"] for row in rows} == {n: f"my:{row['patient_id']}" for n, row in told.items()}
    assert "7 patients of 24 images" in answer.out
    assert manifest["layout"]["missing"] is True


def test_labels_of_any_number_beside_another_label_are_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    tissues = ["tumour;stroma", "stroma", "tumour", "none"]
    lines = [f"{n}.png,G{n % 3},{tissues[n % 4]}" for n in range(24)]
    table(tmp_path / "t", "file,grade,tissues", lines)
    for n in range(24):
        draw_image(tmp_path / f"t/{n}.png")
    _, answer, _ = init(tmp_path / "t", ready=False)
    assert "Several columns may be the label in labels.csv: grade (G0 8, G1 8, G2 8); tissues (" in answer.err


@pytest.mark.parametrize(("name", "told"), [("x.h5", 'shape = "arrays"'), ("train.parquet", 'shape = "parquet"')])
def test_files_of_many_images_are_named_with_their_shape(name: str, told: str, dpconvert: Call, tmp_path: Path) -> None:
    """Those that cannot be looked into; for others see test_init_containers.py."""
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / name).write_bytes(b"not looked into")
    answer = dpconvert("init", folder, "--out", tmp_path / "my.toml", "-q")
    assert answer.code == 1
    assert name in answer.err
    assert told in answer.err


def test_names_of_files_of_many_images_are_no_classes(init: Callable[..., Any], tmp_path: Path) -> None:
    """As PatchCamelyon names its arrays of images and of labels."""
    (tmp_path / "s").mkdir()
    for one, what in itertools.product(("train", "valid", "test"), "xy"):
        (tmp_path / "s" / f"level_2_split_{one}_{what}.h5").write_bytes(b"not looked into")
    manifest, answer, _ = init(tmp_path / "s", ready=False)
    assert "classes" not in manifest
    assert 'may hold many images: see shape = "arrays"' in answer.err


def test_a_column_of_groups_is_no_label(init: Callable[..., Any], tmp_path: Path) -> None:
    table(tmp_path / "t", "file,group,label,n", [f"{n}.png,P{n // 4},,{n}.5" for n in range(24)])
    for n in range(24):
        draw_image(tmp_path / f"t/{n}.png")
    manifest, rows, _ = init(tmp_path / "t")
    assert (manifest["kind"], manifest["layout"]["value"]) == ("regression", "n")
    assert (manifest["group"]["kind"], manifest["layout"]["group"]) == ("group", "group")
    assert {row["group"].rpartition(":")[2] for row in rows} == {f"P{n}" for n in range(6)}


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("Fallnummer", "patient"),
        ("Fall", "patient"),
        ("Fall-Nr.", "patient"),
        ("case_id", "patient"),
        ("Patientin", "patient"),
        ("paciente", "patient"),
        ("PID", "patient"),
        ("pathology slide", "slide"),
        ("Biopsy", "biopsy"),
    ],
)
def test_what_a_column_of_groups_numbers(column: str, kind: str, init: Callable[..., Any], tmp_path: Path) -> None:
    table(tmp_path / "t", f"file,{column},label", [f"{n}.png,{n // 2},{'ab'[n // 2 % 2]}" for n in range(24)])
    for n in range(24):
        draw_image(tmp_path / f"t/{n}.png")
    manifest, rows, _ = init(tmp_path / "t")
    assert (manifest["group"]["kind"], manifest["layout"]["group"]) == (kind, column)
    assert len({row["group"] for row in rows}) == 12


def test_of_two_label_columns_none_is_taken(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(12):
        draw_image(tmp_path / "s" / f"{number}.png")
    table(tmp_path / "s", "file,expert1,expert2", [f"{n}.png,{'ab'[n % 2]},{'ab'[n // 6]}" for n in range(12)])
    manifest, answer, checked = init(tmp_path / "s", ready=False)
    assert "label" not in manifest["layout"]
    assert "Several columns may be the label in labels.csv: expert1 (a 6, b 6); expert2 (a 6, b 6)" in answer.err
    assert "layout.label: is missing" in checked.err


def test_tables_called_as_sets_are_read_together(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(24):
        draw_image(tmp_path / "s" / "img" / f"{number}.png")
    for at, name in enumerate(("train", "val", "test")):
        numbers = range(at * 8, at * 8 + 8)
        table(tmp_path / "s", "file,label", [f"img/{n}.png,{'ab'[n % 2]}" for n in numbers], f"{name}.csv")
    manifest, rows, _ = init(tmp_path / "s")
    assert {row["source"]: row["split"] for row in rows} == {
        f"img/{n}.png": ("train", "val", "test")[n // 8] for n in range(24)
    }
    assert labels(manifest, rows) == {f"img/{n}.png": "ab"[n % 2] for n in range(24)}


@pytest.mark.parametrize("key", ["file", "patient"])
def test_a_table_that_says_more_is_joined(key: str, init: Callable[..., Any], tmp_path: Path) -> None:
    """The labels in one table, and in another what is known of each image, or of each patient, with a row too many."""
    for n in range(30):
        draw_image(tmp_path / "s" / f"{n}.png")
    of_patient = [f"{key}{n},{('train', 'val', 'test')[n % 3]}" for n in range(11)]
    of_image = [f"{n}.png,patient{n // 3},{('train', 'val', 'test')[n // 3 % 3]}" for n in range(31)]
    table(tmp_path / "s", "file,label,patient", [f"{n}.png,{'ab'[n % 2]},patient{n // 3}" for n in range(30)])
    if key == "file":
        table(tmp_path / "s", "file,label", [f"{n}.png,{'ab'[n % 2]}" for n in range(30)])
    table(
        tmp_path / "s",
        "file,patient,split" if key == "file" else "patient,split",
        of_image if key == "file" else of_patient,
        "more.csv",
    )
    manifest, rows, answer = init(tmp_path / "s")
    assert f"by the column {key!r} that both have" in answer.out
    assert manifest["layout"]["join"] == key
    assert {row["source"]: (row["group"], row["split"]) for row in rows} == {
        f"{n}.png": (f"my:patient{n // 3}", ("train", "val", "test")[n // 3 % 3]) for n in range(30)
    }
    assert labels(manifest, rows) == {f"{n}.png": "ab"[n % 2] for n in range(30)}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_table_in_the_folder_of_each_set(form: str, init: Callable[..., Any], tmp_path: Path) -> None:
    """As Hugging Face's image folders have them; images of the sets have the same names."""
    for at, part in enumerate(("train", "validation", "test")):
        rows = [(f"{n:03}.png", "ab"[(n + at) % 2], f"{part}{n // 2}") for n in range(6)]
        for name, _, _ in rows:
            draw_image(tmp_path / "s" / part / name)
        if form == "csv":
            table(tmp_path / "s" / part, "file_name,label,patient", [",".join(row) for row in rows], "metadata.csv")
        else:
            lines = (json.dumps(dict(zip(("file_name", "label", "patient"), row, strict=True))) for row in rows)
            (tmp_path / "s" / part / "metadata.jsonl").write_text("\n".join([*lines, ""]))
    manifest, rows, _ = init(tmp_path / "s")
    assert {(row["source"], manifest["classes"][row["label"]], row["split"]) for row in rows} == {
        (f"{part}/{n:03}.png", "ab"[(n + at) % 2], split)
        for at, (part, split) in enumerate((("train", "train"), ("validation", "val"), ("test", "test")))
        for n in range(6)
    }
    assert len(homes(rows)) == 9


@pytest.mark.parametrize("same", [False, True], ids=["images of other names", "of equal names"])
def test_a_table_of_boxes_in_the_folder_of_each_set(same: bool, init: Callable[..., Any], tmp_path: Path) -> None:
    """As Roboflow exports detections: several rows for an image."""
    drawn: Counter[tuple[str, str]] = Counter()
    for split in ("train", "valid", "test"):
        lines = []
        for n in range(4):
            name = f"{n}.png" if same else f"{split}{n}.png"
            draw_image(tmp_path / "s" / split / name, side=64)
            for box in range(1 + (n + len(split)) % 2):
                lines.append(f"{name},64,64,{'RBC' if box else 'WBC'},{5 + 20 * box},8,{14 + 20 * box},20")
                drawn[f"{split}/{name}", "RBC" if box else "WBC"] += 1
        table(tmp_path / "s", "filename,width,height,class,xmin,ymin,xmax,ymax", lines, f"{split}/_annotations.csv")
    manifest, rows, _ = init(tmp_path / "s")
    assert (manifest["shape"], manifest["split"]["strict"]) == ("points", {"official": True})
    assert Counter((row["source"], manifest["classes"][row["label"]]) for row in rows) == drawn
    sets = {"train": "train", "valid": "val", "test": "test"}
    assert all(row["split"] == sets[row["source"].partition("/")[0]] for row in rows)


@pytest.mark.parametrize("altered", ["{}_flip", "{}-rot90", "{}_aug{{}}", "{}_png.rf.{{}}a1b2c3"])
def test_altered_copies_stay_with_their_image(altered: str, init: Callable[..., Any], tmp_path: Path) -> None:
    first = "{}_png.rf.f00" if ".rf." in altered else "{}"
    for number in range(12):
        for at, name in enumerate((first, altered)):
            called = name.format("abcdefghijkl"[number]).format(at)
            draw_image(tmp_path / "s" / ("no", "yes")[number % 2] / f"{called}.png")
    _, rows, _ = init(tmp_path / "s")
    assert [len(of) for of in homes(rows).values()] == [1] * 12


def test_a_folder_of_copies_is_no_class_without_a_question(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(12):
        for folder in (("no", "yes")[number % 2], "thumbnails"):
            draw_image(tmp_path / "s" / folder / f"{'abcdefghijkl'[number]}.png")
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "The images in the folders thumbnails are called as those of the other classes" in answer.err


def test_a_table_of_answers_is_no_table_of_labels(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(30):
        draw_image(tmp_path / "s" / ("train" if number < 10 else "test") / f"k{number}.png")
    table(tmp_path / "s", "id,label", [f"k{n},{n % 2}" for n in range(10)], "train.csv")
    table(tmp_path / "s", "id,label", [f"k{n},{n % 3 // 2}" for n in range(10, 30)], "sample_submission.csv")
    manifest, rows, _ = init(tmp_path / "s")
    assert labels(manifest, rows) == {f"train/k{n}.png": str(n % 2) for n in range(10)}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "train: images/train\nnames: [benign, 'mitosis']\nnc: 2\n"),
        ("data.yaml", "names:\n  0: benign\n  1: mitosis  # dividing\nnc: 2\n"),
        ("data.yml", 'nc: 2\r\nnames:\r\n- benign\r\n- "mitosis"\r\n'),
        ("labels/classes.txt", "benign\nmitosis\n"),
        ("obj.names", "benign\nmitosis"),
    ],
)
def test_files_of_yolo_and_the_names_of_their_classes(
    init: Callable[..., Any], tmp_path: Path, file: str, text: str
) -> None:
    draw_yolo(tmp_path / "s")
    (tmp_path / "s" / file).write_bytes(text.encode())
    manifest, rows, answer = init(tmp_path / "s")
    assert manifest["classes"] == ["benign", "mitosis"]
    assert {(row["source"].rpartition("/")[2], row["split"], row["label"]) for row in rows} == {
        (f"{n}.png", "val" if n % 3 == 2 else "train", n % 2) for n in range(9)
    }
    assert "1 x empty file of YOLO, whose image shows nothing" in answer.err + answer.out


@pytest.mark.parametrize("text", ["", "names: [benign]\n", "names: [a, a]\n", "names: {0: benign}\n"])
def test_classes_of_yolo_that_nothing_names_are_asked_about(
    init: Callable[..., Any], tmp_path: Path, text: str
) -> None:
    draw_yolo(tmp_path / "s")
    if text:
        (tmp_path / "s" / "data.yaml").write_text(text)
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "are the numbers 0, 1, and no data.yaml or classes.txt here names them" in answer.err


def test_poses_of_yolo_are_not_taken_for_outlines(init: Callable[..., Any], tmp_path: Path) -> None:
    draw_yolo(tmp_path / "s")
    (tmp_path / "s" / "data.yaml").write_text("kpt_shape: [3, 2]\nnames: [benign, mitosis]\n")
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "data.yaml states key points (kpt_shape): files of poses are not read" in answer.err


def draw_yolo(folder: Path) -> None:
    """Nine images of one box each, in the sets train and val, and one without any."""
    for number in range(10):
        split = "val" if number % 3 == 2 else "train"
        draw_image(folder / "images" / split / f"{number}.png", 128)
        path = folder / "labels" / split / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number % 2} 0.5 0.5 0.25 0.25\n" if number < 9 else "")


def test_an_archive_for_each_set_is_called_without_its_ending(init: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for at, part in enumerate(("train", "test")):
        with zipfile.ZipFile(tmp_path / "s" / f"{part}.zip", "w") as archive:
            for number in range(8):
                image = io.BytesIO()
                Image.new("RGB", (8, 8), (number, at, 0)).save(image, "PNG")
                archive.writestr(f"{('no', 'yes')[number % 2]}/{part[0]}{'abcdefgh'[number]}.png", image.getvalue())
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["classes"] == ["no", "yes"]
    assert {(row["source"].split("/")[0], row["split"] == "test") for row in rows} == {
        ("train.zip", False),
        ("test.zip", True),
    }
    assert labels(manifest, rows) == {row["source"]: row["source"].split("/")[1] for row in rows}


def test_a_column_that_may_number_patients_is_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(20):
        draw_image(tmp_path / "s" / f"{number}.png")
    table(tmp_path / "s", "Datei,Gruppe", [f"{n}.png,Pat{n // 4}" for n in range(20)])
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "The column 'Gruppe' of labels.csv may number patients or groups (Pat0 4, Pat1 4" in answer.err


def test_tables_that_differ_about_images_are_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    for n in range(12):
        draw_image(tmp_path / "s" / f"{n}.png")
    table(tmp_path / "s", "file,label", [f"{n}.png,{'ab'[n % 2]}" for n in range(12)])
    table(tmp_path / "s", "file,label", [f"{n}.png,{'ab'[n % 2 or n == 4]}" for n in range(12)], "second.csv")
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "labels.csv and second.csv differ about the same images in the column 'label'" in answer.err


def test_a_table_of_patients_whose_numbers_are_also_names_of_images_is_joined(
    init: Callable[..., Any], tmp_path: Path
) -> None:
    for n in range(1, 25):
        draw_image(tmp_path / "s" / f"{n:05}.png", value=n)
    table(tmp_path / "s", "Bild,PatientenNr,Klinik", [f"{n:05},{(n + 3) // 4:04},{n % 2}" for n in range(1, 25)])
    table(tmp_path / "s", "PatientenNr,Grad", [f"{n:04},{'I' * (n % 3 + 1)}" for n in range(1, 7)], "patienten.csv")
    manifest, rows, _ = init(tmp_path / "s")
    assert (manifest["kind"], manifest["group"]["kind"]) == ("ordinal", "patient")
    assert labels(manifest, rows) == {f"{n:05}.png": "I" * ((n + 3) // 4 % 3 + 1) for n in range(1, 25)}
    assert max(map(len, homes(rows).values())) == 1


def test_a_table_of_paths_of_another_machine_is_named(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(8):
        draw_image(tmp_path / "s" / "img" / f"{number}.png")
    table(tmp_path / "s", "path,label", [f"/home/me/img/{n}.png,{'ab'[n % 2]}" for n in range(8)])
    manifest, *_ = init(tmp_path / "s")
    assert manifest["layout"] == {"file": "{path}", "label": "label"}
    (tmp_path / "drafted" / "my.toml").unlink()
    table(tmp_path / "s", "path,label", [f"image {n},{'ab'[n % 2]}" for n in range(8)])
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "no column names the images as they are called here: labels.csv (path, label)" in answer.err


def test_tables_that_cannot_be_read_are_named(dpconvert: Call, tmp_path: Path) -> None:
    """A line of a title before the head, and a second sheet that holds rows."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("Cohort of 2024\nfile,label\na.png,x\nb.png,y\n")
    book = openpyxl.Workbook()
    for title in ("now", "old"):
        book.create_sheet(title).append(["file", "label"])
    book.save(tmp_path / "more.xlsx")
    answer = dpconvert("init", tmp_path, "--out", tmp_path / "my.toml", "-q")
    assert answer.code == 1
    assert "labels.csv: its first row must name two columns or more; found Cohort of 2024" in answer.err
    assert "more.xlsx: several sheets hold rows; found now, old" in answer.err


@pytest.mark.parametrize("name", ["labels.json", "labels.csv.gz", "labels.xls", "list.txt"])
def test_files_that_may_hold_labels_in_another_form_are_named(name: str, dpconvert: Call, tmp_path: Path) -> None:
    for image in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / image)
    (tmp_path / name).write_text('{"file_name": "a.png", "label": 1}\n{"file_name": "b.png", "label": 2}\n')
    (tmp_path / "README.txt").write_text("Images of cells.\n")
    answer = dpconvert("init", tmp_path, "--out", tmp_path / "my.toml", "-q")
    assert answer.code == 1
    assert f"1 file that may hold labels, in a form that is not read for them: {name}. If so, save" in answer.err


def test_a_table_that_contradicts_itself_is_not_ready(dpconvert: Call, tmp_path: Path) -> None:
    for number in range(8):
        draw_image(tmp_path / "s" / f"{number}.png")
    lines = [f"{n}.png,{label}" for n in range(8) for label in ("a", "b")]
    table(tmp_path / "s", "file,label", lines)
    answer = dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml")
    assert answer.code == 1
    assert "0.png is listed twice, with different values" in answer.err
    assert "conversion would fail; then: dpconvert check" in answer.err


def test_labels_that_differ_in_case_alone_are_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(12):
        draw_image(tmp_path / "s" / f"{number}.png")
    table(tmp_path / "s", "file,label", [f"{n}.png,{('Tumor', 'tumor', 'other')[n % 3]}" for n in range(12)])
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "Classes whose names differ in little (Tumor and tumor)" in answer.err


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        (("a", "b", "N/A"), r"read as if no label were known \('N/A'\).*skip = \[\"N/A\"\]"),
        (("a", "-", "?"), r"read as if no label were known \('-', '\?'\)"),
        (("1", "0", "1.0"), r"differ in little \(1 and 1.0\)"),
        (("1", "0", "TRUE"), r"differ in little \(1 and TRUE\)"),
    ],
)
def test_labels_that_may_be_none_or_one_are_asked_about(
    init: Callable[..., Any], tmp_path: Path, values: tuple[str, ...], asked: str
) -> None:
    for number in range(12):
        draw_image(tmp_path / "s" / f"{number}.png")
    table(tmp_path / "s", "file,label", [f"{n}.png,{values[n % 3]}" for n in range(12)])
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert re.search(asked, answer.err)


def test_numbers_of_either_sign_are_different_classes(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(12):
        draw_image(tmp_path / "s" / f"{number}.png")
    table(tmp_path / "s", "file,label", [f"{n}.png,{n % 3 - 1}" for n in range(12)])
    manifest, _, _ = init(tmp_path / "s")
    assert set(manifest["classes"]) == {"-1", "0", "1"}


def test_a_folder_that_reads_as_missing_is_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(12):
        draw_image(tmp_path / "s" / ("tumour", "normal", "unknown")[number % 3] / f"{number}.png")
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "('unknown'): if so, take them out of `classes` and out of the pattern of [files.images]" in answer.err


def test_labels_may_be_numbers_that_a_program_wrote_as_decimals(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(12):
        draw_image(tmp_path / "s" / f"{number}.png")
    table(tmp_path / "s", "file,label,score", [f"{n}.png,{float(n % 2)},{n / 7}" for n in range(12)])
    manifest, rows, _ = init(tmp_path / "s")
    assert labels(manifest, rows) == {f"{n}.png": f"{n % 2}" for n in range(12)}


@pytest.mark.parametrize(
    ("head", "shown", "kind", "classes"),
    [
        ("isup", ["1", "2.0", "3", "4", "5"], "ordinal", ["1", "2", "3", "4", "5"]),
        ("Grade", ["G1", "G2", "G3"], "ordinal", ["G1", "G2", "G3"]),
        ("her2_status", ["2+", "0", "1+", "3+"], "ordinal", ["0", "1+", "2+", "3+"]),
        ("gleason", ["3+4", "4+3", "3+3", "5+4"], "classification", ["3+3", "3+4", "4+3", "5+4"]),
        ("grade", ["high", "low"], "classification", ["low", "high"]),
        ("grade", ["III", "I", "II"], "ordinal", ["I", "II", "III"]),
        ("stage", ["IIIB", "IV", "I", "IIIA"], "ordinal", ["I", "IIIA", "IIIB", "IV"]),
        ("differentiation", ["poor", "well", "moderate"], "ordinal", ["well", "moderate", "poor"]),
        (
            "Grade",
            ["High-grade", "Low-grade", "Intermediate-grade"],
            "ordinal",
            ["Low-grade", "Intermediate-grade", "High-grade"],
        ),
        ("her2", ["1+", "negative", "3+", "2+"], "ordinal", ["negative", "1+", "2+", "3+"]),
        ("label", ["Grade 2", "Grade 1", "Grade 3"], "ordinal", ["Grade 1", "Grade 2", "Grade 3"]),
        ("grade", ["G1", "II", "G3"], "classification", ["G1", "G3", "II"]),
        ("grade", ["normal", "benign", "low", "high"], "classification", ["benign", "high", "low", "normal"]),
    ],
)
def test_grades_are_ordered_where_their_names_tell(
    head: str, shown: list[str], kind: str, classes: list[str], init: Callable[..., Any], tmp_path: Path
) -> None:
    drawn(tmp_path / "s", head, lambda n: shown[n % len(shown)])
    manifest, _, answer = init(tmp_path / "s")
    assert (manifest["kind"], manifest["classes"]) == (kind, classes)
    told = "holds grades: scores will be" if kind == "ordinal" else "may hold grades"
    assert (f"note: The column {head!r} {told}" in answer.out) == (len(shown) > 2)


def test_names_that_may_be_grades_are_listed_in_their_order(init: Callable[..., Any], tmp_path: Path) -> None:
    drawn(tmp_path / "s", "label", lambda n: ("III", "I", "II")[n % 3])
    manifest, _, answer = init(tmp_path / "s")
    assert (manifest["kind"], manifest["classes"]) == ("classification", ["I", "II", "III"])
    assert "note: The classes of the column 'label' read as grades, and are listed in that order" in answer.out


@pytest.mark.parametrize(
    ("folders", "kind"),
    [
        (["high", "intermediate", "low"], "ordinal"),
        (["Grade_3", "Grade_2", "Grade_1"], "ordinal"),
        (["III", "II", "I"], "classification"),
        (["G3", "G2", "G1"], "classification"),
    ],
)
def test_folders_of_grades(folders: list[str], kind: str, init: Callable[..., Any], tmp_path: Path) -> None:
    for label in folders:
        for number in range(4):
            draw_image(tmp_path / "s" / label / f"{label}_{number}.png")
    manifest, rows, _ = init(tmp_path / "s")
    assert (manifest["kind"], manifest["classes"]) == (kind, folders[::-1])
    assert labels(manifest, rows) == {row["source"]: row["source"].partition("/")[0] for row in rows}


@pytest.mark.parametrize("head", ["", "Unnamed: 0", "...1", "index"])
def test_the_index_of_a_data_frame_is_no_label(head: str, init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(ROWS):
        draw_image(tmp_path / "s" / f"{number}.png")
    rows = [f"{n * 7 % 61},{n}.png,{'a' * (n + 1)}" for n in range(ROWS)]
    table(tmp_path / "s", f"{head},file,comment", rows)
    manifest, answer, _ = init(tmp_path / "s", ready=False)
    assert "value" not in manifest["layout"], answer.out


def test_comments_of_a_table_are_no_rows(init: Callable[..., Any], tmp_path: Path) -> None:
    drawn(tmp_path / "s", "dx", lambda n: "ab"[n % 2])
    path = tmp_path / "s" / "labels.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join(["# exported by us, version 2, checked", "#", head, *rows[:5], "# more", *rows[5:]]))
    manifest, found, answer = init(tmp_path / "s")
    assert labels(manifest, found) == {f"{n}.png": "ab"[n % 2] for n in range(ROWS)}
    assert "3 comments of labels.csv passed over" in answer.err + answer.out


def test_a_table_names_images_in_archives_as_if_they_were_unpacked(init: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for archive in ("one", "two"):
        draw_image(tmp_path / archive / "1.png", value=len(archive))
        with zipfile.ZipFile(tmp_path / "s" / f"{archive}.zip", "w") as packed:
            for n in range(6):
                draw_image(tmp_path / archive / f"{n}.png", value=n)
                packed.write(tmp_path / archive / f"{n}.png", f"a/{n}.png")
    table(tmp_path / "s", "file,dx", [f"{a}/a/{n}.png,{'xy'[n % 2]}" for a in ("one", "two") for n in range(6)])
    manifest, rows, _ = init(tmp_path / "s")
    assert labels(manifest, rows) == {f"{a}.zip/a/{n}.png": "xy"[n % 2] for a in ("one", "two") for n in range(6)}


ROWS = 24
TISSUES = ["tumour|stroma", "tumour", "stroma|fat", "none", "fat"]


def drawn(folder: Path, head: str, row: Callable[[int], str]) -> None:
    """Images, and labels.csv with their names and what `row` says of each."""
    for number in range(ROWS):
        draw_image(folder / f"{number}.png")
    table(folder, f"file,{head}", [f"{number}.png,{row(number)}" for number in range(ROWS)])


def test_a_column_of_decimals_is_a_number_to_predict(init: Callable[..., Any], tmp_path: Path) -> None:
    drawn(tmp_path / "s", "ki67,comment", lambda n: f"{n / 7:.3f},seen {n}" if n else "NA,bad")
    manifest, rows, answer = init(tmp_path / "s")
    assert (manifest["kind"], "classes" in manifest) == ("regression", False)
    assert {row["source"]: row["value"] for row in rows} == {f"{n}.png": float(f"{n / 7:.3f}") for n in range(1, ROWS)}
    assert "note: The column 'ki67' holds numbers (0.143 to 3.286, 23 different ones), not classes" in answer.out


def test_many_whole_numbers_are_no_classes(init: Callable[..., Any], tmp_path: Path) -> None:
    drawn(tmp_path / "s", "cells", lambda n: str(n * n % 61))
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["kind"] == "regression"
    assert {row["source"]: row["value"] for row in rows} == {f"{n}.png": n * n % 61 for n in range(ROWS)}


@pytest.mark.parametrize("name", ["mitoses", "isup"])
def test_few_whole_numbers_are_asked_about_or_reported(name: str, dpconvert: Call, tmp_path: Path) -> None:
    drawn(tmp_path / "s", name, lambda n: str(n % 5))
    answer = dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml")
    assert answer.code == (name == "mitoses")
    if name == "mitoses":
        assert (
            "'mitoses' holds whole numbers (0, 1, 2, 3, 4): if they are measured or counted, state kind = "
            in answer.err
        )
    else:
        assert "note: The column 'isup' holds grades: scores will be the quadratic kappa" in answer.out


def test_several_columns_of_0_and_1_are_classes_that_an_image_may_have(
    init: Callable[..., Any], tmp_path: Path
) -> None:
    drawn(tmp_path / "s", "tumour,fat", lambda n: f"{n % 2},{int(n % 3 == 0)}")
    manifest, rows, answer = init(tmp_path / "s")
    assert (manifest["kind"], manifest["classes"]) == ("multilabel", ["tumour", "fat"])
    assert {row["source"]: row["labels"] for row in rows} == {
        f"{n}.png": [0] * (n % 2) + [1] * (n % 3 == 0) for n in range(ROWS)
    }
    assert "note: 2 columns hold 0 and 1 (tumour, fat): an image has any number of these classes." in answer.out


@pytest.mark.parametrize("separator", ["|", ";"])
def test_a_column_of_labels_between_separators(separator: str, init: Callable[..., Any], tmp_path: Path) -> None:
    drawn(tmp_path / "s", "tissue", lambda n: TISSUES[n % 5].replace("|", separator))
    manifest, rows, _ = init(tmp_path / "s")
    assert (manifest["kind"], manifest["classes"]) == ("multilabel", ["fat", "stroma", "tumour"])
    for row in rows:
        stated = TISSUES[int(row["source"].removesuffix(".png")) % 5].split("|")
        assert [manifest["classes"][number] for number in row["labels"]] == sorted(set(stated) - {"none"})


@pytest.mark.parametrize("separator", [", ", "/", " + ", "&"])
def test_separators_that_names_may_hold_count_where_each_label_is_alone_too(
    separator: str, init: Callable[..., Any], tmp_path: Path
) -> None:
    tissues = [["fat"], ["stroma", "fat"], ["stroma"], ["tumour"], ["tumour", "stroma", "fat"]]
    drawn(tmp_path / "s", "tissue", lambda n: f'"{separator.join(tissues[n % 5])}"')
    manifest, rows, _ = init(tmp_path / "s")
    assert (manifest["kind"], manifest["classes"]) == ("multilabel", ["fat", "stroma", "tumour"])
    for row in rows:
        stated = tissues[int(row["source"].removesuffix(".png")) % 5]
        assert [manifest["classes"][number] for number in row["labels"]] == sorted(stated)


def test_a_comma_in_the_name_of_a_class_divides_nothing(init: Callable[..., Any], tmp_path: Path) -> None:
    tissues = ["DCIS, low", "DCIS, high", "DCIS", "none of these"]
    drawn(tmp_path / "s", "tissue", lambda n: f'"{tissues[n % 4]}"')
    manifest, _, answer = init(tmp_path / "s")
    assert manifest["classes"] == sorted(tissues)
    assert "note: Cells of the column 'tissue' may hold several labels" in answer.out


def test_of_two_columns_of_numbers_none_is_taken(init: Callable[..., Any], tmp_path: Path) -> None:
    drawn(tmp_path / "s", "er,pr", lambda n: f"{n / 7:.3f},{n / 3:.3f}")
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "Several columns hold numbers: er, pr. For one of them as the label, state kind = " in answer.err


@pytest.mark.parametrize(
    "place",
    [
        "im{0}.png | im{0}_mask_{1}.png",
        "im{0}.png | im{0}_{1}_mask.png",
        "img/im{0}.tif | masks/im{0}-{1}.png",
        "images/im{0}.png | masks/im{0}/{1}.png",
        "im{0}/images/im{0}.png | im{0}/masks/{0}{1}abc.png",
        "case {0}/image.png | case {0}/masks/{1}.png",
    ],
)
def test_a_mask_for_each_object(place: str, init: Callable[..., Any], tmp_path: Path) -> None:
    """The first patch of the odd images holds two objects, and the JSON the pixels of each."""
    image, mask = place.split(" | ")
    for number in range(6):
        draw_image(tmp_path / "s" / image.format(number), 32)
        for part in range(1, 3):
            values = np.zeros((32, 32), np.uint8)
            values[:10, 10 * part : 10 * part + 8] = 255 * (number % 2)
            (path := tmp_path / "s" / mask.format(number, part)).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["layout"]["objects"] is True
    assert {row["source"]: row["label"] for row in rows} == {image.format(n): n % 2 for n in range(6)}
    seen = {fields["files"][0]: fields["instances"] for fields in samples(tmp_path / "out")}
    bars = [[run for y in range(10) for run in (32 * y + left, 8)] + [0] for left in (10, 20)]
    assert seen == {image.format(n): bars * (n % 2) for n in range(6)}


@pytest.mark.parametrize(
    "place",
    [
        "images/{}.png | labels/{}.png",
        "{}.png | {}_cp_masks.png",
        "train/{}_img.png | train/{}_masks.png",
        "images/{}_raw.png | masks/{}.png",
        "{}.tif | {}.labels.png",
        "t/{} [x=0,y=0,w=64,h=64].png | t/{} [x=0,y=0,w=64,h=64]-labelled.png",
        "{}.png | {}_Object Identities.png",
        "testA_{}.png | testA_{}_anno.png",
    ],
)
def test_masks_whose_values_number_objects(place: str, init: Callable[..., Any], tmp_path: Path) -> None:
    """As Cellpose, StarDist, QuPath and ilastik name them."""
    image, mask = place.split(" | ")
    for number in range(6):
        draw_image(tmp_path / "s" / image.format(number), 64)
        values = np.zeros((64, 64), np.uint16)
        for one in range(3 + number):
            values[8 * one : 8 * one + 8, :40] = one + 1  # they touch
        (path := tmp_path / "s" / mask.format(number)).parent.mkdir(exist_ok=True)
        Image.fromarray(values).save(path)
    manifest, _, _ = init(tmp_path / "s")
    assert manifest["layout"]["objects"] == "values"
    seen = {fields["files"][0]: len(fields["instances"]) for fields in samples(tmp_path / "out")}
    assert seen == {image.format(number): 3 + number for number in range(6)}


def test_masks_whose_colours_tell_objects_apart(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(6):
        draw_image(tmp_path / "s" / "images" / f"{number}.png", 64)
        values, colours = np.zeros((64, 64, 3), np.uint8), np.random.default_rng(number)
        for one in range(3 + number):
            values[8 * one : 8 * one + 8, :40] = colours.integers(1, 256, 3)
        (path := tmp_path / "s" / "masks" / f"{number}.png").parent.mkdir(exist_ok=True)
        Image.fromarray(values).save(path)
    manifest, _, _ = init(tmp_path / "s")
    assert manifest["layout"]["objects"] == "colours"
    seen = {fields["files"][0]: len(fields["instances"]) for fields in samples(tmp_path / "out")}
    assert seen == {f"images/{number}.png": 3 + number for number in range(6)}


def test_words_for_images_and_masks_are_no_classes(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(6):
        draw_image(tmp_path / "s" / f"{number}_img.png", 64)
        draw_image(tmp_path / "s" / f"{9 - number}0_masks.png", 64)
    manifest, answer, _ = init(tmp_path / "s", ready=False)
    assert "classes" not in manifest
    assert "What the class of an image is: nothing in their names" in answer.err


def samples(out: Path) -> Iterator[dict[str, Any]]:
    """The JSON of every sample."""
    for path in out.glob("*/*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    yield json.load(tar.extractfile(member))  # type: ignore[arg-type]


# --- points, masks, outlines, projects


def test_points_of_a_file_for_each_image(init: Callable[..., Any], tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for number in range(9):
        draw_image(tmp_path / "s" / "images" / f"{number}.png", 96)
        kinds = ["mitosis", "other", "other"][: number % 3 + 1]
        counts.update(kinds)
        table(
            tmp_path / "s" / "points",
            "x,y,label",
            [f"{40 + 5 * i},50,{k}" for i, k in enumerate(kinds)],
            f"{number}.csv",
        )
    manifest, rows, _ = init(tmp_path / "s")
    assert Counter(manifest["classes"][row["label"]] for row in rows) == counts


def test_points_without_a_head_are_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(6):
        draw_image(tmp_path / "s" / f"{number}.png", 96)
        (tmp_path / "s" / f"{number}.csv").write_text("40,50\n60,70\n")
    _, answer, checked = init(tmp_path / "s", ready=False)
    assert "0.csv has no head that says which column is x and which y" in answer.err
    assert checked.code == 1


def test_points_of_one_table_in_micrometres(init: Callable[..., Any], tmp_path: Path) -> None:
    """As QuPath exports measurements; a pixel of these images is 0.5 um."""
    lines = ["Image\tClass\tCentroid X µm\tCentroid Y µm"]
    for number in range(6):
        (tmp_path / "s").mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (200, 200, 3), np.uint8)
        scale = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(tmp_path / f"s/{number}.tif", pixels, photometric="rgb", **scale)
        lines += [f"{number}.tif\t{'Tumor' if x > 30 else 'Stroma'}\t{x}.5\t50.5" for x in (24, 32, 40)]
    (tmp_path / "s/measurements.tsv").write_text("\n".join(lines))
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["layout"]["unit"] == "um"
    assert {(row["x"], row["y"], manifest["classes"][row["label"]]) for row in rows} == {
        (17, 69, "Stroma"),
        (33, 69, "Tumor"),
        (49, 69, "Tumor"),
    }


@pytest.mark.parametrize("ending", [".csv", "_detections.csv", " Detections.tsv"])
@pytest.mark.parametrize(("unit", "of_pixel"), [("µm", 0.5), ("px", 1.0)])
def test_a_table_of_points_beside_each_image_has_a_head_of_any_words(
    ending: str, unit: str, of_pixel: float, init: Callable[..., Any], tmp_path: Path
) -> None:
    """As QuPath exports the measurements of one image; a pixel of these images is 0.5 um."""
    mark = "\t" if ending.endswith("tsv") else ","
    for number in (1, 2, 3, 10, 11, 12):
        (tmp_path / "s").mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (200, 200, 3), np.uint8)
        scale = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(tmp_path / f"s/{number}.tif", pixels, photometric="rgb", **scale)
        lines = [mark.join(("Image", "Name", "Class", f"Centroid X {unit}", f"Centroid Y {unit}"))]
        for x in (49, 65, 81):
            lines += [mark.join((f"{number}.tif", "", "ab"[x > 60], str(x * of_pixel), str(101 * of_pixel)))]
        (tmp_path / f"s/{number}{ending}").write_text("\n".join(lines), "utf-8")
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["layout"].get("unit") == ("um" if unit == "µm" else None)
    found = [(row["x"] + 32, row["y"] + 32, manifest["classes"][row["label"]]) for row in rows]
    assert Counter(found) == {(49, 101, "a"): 6, (65, 101, "b"): 6, (81, 101, "b"): 6}


def test_points_of_one_table(init: Callable[..., Any], tmp_path: Path) -> None:
    lines = []
    for number in range(9):
        draw_image(tmp_path / "s" / f"{number}.png", 96)
        lines += [f"{number}.png,{40 + i},50,{'ab'[i % 2]}" for i in range(4)]
    table(tmp_path / "s", "image,X,Y,class", lines)
    manifest, rows, _ = init(tmp_path / "s")
    assert Counter(manifest["classes"][row["label"]] for row in rows) == {"a": 18, "b": 18}


JSON_POINTS: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "keys": lambda of: {name: [{"x": x, "y": y, "class": c} for x, y, c in some] for name, some in of.items()},
    "keys, lists": lambda of: {name: [list(one) for one in some] for name, some in of.items()},
    "keys of objects": lambda of: {
        name: {"id": 7, "points": [{"cx": x, "cy": y, "kind": c} for x, y, c in some]} for name, some in of.items()
    },
    "list of lists": lambda of: [
        {"file": name, "cells": [{"x": x, "y": y, "label": c} for x, y, c in some]} for name, some in of.items()
    ],
    "list of points": lambda of: {
        "points": [{"img": name, "x": x, "y": y, "type": c} for name, some in of.items() for x, y, c in some]
    },
}


@pytest.mark.parametrize("form", JSON_POINTS)
def test_points_of_one_json_file(form: str, init: Callable[..., Any], tmp_path: Path) -> None:
    """The last image has no point, and all forms but the last one say so."""
    of = {f"{n}.png": [(20 + n, 30, "a"), (40, 20 + n, "b"), (30, 30, "ab"[n % 2])] * (n < 5) for n in range(6)}
    for name in of:
        draw_image(tmp_path / "s" / "images" / name, 100)
    (tmp_path / "s" / "points.json").write_text(json.dumps(JSON_POINTS[form](of)))
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["layout"]["missing"] == (True if form == "list of points" else "none")
    found = {(row["source"], row["x"] + 32, row["y"] + 32, manifest["classes"][row["label"]]) for row in rows}
    shifted = {(f"images/{name}", max(x, 32), max(y, 32), c) for name, some in of.items() for x, y, c in some}
    assert found == shifted


@pytest.mark.parametrize("several", [1, 3])
def test_boxes_of_one_table(init: Callable[..., Any], tmp_path: Path, several: int) -> None:
    lines = []
    for number in range(9):
        draw_image(tmp_path / "s" / f"{number}.png", 128)
        lines += [f"{number}.png,128,128,{'ab'[(number + i) % 2]},{30 + 9 * i},40,90,80" for i in range(several)]
    table(tmp_path / "s", "filename,width,height,class,xmin,ymin,xmax,ymax", lines)
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["shape"] == "points"
    assert len(rows) == 9 * several


@pytest.mark.parametrize("head", ["x,y", "cx,cy", "nucleus_x,nucleus_y", "col,row", "Centroid X px,Centroid Y px"])
def test_coordinates_of_one_row_per_image_are_asked_about_if_they_lie_within_it(
    init: Callable[..., Any], tmp_path: Path, head: str
) -> None:
    for number in range(9):
        draw_image(tmp_path / "s" / f"{number}.png", 128)
    table(tmp_path / "s", f"image,{head},label", [f"{n}.png,{10 * n},40,{'ab'[n % 2]}" for n in range(9)])
    _, answer, _ = init(tmp_path / "s", ready=False)
    x, y = head.split(",")
    assert f"The columns '{x}' and '{y}' of" in answer.err


def test_a_column_of_sets_is_known_by_its_values_and_is_no_class(init: Callable[..., Any], tmp_path: Path) -> None:
    sets, lines = ["Training", "Validierung", "Test"], []
    for number in range(18):
        draw_image(tmp_path / "s" / f"{number}.png")
        lines.append(f"{number}.png,{number % 2},{number // 2 % 2},{sets[number % 3]}")
    table(tmp_path / "s", "Datei,Tumor,Stroma,Satz", lines)
    manifest, rows, _ = init(tmp_path / "s")
    assert (manifest["kind"], manifest["classes"]) == ("multilabel", ["Tumor", "Stroma"])
    assert {row["source"]: row["split"] for row in rows} == {
        f"{number}.png": ["train", "val", "test"][number % 3] for number in range(18)
    }


def test_coordinates_beyond_the_images_are_places_on_slides(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(9):
        draw_image(tmp_path / "s" / f"{number}.png", 128)
    table(tmp_path / "s", "image,x,y,label", [f"{n}.png,{1000 * n},40,{'ab'[n % 2]}" for n in range(9)])
    manifest, rows, answer = init(tmp_path / "s")
    assert (manifest["shape"], len(rows)) == ("table", 9)
    assert "taken for places of the images on their slides" in answer.out


def test_a_pair_of_columns_with_x_and_y_in_their_names_holds_points(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(9):
        draw_image(tmp_path / "s" / f"{number}.png", 128)
    lines = [f"{n},{40 + n},{30 + n * 5 + i * 20},{'ab'[(n + i) % 2]}" for n in range(9) for i in range(2)]
    table(tmp_path / "s", "image,nucleus_y,nucleus_x,label", lines)
    _, rows, _ = init(tmp_path / "s")
    found = {(row["source"], row["x"] + 32, row["y"] + 32) for row in rows}
    assert found == {(f"{n}.png", max(30 + n * 5 + i * 20, 32), 40 + n) for n in range(9) for i in range(2)}


@pytest.mark.parametrize(
    "place",
    [
        "images/{}.png | masks/{}_mask.png",
        "{}.png | {}_mask.png",
        "{}.bmp | {}.png",
        "P{}.png | Mask of P{}.png",
        "P{} x.png | P{} x (mask).png",
        "P{}.png | gt/gt_P{}.png",
        "img_{}.png | mask_{}.png",
        "images/image{}.png | masks/mask{}.png",
        "{}_sat.png | {}_mask.png",
        "imagesTr/case_{}_0000.png | labelsTr/case_{}.png",
        "img/{}.png | lab/{}.png",
        "a/1/{}.png | b/1/{}.png",
    ],
)
def test_masks_beside_images(init: Callable[..., Any], tmp_path: Path, place: str) -> None:
    image, mask = place.split(" | ")
    full = set()
    for number in range(6):
        draw_image(tmp_path / "s" / image.format(number), 512)
        values = np.zeros((512, 512), np.uint8)
        if number % 2:
            values[:256, :256] = 255
            full.add((image.format(number), 0, 0))
        (tmp_path / "s" / mask.format(number)).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(tmp_path / "s" / mask.format(number))
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["classes"] == ["background", "object"]
    assert {(row["source"], row["x"], row["y"]) for row in rows if row["label"]} == full
    assert len(rows) == 24


def test_channels_in_files_of_their_own_are_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(6):
        for channel in range(3):
            draw_image(tmp_path / "s" / "imagesTr" / f"c_{number}_000{channel}.png", 64)
        (path := tmp_path / "s" / "labelsTr" / f"c_{number}.png").parent.mkdir(exist_ok=True)
        Image.fromarray(np.eye(64, dtype=np.uint8)).save(path)
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "12 files such as imagesTr/c_0_0001.png may be further channels of images, as nnU-Net keeps" in answer.err


def test_a_csv_file_of_via_is_no_table_of_images(init: Callable[..., Any], tmp_path: Path) -> None:
    """One region an image, so that each image is named once."""
    lines = []
    for number in range(6):
        draw_image(tmp_path / "s" / f"{number}.png", 64)
        box = f'"{{""name"":""rect"",""x"":5,""y"":6,""width"":{7 + number},""height"":8}}"'
        lines.append(f'{number}.png,9,"{{}}",1,0,{box},"{{""type"":""{"ab"[number % 2]}""}}"')
    head = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    table(tmp_path / "s", head, lines)
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["shape"] == "slides"
    assert {(row["source"], manifest["classes"][row["label"]], row["width"]) for row in rows} == {
        (f"{number}.png", "ab"[number % 2], 7 + number) for number in range(6)
    }


def test_a_word_for_masks_in_the_names_is_no_class(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(6):
        for word in ("he", "mask"):
            draw_image(tmp_path / "s" / f"tile_{number}_{word}.png")
    manifest, _, _ = init(tmp_path / "s", ready=False)
    assert "classes" not in manifest


def test_the_patches_of_a_draft_fit_images_that_are_small(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(6):
        draw_image(tmp_path / "s" / "images" / f"{number}.png", 64)
        (tmp_path / "s" / "masks").mkdir(exist_ok=True)
        values = np.full((64, 64), 255 * (number % 2), np.uint8)
        Image.fromarray(values).save(tmp_path / "s" / "masks" / f"{number}.png")
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["rule"]["size"] == 64
    assert {row["source"] for row in rows if row["label"]} == {f"images/{number}.png" for number in (1, 3, 5)}


def test_a_draft_holds_nothing_that_its_conversion_does_not_use(dpconvert: Call, tmp_path: Path) -> None:
    lines = ["image,label,patient"]
    for number in range(9):
        draw_image(tmp_path / "s" / f"{number}.png", 20)
        lines.append(f"{number}.png,{'ab'[number % 2]},p{number // 2}")
    (tmp_path / "s" / "labels.csv").write_text("\n".join(lines))
    assert dpconvert("init", tmp_path / "s", "--out", tmp_path / "s.toml").code == 0
    answer = dpconvert(tmp_path / "s.toml", "--source", tmp_path / "s", "--out", tmp_path / "out", "-q")
    assert answer.code == 0
    assert "not used" not in answer.out + answer.err


def geojson(boxes: list[tuple[str, int, int, int]]) -> str:
    def feature(label: str, x: int, y: int, side: int) -> dict[str, Any]:
        ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
        return {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": label}},
        }

    return json.dumps({"type": "FeatureCollection", "features": [feature(*box) for box in boxes]})


def test_outlines_of_several_labels_become_crops(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(6):
        draw_image(tmp_path / "s" / f"P{number}.tif", 256)
        drawn = [("Tumor", 10, 10, 50), ("Immune", 100, 100, 30)]
        (tmp_path / "s" / f"P{number}.geojson").write_text(geojson(drawn))
    manifest, rows, _ = init(tmp_path / "s")
    assert Counter((manifest["classes"][row["label"]], row["width"]) for row in rows) == {
        ("Tumor", 50): 6,
        ("Immune", 30): 6,
    }


@pytest.mark.parametrize(
    "place",
    [
        "P{}_annotations.json",
        "P{} annotations.json",
        "a/P{}-polygons.geojson",
        "P{}.png.json",
        "P{}_Annotations.geojson",
    ],
)
def test_outlines_in_files_with_more_in_their_names(place: str, init: Callable[..., Any], tmp_path: Path) -> None:
    for number in (1, 2, 10, 11):
        draw_image(tmp_path / "s" / f"P{number}.png", 64)
        (path := tmp_path / "s" / place.format(number)).parent.mkdir(exist_ok=True)
        path.write_text(geojson([("a", 2, 2, number), ("b", 2, 2, 20 + number)]))
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["shape"] == "slides"
    boxes = {(row["source"], manifest["classes"][row["label"]], row["width"]) for row in rows}
    assert boxes == {(f"P{n}.png", label, side) for n in (1, 2, 10, 11) for label, side in (("a", n), ("b", 20 + n))}


def test_a_file_of_annotations_per_label_states_the_label(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in (1, 2, 10, 11):
        draw_image(tmp_path / "s" / f"P{number}.png", 64)
        for side, label in ((number, "tumour"), (20 + number, "stroma")):
            content = geojson([("a", 2, 2, side)]).replace('"a"', '""')
            (tmp_path / f"s/P{number}_{label}.geojson").write_text(content)
    manifest, rows, _ = init(tmp_path / "s")
    boxes = {(row["source"], manifest["classes"][row["label"]], row["width"]) for row in rows}
    sides = (("tumour", 0), ("stroma", 20))
    assert boxes == {(f"P{n}.png", label, side + n) for n in (1, 2, 10, 11) for label, side in sides}


def test_two_drawings_of_one_image_are_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in (1, 2, 10, 11):
        draw_image(tmp_path / "s" / f"P{number}.png", 64)
        for reader in "AB":
            (tmp_path / f"s/P{number}_reader_{reader}.geojson").write_text(geojson([("a", 2, 2, 8)]))
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "An image has several files of annotations (reader_A, reader_B)" in answer.err


def test_outlines_without_labels_are_named_in_the_draft(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(6):
        draw_image(tmp_path / f"hub/images/{number}.png", 64)
        (tmp_path / f"hub/{number}.json").write_text(json.dumps([[[8, 8], [24, 8], [24, 28], [8, 28]]]))
    manifest, rows, _ = init(tmp_path / "hub")
    assert manifest["layout"]["labels"] == {"": "object"}
    assert manifest["classes"] == ["object"]
    assert [(row["x"], row["y"], row["width"], row["height"]) for row in rows] == [(8, 8, 16, 20)] * 6


def test_a_coco_file_of_images(init: Callable[..., Any], tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "gland"}, {"id": 2, "name": "vessel"}],
    }
    for number in range(6):
        draw_image(tmp_path / "s" / "images" / f"{number}.png", 128)
        content["images"].append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 128})
        for at in (1, 2):
            box = [10 * at, 20, 30, 40]
            content["annotations"].append({"id": number * 2 + at, "image_id": number, "category_id": at, "bbox": box})
    (tmp_path / "s" / "instances.json").write_text(json.dumps(content))
    manifest, rows, _ = init(tmp_path / "s")
    assert Counter(manifest["classes"][row["label"]] for row in rows) == {"gland": 6, "vessel": 6}
    assert {(row["x"], row["y"], row["width"], row["height"]) for row in rows} == {(10, 20, 30, 40), (20, 20, 30, 40)}


def test_coco_files_of_sets_that_name_images_alike(init: Callable[..., Any], tmp_path: Path) -> None:
    lefts = {"train": 8, "valid": 16, "test": 24}
    for split, left in lefts.items():
        for number in range(3):
            draw_image(tmp_path / "s" / "images" / split / f"{number}.png", side=64)
        boxes = [(number, label, left) for number in range(3) for label in (1, 2)]
        content = {
            "images": [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 64} for n in range(3)],
            "categories": [{"id": 1, "name": "nucleus"}, {"id": 2, "name": "mitosis"}],
            "annotations": [
                {"id": n, "image_id": image, "category_id": label, "bbox": [x, 20 * label, 8, 8]}
                for n, (image, label, x) in enumerate(boxes)
            ],
        }
        (tmp_path / "s" / f"instances_{split}.json").write_text(json.dumps(content))
    _, rows, _ = init(tmp_path / "s")
    assert len(rows) == 18
    for row in rows:
        split = row["source"].split("/")[1]
        assert (row["split"], row["x"]) == ({"valid": "val"}.get(split, split), lefts[split])


def test_folders_of_sets_with_a_year_are_sets(init: Callable[..., Any], tmp_path: Path) -> None:
    """As those of COCO, whose names would pass for those of patients."""
    for split, left in {"train2017": 8, "val2017": 16}.items():
        content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "categories": [{"id": 1, "name": "nucleus"}, {"id": 2, "name": "mitosis"}],
            "annotations": [],
        }
        for number in range(4):
            name = f"{split}_{number}.png"
            draw_image(tmp_path / "s" / "images" / split / name, side=64)
            content["images"].append({"id": number, "file_name": name, "width": 64, "height": 64})
            box = {"id": number, "image_id": number, "category_id": number % 2 + 1, "bbox": [left, 20, 8, 8]}
            content["annotations"].append(box)
        (tmp_path / "s" / f"instances_{split}.json").write_text(json.dumps(content))
    manifest, rows, _ = init(tmp_path / "s")
    assert manifest["group"]["kind"] == "image"
    expected = {
        (f"{s}_{n}.png", s[:-4], x, ("nucleus", "mitosis")[n % 2])
        for s, x in (("train2017", 8), ("val2017", 16))
        for n in range(4)
    }
    found = {(r["source"].split("/")[-1], r["split"], r["x"], manifest["classes"][r["label"]]) for r in rows}
    assert found == expected


def test_folders_beside_annotations_are_no_classes(init: Callable[..., Any], tmp_path: Path) -> None:
    for folder, number in itertools.product("ab", range(4)):
        draw_image(tmp_path / "s" / folder / f"{folder}{number}.png", 96)
        boxes = [("tumour", 10, 10, 8 + number), ("stroma", 50, 50, 9)]
        (tmp_path / "s" / folder / f"{folder}{number}.geojson").write_text(geojson(boxes))
    manifest, rows, answer = init(tmp_path / "s")
    assert manifest["classes"] == ["stroma", "tumour"]
    assert Counter(row["width"] for row in rows if row["label"] == 1) == {8: 2, 9: 2, 10: 2, 11: 2}
    assert "Not used: folder 1 of the path (a, b)" in answer.out


def test_folders_beside_annotations_without_labels_are_asked_about(init: Callable[..., Any], tmp_path: Path) -> None:
    for folder, number in itertools.product("ab", range(4)):
        draw_image(tmp_path / "s" / folder / f"{folder}{number}.png", 96)
        text = geojson([("x", 10, 10, 8)]).replace('"classification"', '"other"')
        (tmp_path / "s" / folder / f"{folder}{number}.geojson").write_text(text)
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "folder 1 of the path (a, b) may name a class" in answer.err


@pytest.mark.parametrize("word", ["overlay", "HE2"])
def test_a_second_image_of_each_name_is_asked_about(word: str, init: Callable[..., Any], tmp_path: Path) -> None:
    for label, number in itertools.product(("benign", "malignant"), range(6)):
        draw_image(tmp_path / "s" / label / f"{number}.png")
        draw_image(tmp_path / "s" / label / f"{number}_{word}.png")
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert f"12 files such as benign/0_{word}.png are called as another image" in answer.err


@pytest.mark.parametrize("place", ["{}_{}.png", "{}/{}.png"])
def test_names_like_those_of_sets_are_no_classes(place: str, init: Callable[..., Any], tmp_path: Path) -> None:
    """As GlaS calls its sets."""
    for name, number in itertools.product(("train", "testA", "testB"), range(6)):
        draw_image(tmp_path / "s" / place.format(name, number))
    manifest, _, _ = init(tmp_path / "s", ready=False)
    assert "classes" not in manifest


def test_the_name_of_a_folder_is_read_as_utf_8(tmp_path: Path) -> None:
    """As under an ASCII locale, where Python gives its bytes as surrogates."""
    name = "m\udcc3\udcb6re"
    assert draft.task_name(tmp_path / name) == draft.task_name(tmp_path / "möre") == "More"


def test_slides_of_several_formats_are_all_drafted(init: Callable[..., Any], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    for number, name in enumerate(("a/1.svs", "a/2.ome.tif", "b/3.svs", "b/4.ome.tif")):
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        more: dict[str, Any] = {"ome": True} if "ome" in name else {"description": "Aperio Image Library v1|MPP = 0.5"}
        tifffile.imwrite(tmp_path / "s" / name, pixels + number, tile=(128, 128), photometric="rgb", **more)
    _, rows, _ = init(tmp_path / "s")
    assert {row["source"] for row in rows} == {"a/1.svs", "a/2.ome.tif", "b/3.svs", "b/4.ome.tif"}


def test_files_of_a_program_that_is_not_read_are_named(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(4):
        draw_image(tmp_path / "s" / f"{number}.png", 64)
        (tmp_path / "s" / f"{number}.json").write_text(json.dumps({"objects": [], "size": {"height": 64}}))
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "Supervisely" in answer.err


def test_an_export_of_cytomine(init: Callable[..., Any], tmp_path: Path) -> None:
    source = draw_fake(find("human-lba"), tmp_path)
    manifest, rows, _ = init(source)
    assert manifest["shape"] == "cytomine"
    assert len(rows) > 10
    assert set(manifest["layout"]["labels"].values()) == set(manifest["classes"])


# --- the file and the answers


def test_nothing_is_converted_while_a_draft_says_that_it_is_not_ready(dpconvert: Call, tmp_path: Path) -> None:
    for number in range(12):
        draw_image(tmp_path / "s" / ("tumour", "normal", "unknown")[number % 3] / f"{number}.png")
    path = tmp_path / "my.toml"
    dpconvert("init", tmp_path / "s", "--out", path)
    given = (path, "--source", tmp_path / "s")
    for answer in (dpconvert(*given, "--out", tmp_path / "out"), dpconvert("check", *given)):
        assert answer.code == 1
        assert re.search(r"my\.toml: line \d says NOT READY; settle what the comments below that line ask", answer.err)
    assert not (tmp_path / "out").exists()
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "NOT READY" not in line))
    assert dpconvert("check", *given).code == 0
    assert dpconvert(*given, "--out", tmp_path / "out", "--workers", 1).code == 0


def test_an_existing_manifest_is_not_overwritten(dpconvert: Call, tmp_path: Path) -> None:
    for number in range(8):
        draw_image(tmp_path / "s" / "ab"[number % 2] / f"{number}.png")
    (tmp_path / "my.toml").write_text("mine")
    told = one_line(dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml"))
    assert "exists already; choose another --out, or --overwrite" in told
    assert (tmp_path / "my.toml").read_text() == "mine"
    assert dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml", "--overwrite").code == 0


def test_the_answer_as_json(dpconvert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        draw_image(tmp_path / "my set" / "ab"[number % 2] / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    answer = dpconvert("init", "my set", "--json")
    told = json.loads(answer.out)
    assert (told["manifest"], told["ready"], told["shape"], told["questions"]) == ("my-set.toml", True, "folders", [])
    assert told["check"]["classes"] == ["a", "b"]


@pytest.mark.parametrize(("content", "told"), [("", "no files"), ("notes.txt", "1 .txt"), ("a.kfb", "1 .kfb")])
def test_a_folder_without_images_is_refused(dpconvert: Call, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "s").mkdir()
    if content:
        (tmp_path / "s" / content).write_text("x")
    assert f"no images here that can be read; found {told}" in one_line(
        dpconvert("init", tmp_path / "s", "--out", tmp_path / "x.toml")
    )
    assert not (tmp_path / "x.toml").exists()


def test_a_folder_that_is_none_is_refused(dpconvert: Call, tmp_path: Path) -> None:
    told = one_line(dpconvert("init", tmp_path / "none", "--out", tmp_path / "x.toml"))
    assert told.endswith("none: no such folder; expected a folder of images or slides, with their labels")


# --- real data


def real(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"needs {DATA / name}")
    return DATA / name


def test_a_real_table_with_padded_numbers_beside_masks(
    init: Callable[..., Any], tmp_path: Path, dpconvert: Call
) -> None:
    folder = real("wbc")
    manifest, answer, _ = init(folder, ready=False)
    assert manifest["layout"]["slide"] == "{image ID:03}.bmp"
    assert "The masks hold 3 values (0, 128, 255), and nothing says what they are called" in answer.err
    path = tmp_path / "drafted" / "my.toml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("#")))
    answer = dpconvert(path, "--source", folder, "--out", tmp_path / "out", "--limit", 20, "--workers", 1)
    assert answer.code == 0, answer.err
    rows = list(read_index(next((tmp_path / "out").glob("*/index.parquet"))).to_pylist())
    with (folder / "Class Labels of Dataset 1.csv").open() as file:
        told = {f"Dataset 1/{int(row['image ID']):03}.bmp": row["class label"] for row in csv.DictReader(file)}
    assert len(rows) > 50
    assert labels(manifest, rows) == {row["source"]: told[row["source"]] for row in rows}


def test_real_folders_with_slides_in_the_names(init: Callable[..., Any]) -> None:
    folder = real("breakhis/resized_224px")
    manifest, rows, _ = init(folder, "--limit", 10)
    assert labels(manifest, rows) == {row["source"]: row["source"].split("/")[0] for row in rows}
    slides = {path.stem.rpartition("_")[0] for path in folder.rglob("*.png")}
    assert homes(rows).keys() <= slides
    assert {len(found) for found in homes(rows).values()} == {1}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ami_br", "majority_atypical (False 350, True 350)"),
        ("breakhis/BreaKHis_v1", "(benign, malignant); folder 5"),
        ("bm_graz", "which column is x and which y"),
        ("slides", "No annotations are here that can be read"),
        ("warwick_crc", "may hold labels or annotations"),
    ],
)
def test_what_real_folders_leave_open_is_asked(init: Callable[..., Any], name: str, told: str) -> None:
    _, answer, checked = init(real(name), ready=False)
    assert told in answer.err
    assert checked.code == 1 or name == "warwick_crc"


def test_numbered_folds_are_no_labels(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(10):
        draw_image(tmp_path / "s" / "ab"[number % 2] / f"{number}.png")
    table(tmp_path / "s", "image,fold", [f"{n}.png,{n // 2}" for n in range(10)])
    manifest, answer, _ = init(tmp_path / "s", ready=False)
    assert (manifest["shape"], manifest["classes"]) == ("folders", ["a", "b"])
    assert "numbers folds (0 2, 1 2, 2 2, 3 2, 4 2), and nothing says which of them are train" in answer.err
    assert 'sets = {image = "image", split = "fold"}' in answer.err
    for path in (tmp_path / "s").rglob("*.png"):
        path.rename(tmp_path / "s" / path.name)
    (tmp_path / "drafted" / "my.toml").unlink()
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "What the class of an image is: nothing in their names" in answer.err
    assert "no column names the images" not in answer.err


def test_folds_beside_labels_are_said(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(10):
        draw_image(tmp_path / "s" / f"{number}.png")
    table(tmp_path / "s", "image,label,kfold", [f"{n}.png,{'xy'[n % 2]},{n // 2 + 1}" for n in range(10)])
    manifest, _, answer = init(tmp_path / "s")
    assert (manifest["shape"], manifest["layout"]["label"]) == ("table", "label")
    assert "The column 'kfold' of labels.csv numbers folds (1 2, 2 2, 3 2, 4 2, 5 2)" in answer.out
    assert 'say split = "kfold"' in answer.out


def test_annotations_of_a_program_that_is_not_read_are_named(init: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(6):
        draw_image(tmp_path / "s" / f"{number}.png")
    (tmp_path / "s" / "all.json").write_text('{"items": [], "categories": {}}')
    _, answer, _ = init(tmp_path / "s", ready=False)
    assert "1 file of a program that is not read: all.json: a file of Datumaro" in answer.err


def test_slides_of_a_format_that_is_not_read_are_named(tmp_path: Path, dpconvert: Call) -> None:
    for number in range(12):
        draw_image(tmp_path / "s" / "ab"[number % 2] / f"{number}.png")
    (tmp_path / "s/scan.kfb").write_bytes(b"x")
    answer = dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml", "-q")
    assert "1 slide in a format that is not read (KFBio), the first: scan.kfb" in answer.out
    assert "`raw2ometiff --rgb SLIDE.zarr SLIDE.ome.tif`" in answer.out
