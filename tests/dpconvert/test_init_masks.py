"""`dpconvert init` on folders with masks: the class of each image and each pixel of its mask are those of the files."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.dpconvert.conftest import Answer

Call = Callable[..., Answer]
SIDE = 24
Mask = NDArray[np.uint8]


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path)


def write(path: Path, mask: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def box(x: int, y: int, width: int, height: int, value: int = 255) -> Mask:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[y : y + height, x : x + width] = value
    return mask


@pytest.fixture
def convert(tmp_path: Path, dpconvert: Call) -> Callable[[Path], Any]:
    """Draft, check and convert a folder: the manifest, and file -> (name of its class, mask, number of objects)."""

    def made(folder: Path) -> Any:
        path = tmp_path / "my.toml"
        answer = dpconvert("init", folder, "--out", path, "-q")
        assert answer.code == 0, answer.out + answer.err
        manifest = tomllib.loads(path.read_text())
        done = dpconvert(path, "--source", folder, "--out", tmp_path / "out", "--workers", 1, "-q")
        assert done.code == 0, done.err
        found = {}
        for shard in (tmp_path / "out" / manifest["task"]).glob("*.tar"):
            with tarfile.open(shard) as opened:
                content = {one.name: opened.extractfile(one).read() for one in opened}  # type: ignore[union-attr]
            for name in (name for name in content if name.endswith(".json")):
                fields, key = json.loads(content[name]), name.removesuffix("json")
                mask = np.asarray(Image.open(io.BytesIO(content[key + "seg.png"])))
                found[fields["files"][0]] = (fields["label_name"], mask, len(fields.get("instances", [])))
        return manifest, found, answer

    return made


def ask(dpconvert: Call, folder: Path, tmp_path: Path) -> str:
    """What is asked of a folder, whose draft is not ready."""
    answer = dpconvert("init", folder, "--out", tmp_path / "my.toml", "-q")
    assert answer.code == 1, answer.out
    assert "NOT READY" in (tmp_path / "my.toml").read_text()
    return answer.err


@pytest.mark.parametrize(
    "place",
    [
        "{c}/{c} ({n}).png | {c}/{c} ({n})_mask{k}.png",
        "{c}/{n}.png | {c}/{n}_mask{k}.png",
        "{c}/images/{n}.png | {c}/masks/{n}{k}.png",
        "images/{c}/{n}.png | masks/{c}/{n}{k}.png",
        "data/{c}/{n}.png | data/{c}/gt/{n}_mask{k}.png",
        "segmentation/images/{c}/{n}.png | segmentation/masks/{c}/{n}{k}.png",
        "all/images/{c}/{n}.png | all/masks/{c}/{n}{k}.png",
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_folders_of_classes_with_masks(
    place: str, several: bool, convert: Callable[[Path], Any], tmp_path: Path
) -> None:
    """As in BUSI: several masks of an image are joined, and counted as objects."""
    image, of_image = place.split(" | ")
    expected = {}
    for seed, (c, n) in enumerate((c, n) for c in ("benign", "malignant") for n in range(1, 7)):
        draw(tmp_path / "s" / image.format(c=c, n=n), seed)
        masks = [box(n, 1, 4, 5 + len(c) // 2)] + [box(n, 15, 5, 3)] * (several and n == 2)
        for k, mask in enumerate(masks):
            write(tmp_path / "s" / of_image.format(c=c, n=n, k=f"_{k}" if k else ""), mask)
        expected[image.format(c=c, n=n)] = (c, np.maximum.reduce(masks) // 255, len(masks) * several)
    manifest, found, answer = convert(tmp_path / "s")
    assert (manifest["kind"], manifest["classes"]) == ("classification", ["benign", "malignant"])
    assert found.keys() == expected.keys()
    for name, (label, mask, objects) in found.items():
        assert (label, objects) == (expected[name][0], expected[name][2])
        assert (mask == expected[name][1]).all()
    assert "Folders name the class of each image (benign, malignant)" in answer.out


def test_a_class_without_masks_is_asked_about(dpconvert: Call, tmp_path: Path) -> None:
    for seed, (c, n) in enumerate((c, n) for c in ("benign", "malignant", "normal") for n in range(6)):
        draw(tmp_path / "s" / c / f"{c}{n}.png", seed)
        if c != "normal":
            write(tmp_path / "s" / c / f"{c}{n}_mask.png", box(n, 1, 4, 6))
    assert "6 images, such as normal/normal0.png, have a class and no mask" in ask(dpconvert, tmp_path / "s", tmp_path)


def test_masks_of_several_annotators_are_asked_about(dpconvert: Call, tmp_path: Path) -> None:
    for n in range(6):
        draw(tmp_path / "s" / f"{n}.png", n)
        for k in (1, 2):
            write(tmp_path / "s" / f"{n}_mask_{k}.png", box(n + k, 1, 8, 6))
    assert "marks pixels that another mask of its image marks, too" in ask(dpconvert, tmp_path / "s", tmp_path)


def test_two_images_of_one_name_do_not_share_masks(dpconvert: Call, tmp_path: Path) -> None:
    for c in "ab":
        draw(tmp_path / "s" / c / "1.png", ord(c))
        write(tmp_path / "s" / c / "1_mask.png", box(1, 1, 5, 5 + ord(c) % 2))
    (tmp_path / "my.toml").write_text(
        'task = "Mine"\nclasses = ["no", "yes"]\nshape = "masks"\n'
        "[files.images]\npattern = '(?P<name>\\d+)\\.png$'\n[files.masks]\npattern = '(?P<name>\\d+)_mask\\.png$'\n"
        '[layout]\nobjects = true\nlabel = "yes"\n[rule]\ntype = "crop"\n'
    )
    answer = dpconvert(tmp_path / "my.toml", "--source", tmp_path / "s", "--out", tmp_path / "out", "-q")
    assert answer.code == 1
    assert "b/1.png: two images of one name" in answer.err
    assert "(?P<folder>...)" in answer.err


@pytest.mark.parametrize("value", [1, 255])
def test_masks_of_two_values_are_kept(value: int, convert: Callable[[Path], Any], tmp_path: Path) -> None:
    expected = {}
    for n in range(6):
        draw(tmp_path / "s" / "images" / f"{n}.png", n)
        mask = box(0, 0, SIDE, 10 + 2 * n, value)
        write(tmp_path / "s" / "masks" / f"{n}.png", mask)
        expected[f"images/{n}.png"] = (mask > 0, "object" if 10 + 2 * n > SIDE // 2 else "background")
    _, found, _ = convert(tmp_path / "s")
    assert found.keys() == expected.keys()
    assert all((mask == expected[name][0]).all() for name, (_, mask, _) in found.items())
    assert {name: label for name, (label, _, _) in found.items()} == {name: of[1] for name, of in expected.items()}


@pytest.mark.parametrize("tested", [False, True])
def test_a_folder_of_nnunet(tested: bool, convert: Callable[[Path], Any], tmp_path: Path) -> None:
    """Classes are those of dataset.json; images of imagesTs without labels are left out, and said to be."""
    for n in range(8):
        of = "Ts" if n > 5 else "Tr"
        draw(tmp_path / "s" / f"images{of}" / f"c_{n}_0000.png", n)
        if n <= 5 or tested:
            write(tmp_path / "s" / f"labels{of}" / f"c_{n}.png", np.maximum(box(0, 0, 18, 24, 2), box(18, 0, 6, 9, 1)))
    content = {"labels": {"background": 0, "stroma": 1, "tumour": 2}, "channel_names": {"0": "R"}}
    (tmp_path / "s" / "dataset.json").write_text(json.dumps(content))
    manifest, found, answer = convert(tmp_path / "s")
    assert manifest["classes"] == ["background", "stroma", "tumour"]
    assert len(found) == (8 if tested else 6)
    assert {label for label, _, _ in found.values()} == {"tumour"}
    assert all((mask[:, :18] == 2).all() for _, mask, _ in found.values())
    assert manifest["split"]["strict"].get("official", False) is tested
    assert ("Left out: 2 images in folders without masks" in answer.out) is not tested


NAMES = {
    "label_colors.txt": "255 0 0\ttumour\n0 255 0\tstroma cells\n0 0 0\tbackground\n",
    "class_dict.csv": "name,r,g,b\ntumour,255,0,0\nstroma cells,0,255,0\nbackground,0,0,0\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ntumour:255,0,0::\nstroma cells:0,255,0::\n",
    "classes.json": json.dumps({"tumour": [255, 0, 0], "stroma cells": [0, 255, 0], "background": [0, 0, 0]}),
}
NUMBERS = {
    "names.json": json.dumps({"0": "background", "1": "tumour", "2": "stroma cells"}),
    "labels.txt": "0: background\n1: tumour\n2: stroma cells\n",
    "itk.label": '# ITK-SnAP\n0 0 0 0 0 0 0 "background"\n1 255 0 0 1 1 1 "tumour"\n2 0 255 0 1 1 1 "stroma cells"\n',
}


@pytest.mark.parametrize("file", [*NAMES, *NUMBERS])
def test_a_file_that_names_values(file: str, convert: Callable[[Path], Any], tmp_path: Path) -> None:
    values = np.maximum(box(0, 0, 15, SIDE, 2), box(18, 0, 3, SIDE, 1))
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[values]
    for n in range(6):
        draw(tmp_path / "s" / "images" / f"{n}.png", n)
        write(tmp_path / "s" / "masks" / f"{n}.png", colours if file in NAMES else values)
    (tmp_path / "s" / file).write_text((NAMES | NUMBERS)[file])
    manifest, found, answer = convert(tmp_path / "s")
    assert {label for label, _, _ in found.values()} == {"stroma cells"}
    called = np.array(manifest["dense"]["seg"]["classes"], object)
    wanted = np.array(["background", "tumour", "stroma cells"], object)[values]
    assert all((called[mask] == wanted).all() for _, mask, _ in found.values())
    assert f"What the masks' values are called is taken from {file}" in answer.out


def test_what_is_not_annotated_is_no_class(convert: Callable[[Path], Any], tmp_path: Path) -> None:
    values = np.maximum(box(0, 0, 15, SIDE, 2), box(15, 0, 9, SIDE, 1))
    for n in range(6):
        draw(tmp_path / "s" / "images" / f"{n}.png", n)
        write(tmp_path / "s" / "masks" / f"{n}.png", values)
    (tmp_path / "s" / "names.json").write_text(json.dumps({"0": "stroma", "1": "Unlabelled", "2": "tumour"}))
    manifest, found, _ = convert(tmp_path / "s")
    assert manifest["classes"] == ["stroma", "tumour"]
    assert {label for label, _, _ in found.values()} <= {"tumour"}
    assert all((mask == np.where(values == 2, 1, 255)).all() for _, mask, _ in found.values())


def test_a_file_of_the_classes_of_images_names_no_values(convert: Callable[[Path], Any], tmp_path: Path) -> None:
    for seed, (c, n) in enumerate((c, n) for c in ("benign", "malignant") for n in range(6)):
        draw(tmp_path / "s" / c / f"{n}.png", seed)
        write(tmp_path / "s" / c / f"{n}_mask.png", box(n, 1, 4, 5, 1))
    (tmp_path / "s" / "classes.json").write_text(json.dumps({"0": "Benign", "1": "Malignant"}))
    manifest, found, _ = convert(tmp_path / "s")
    assert manifest["layout"]["values"] == {"0": "background", "1": "object"}
    assert all(label == name.split("/")[0] for name, (label, _, _) in found.items())


def test_a_file_that_names_some_of_the_values_is_not_used(dpconvert: Call, tmp_path: Path) -> None:
    for n in range(6):
        draw(tmp_path / "s" / "images" / f"{n}.png", n)
        write(tmp_path / "s" / "masks" / f"{n}.png", np.maximum(box(0, 0, 9, SIDE, 3), box(9, 0, 9, SIDE, 1)))
    (tmp_path / "s" / "names.json").write_text(json.dumps({"0": "background", "1": "tumour"}))
    assert "The masks hold 3 values (0, 1, 3), and nothing says" in ask(dpconvert, tmp_path / "s", tmp_path)


def test_folders_of_patients_are_groups(convert: Callable[[Path], Any], tmp_path: Path) -> None:
    for p, n in ((p, n) for p in range(1, 6) for n in range(2)):
        draw(tmp_path / "s" / f"P{p:02}" / f"tile_{n}.png", 9 * p + n)
        write(tmp_path / "s" / f"P{p:02}" / f"tile_{n}_mask.png", box(p, n, 9, 6))
    manifest, found, _ = convert(tmp_path / "s")
    assert manifest["group"]["kind"] == "patient"
    assert all((mask == box(int(name[1:3]), int(name[-5]), 9, 6) // 255).all() for name, (_, mask, _) in found.items())
    assert "(?P<group>[^/]+)" in manifest["files"]["images"]["pattern"]


def test_masks_in_folders_of_classes_are_asked_about(dpconvert: Call, tmp_path: Path) -> None:
    for n in range(6):
        draw(tmp_path / "s" / "images" / f"{n}.png", n)
        for at, label in enumerate(("tumour", "stroma")):
            write(tmp_path / "s" / "masks" / label / f"{n}.png", box(12 * at, n, 5, 6))
    told = "Masks of one image lie in several folders (masks/stroma, masks/tumour)"
    assert told in ask(dpconvert, tmp_path / "s", tmp_path)


def test_black_on_white_is_asked_about(dpconvert: Call, tmp_path: Path) -> None:
    for n in range(6):
        draw(tmp_path / "s" / "images" / f"{n}.png", n)
        write(tmp_path / "s" / "masks" / f"{n}.png", 255 - box(3 + n, 4, 5, 6))
    assert "Black areas lie on white in the masks, such as masks/0.png" in ask(dpconvert, tmp_path / "s", tmp_path)


@pytest.mark.parametrize("form", ["ImageSets/Main/{}.txt", "dataset.json"])
def test_lists_of_sets_are_kept(form: str, convert: Callable[[Path], Any], tmp_path: Path) -> None:
    """As in Pascal VOC, and in MONAI's data lists."""
    for n in range(6):
        draw(tmp_path / "s" / "images" / f"im{n}.png", n)
        write(tmp_path / "s" / "masks" / f"im{n}.png", box(3 + n, 4, 5, 6))
    path = tmp_path / "s" / form
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "dataset.json":
        lists = {
            s: [{"image": f"./images/im{n}.png", "label": f"./masks/im{n}.png"} for n in of]
            for s, of in (("training", range(4)), ("validation", range(4, 6)))
        }
        path.write_text(json.dumps(lists))
    else:
        path.with_name("train.txt").write_text("im0\nim1\nim2\nim3\n")
        path.with_name("val.txt").write_text("im4\nim5\n")
    manifest, found, _ = convert(tmp_path / "s")
    assert (manifest["split"]["strict"], len(found)) == ({"official": True}, 6)
