"""`dpconvert check`: what a conversion would stumble on is found before it, and its counts are the conversion's."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from dpconvert import card as cards
from dpconvert.card import SPLITS
from tests.dpconvert.conftest import EVERY_SOURCE, Answer, Converted

Call = Callable[..., Answer]
FOLDERS = 'task = "Mine"\nshape = "folders"\nclasses = ["no", "yes"]\n'


def draw_image(path: Path, value: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(path)


@pytest.fixture
def mine(tmp_path: Path, dpconvert: Call) -> Callable[[str], tuple[Answer, Answer]]:
    """`mine(text)` writes my.toml; what `check` and the conversion of tmp_path/source then say."""

    def both(text: str) -> tuple[Answer, Answer]:
        (tmp_path / "my.toml").write_text(text)
        given = tmp_path / "my.toml", "--source", tmp_path / "source"
        checked = dpconvert("check", *given)
        return checked, dpconvert(*given, "--out", tmp_path / "out", "--overwrite", "--workers", 1, "-q")

    return both


def groups_of(folder: Path, count: int = 12) -> None:
    for number in range(count):
        draw_image(folder / ("yes" if number % 2 else "no") / f"P{number // 4}_{number}.png", number)


def test_check_shows_ten_files_with_what_their_names_say_and_the_counts_of_the_conversion(
    mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path
) -> None:
    groups_of(tmp_path / "source")
    pattern = "[files.images]\npattern = '(?P<class>no|yes)/(?P<name>(?P<group>P\\d)_\\d+)[.]png$'\n"
    checked, made = mine(FOLDERS + pattern + "[split.strict]\nshare = [1, 1, 1]\n")
    assert (checked.code, made.code) == (0, 0)
    lines = [line.split() for line in checked.out.splitlines()]
    shown = [line for line in lines if line and line[0].endswith(".png") and len(line) == 5]
    assert len(shown) == 10
    assert shown[0][:4] == ["no/P0_0.png", "P0_0", "P0", "no"]
    card = cards.load(tmp_path / "out" / "Mine")
    for label, name in enumerate(card.classes):
        assert [name, *(str(card.splits[split].classes[label]) for split in SPLITS)] in lines
    assert "no problem found in 12 images of 3 groups;" in checked.out
    assert card.group_kind == "group"
    assert "groups" in [line[0] for line in map(str.split, made.out.splitlines()) if line]
    assert json.loads(samples_of(tmp_path / "out" / "Mine")[0])["group_kind"] == "group"


def samples_of(task: Path) -> list[bytes]:
    """The JSON of every sample of a training set."""
    with tarfile.open(task / "train-000000.tar") as tar:
        return [tar.extractfile(one).read() for one in tar if one.name.endswith(".json")]  # type: ignore[union-attr]


def test_images_that_nothing_groups_are_groups_of_their_own(
    mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path
) -> None:
    groups_of(tmp_path / "source")
    checked, made = mine(FOLDERS + "[files.images]\npattern = '(?P<class>no|yes)/(?P<name>[^/]+)[.]png$'\n")
    assert (checked.code, made.code) == (0, 0)
    assert "no problem found in 12 images;" in checked.out
    assert cards.load(tmp_path / "out" / "Mine").group_kind == "image"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('task = "Mine"\nshape = "table"\n', "layout.file: is missing"),
        ('task = "Mine"\nshape = "folders"\nclasses = ["no"]\n', "'yes' is not a class of this task"),
        ('task = "Mine"\nshape = "points"\n[layout]\nmissing = "none"\n', "no label is known for this image"),
        (
            FOLDERS + '[rule]\ntype = "presence"\nsize = 8\npositive = ["a"]\n',
            "rule 'presence' needs annotations, which the shape 'folders' does not read",
        ),
        (
            'task = "Mine"\nshape = "points"\n[rule]\ntype = "crop"\nsize = 8\n',
            "no points in the tables for this image|no files of points for this image",
        ),
        (FOLDERS + "[files.images]\npattern = '[.]png$'\n", "has no group .*P<class>"),
        (FOLDERS + "[files.images]\npattern = '(?P<class>no|yes)/.*(?P<name>[01])[.]png$'\n", "two images of one"),
    ],
)
def test_what_stops_a_conversion_is_found_by_check(
    mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path, text: str, told: str
) -> None:
    groups_of(tmp_path / "source")
    (tmp_path / "source" / "no" / "P0_0.csv").write_text("3,4,a\n")
    (tmp_path / "source" / "labels.csv").write_text("id,kind\n1,a\n")
    checked, made = mine(text)
    assert (checked.code, made.code) == (1, 1)
    assert re.search(told, made.err)
    assert re.search(told, checked.err)
    assert "Traceback" not in made.err + checked.err


def test_check_reads_every_image_s_annotations_and_counts_what_is_wrong(
    mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path
) -> None:
    for number in range(15):
        draw_image(tmp_path / "source" / f"{number:02}.png", number)
        (tmp_path / "source" / f"{number:02}.csv").write_text("x,y,label\n3,4,a\n" if number < 3 else "x,y\n3,four\n")
    checked, made = mine('task = "Mine"\nshape = "points"\nclasses = ["a"]\n[rule]\ntype = "crop"\nsize = 8\n')
    assert (checked.code, made.code) == (1, 1)
    problems = [line for line in checked.err.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 11
    assert problems[0].startswith("problem: 03.csv: line 2: no coordinate")
    assert problems[-1] == "problem: and 2 more such problems"


@pytest.mark.parametrize("rule", ["tiles", "presence", "area", "middle"])
def test_patches_larger_than_every_image_are_a_problem_and_than_some_a_warning(
    mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path, rule: str
) -> None:
    (tmp_path / "source").mkdir()
    for number in range(4):
        Image.new("RGB", (40, 40), (number, 9, 9)).save(tmp_path / "source" / f"no_{number}.tif")
        (tmp_path / "source" / f"no_{number}.geojson").write_text("[]")
    keys = "" if rule in ("tiles", "middle") else 'positive = ["yes"]\n' + "share = 0.5\n" * (rule == "area")
    keys += "share = 0.5\n" * (rule == "middle")
    pattern = "[files.slides]\npattern = '(?P<name>(?P<class>no)_.*)[.]tif$'\n"
    slides = f'task = "Mine"\nshape = "slides"\nclasses = ["no", "yes"]\n{pattern}[rule]\ntype = "{rule}"\n{keys}'
    checked, made = mine(slides + "size = 64\n")
    assert (checked.code, made.code) == (1, 1)
    told = (
        "problem: no image gives a sample, because all are smaller than a patch; the first: no_0.tif: 40 x 40 px, for"
    )
    assert f"{told} patches of 64 x 64\n" in checked.err
    Image.new("RGB", (70, 70)).save(tmp_path / "source" / "no_3.tif")
    checked, _ = mine(slides + "size = 64\n")
    assert "warning: 3 images smaller than a patch, the first: no_0.tif" in checked.out


MASKS = (
    'task = "Mine"\nshape = "masks"\nclasses = ["no", "yes"]\n[layout]\nvalues = {0 = "no", 255 = "yes"}\n'
    '[rule]\ntype = "area"\npositive = ["yes"]\nshare = 0.5\nsize = 8\n'
)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda data: data[: len(data) // 2], "not a readable mask"),
        (lambda data: data.replace(b"IHDR", b"IHDX"), "not a readable mask"),
        (lambda data: png_of(np.full((32, 32), 7, np.uint8)), "mask value 7 has no label"),
        (lambda data: png_of(np.zeros((32, 16), np.uint8)), "mask of another shape than its image"),
    ],
)
def test_a_mask_that_cannot_be_used_is_found_by_check_and_by_preview(
    mine: Callable[[str], tuple[Answer, Answer]], dpconvert: Call, tmp_path: Path, spoil: Any, told: str
) -> None:
    source = tmp_path / "source"
    for number in range(12):
        draw_image(source / "images" / f"{number:02}.png", number)
        (source / "masks").mkdir(exist_ok=True)
        (source / "masks" / f"{number:02}.png").write_bytes(png_of(np.full((32, 32), 255 * (number % 2), np.uint8)))
    assert mine(MASKS)[0].code == 0
    mask = source / "masks" / "11.png"
    mask.write_bytes(spoil(mask.read_bytes()))
    checked, made = mine(MASKS)
    assert (checked.code, made.code) == (1, 1)
    assert f"problem: masks/11.png: {told}" in checked.err
    drawn = dpconvert("preview", tmp_path / "my.toml", "--source", source, "--out", tmp_path / "drawn")
    assert drawn.code == 1
    assert told in drawn.err


def png_of(values: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_empty_file_is_a_problem(mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path) -> None:
    groups_of(tmp_path / "source")
    (tmp_path / "source" / "no" / "P9_9.png").write_bytes(b"")
    checked, made = mine(FOLDERS)
    assert (checked.code, made.code) == (1, 1)
    assert "problem: no/P9_9.png: an empty file" in checked.err


def test_empty_sets_are_reported_by_check_and_by_the_conversion(
    mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path
) -> None:
    for name in ("train/no/0", "train/yes/1", "test/no/2", "test/no/3"):
        draw_image(tmp_path / "source" / f"{name}.png", len(name))
    checked, made = mine(FOLDERS + "[split.strict]\nofficial = true\n")
    assert (checked.code, made.code) == (0, 0)
    for line in ("no sample in val", "no sample of class 'yes' in test"):
        assert f"warning: {line}\n" in checked.out
        assert f"note: {line}\n" in made.out


def test_a_task_of_one_class_is_warned_of(mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path) -> None:
    for number in range(6):
        draw_image(tmp_path / "source" / "yes" / f"{number}.png", number)
    checked, made = mine('task = "Mine"\nshape = "folders"\nclasses = ["yes"]\n')
    assert (checked.code, made.code) == (0, 0)
    assert "warning: one class only, 'yes': a network has nothing to tell apart here" in checked.out


def test_a_preview_of_a_source_tells_empty_sets(dpconvert: Call, tmp_path: Path) -> None:
    for name in ("train/no/0", "train/yes/1", "test/no/2"):
        draw_image(tmp_path / "source" / f"{name}.png", len(name))
    (tmp_path / "my.toml").write_text(FOLDERS + "[split.strict]\nofficial = true\n")
    given = "preview", tmp_path / "my.toml", "--source", tmp_path / "source", "--out", tmp_path / "drawn"
    told = [line for line in dpconvert(*given).out.splitlines() if line.startswith("warning: ")]
    assert told == ["warning: no sample in val", "warning: no sample of class 'yes' in test"]
    assert json.loads(dpconvert(*given, "--json").out)["warnings"] == [line.removeprefix("warning: ") for line in told]


def test_where_pixels_decide_check_says_so_and_seeks_the_classes(
    mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path
) -> None:
    box = {"type": "Polygon", "coordinates": [[[2, 2], [20, 2], [20, 20], [2, 20], [2, 2]]]}
    for number in range(4):
        draw_image(tmp_path / "source" / f"{number}.tif", number)
        shape = {"type": "Feature", "geometry": box, "properties": {"classification": {"name": "Tumor"}}}
        features = [shape] if number == 0 else []
        content = json.dumps({"type": "FeatureCollection", "features": features})
        (tmp_path / "source" / f"{number}.geojson").write_text(content)
    rule = '[rule]\ntype = "area"\nsize = 8\nshare = 0.5\npositive = ["yes"]\n[split.strict]\nshare = [1, 1, 1]\n'
    slides = 'task = "Mine"\nshape = "slides"\nclasses = ["no", "yes"]\n[layout]\nlabels = {Tumor = "yes"}\n'
    checked, made = mine(slides + rule)
    assert (checked.code, made.code) == (0, 0)
    assert "warning: class 'yes' occurs in 1 group for 3 sets" in checked.out
    checked, made = mine(slides.replace("Tumor", "Tumour") + rule)
    assert (checked.code, made.code) == (1, 1)
    assert "Tumor" in checked.err


@pytest.mark.parametrize("name", EVERY_SOURCE)
def test_check_finds_every_kind_of_file_and_agrees_with_the_conversion_of_every_source(
    name: str, dpconvert: Call, converted: Callable[[str], Converted]
) -> None:
    """On fakes, which hold fewer files than the release: what check counts are the conversion's counts."""
    source = converted(name)
    found = json.loads(dpconvert("check", name, "--source", source.source, "--json").out)
    optional = {kind.what for kind in source.manifest.files.values() if kind.optional}
    assert found["files"]
    assert [row["what"] for row in found["files"] if not row["found"] and row["what"] not in optional] == []
    assert found["problems"] == []
    made = {split: content.classes for split, content in source.card.splits.items()}
    if found["counts"] and source.manifest.rule.type != "tiles":
        assert {split: counts for split, counts in found["counts"].items() if any(counts)} == made
    assert len(found["examples"]) == min(10, found["images"])


CROPS = """task = "Mine"
shape = "slides"
classes = ["tumour", "other"]
[rule]
type = "crop"
size = 32
mpp = 0.5
[split.strict]
share = [1, 0, 0]
"""


@pytest.mark.parametrize(("label", "words"), [("", "2 x labelled ''"), ("unknown", "2 x labelled 'unknown'")])
def test_annotations_of_no_class_are_named_where_nothing_else_is_there(
    dpconvert: Call, tmp_path: Path, label: str, words: str
) -> None:
    write_tiff(tmp_path / "s/a.tif")
    corners = [[20, 20], [40, 20], [40, 40], [20, 40], [20, 20]]
    outline = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"objectType": "annotation", **({"classification": {"name": label}} if label else {})},
    }
    of_class = {**outline, "properties": {"objectType": "annotation", "classification": {"name": "Tumour"}}}
    (tmp_path / "my.toml").write_text(CROPS)
    given = tmp_path / "my.toml", "--source", tmp_path / "s"
    for features, code in (([outline] * 2, 1), ([outline] * 2 + [of_class], 0)):
        (tmp_path / "s/a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        for command in (("check", *given), (*given, "--out", tmp_path / "out", "--workers", 1)):
            answer = dpconvert(*command)
            assert answer.code == code
            assert f"annotations: {words}, which is not a class" in answer.out + answer.err


def write_tiff(path: Path) -> None:
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", resolution=(20000, 20000), resolutionunit=3)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda data: b"not an image at all", "not an image of a known format"),
        (lambda data: data[: len(data) // 2], "damaged or missing"),
        (lambda data: b"", "an empty file"),
    ],
)
def test_whole_images_that_cannot_be_opened_are_found(
    spoil: Callable[[bytes], bytes], told: str, mine: Callable[[str], tuple[Answer, Answer]], tmp_path: Path
) -> None:
    groups_of(tmp_path / "source")
    spoilt = tmp_path / "source" / "yes" / "P1_5.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(spoilt)
    spoilt.write_bytes(spoil(spoilt.read_bytes()))
    checked, made = mine(FOLDERS)
    assert (checked.code, made.code) == (1, 1)
    assert f"problem: yes/P1_5.png: {told}" in checked.err
    assert checked.err.count("problem: ") == 1
