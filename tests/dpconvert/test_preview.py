"""Images of a slide and of samples: their colours where something must be, their sizes, their counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageColor

from dpconvert.tasks import slide_drawing as drawing
from dpconvert.tasks.slide_drawing import CLASSES, VEIL, colours_of
from tests.dpconvert.conftest import Answer, Converted
from tests.dpconvert.test_shape_slides import AREA, LEFT_HALF, OBJECTS, SIDE, Tree, geojson

REAL = Path(__file__).parents[3] / "shared" / "data" / "slides" / "cmu-1-small-region.svs"
Call = Callable[..., Answer]
OUTLINE = colours_of(["yes"], ["no", "yes"])["yes"]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def draw(tree: Tree, dpconvert: Call, *options: object) -> dict[str, Pillow.Image]:
    out = tree.folder / "preview"
    answer = dpconvert("preview", tree.folder / "own.toml", "--source", tree.root, "--out", out, "--quiet", *options)
    assert (answer.code, answer.err) == (0, "")
    files = [Path(line) for line in answer.out.splitlines() if line.endswith(".png")]
    assert sorted([*files, out / "slides.html"]) == sorted(out.iterdir())
    return {file.name: loaded(file) for file in files}


def loaded(file: Path) -> Pillow.Image:
    with Pillow.open(file) as image:
        return image.copy()


def test_patches_are_veiled_by_their_class_and_outlines_drawn_over_them(tree: Tree, dpconvert: Call) -> None:
    tree.fake.slide("a.tif", np.full((SIDE, SIDE, 3), 200, np.uint8), levels=1, mpp=0.5)
    tree.write("a.geojson", geojson(("Polygon", [LEFT_HALF], "Tumor")))
    tree.manifest(AREA)
    outline = colours_of(["Tumor"], ["no", "yes"])["Tumor"]
    image = draw(tree, dpconvert)["a.png"].convert("RGB")
    for x, label in ((64, 1), (448, 0)):
        expected = [(200 * (255 - VEIL) + c * VEIL) / 255 for c in ImageColor.getrgb(CLASSES[label])]
        assert image.getpixel((x, 64)) == pytest.approx(expected, abs=3)
        assert image.getpixel((x - 64, 300)) in (ImageColor.getrgb(CLASSES[label]), ImageColor.getrgb(outline))
    assert image.getpixel((256, 70)) == ImageColor.getrgb(outline)


def test_an_outline_has_one_colour_on_all_slides() -> None:
    """Whatever other labels a slide has; the labels of one slide differ."""
    first, second = colours_of(["Tumor", "_0", "no"], ["no", "yes"]), colours_of(["_0", "_2", "yes"], ["no", "yes"])
    assert first["_0"] == second["_0"]
    assert len({*first.values(), *second.values()}) == 5
    assert len(set(colours_of([*map(str, range(12))]).values())) == 12


def test_an_image_is_no_larger_than_requested_and_names_its_scale(tree: Tree, dpconvert: Call) -> None:
    tree.fake.slide("a.tif", tree.fake.tissue_slide(3000, 1200), mpp=0.25)
    tree.write("a.geojson", geojson(("Polygon", [LEFT_HALF], "Tumor")))
    tree.manifest(AREA)
    images = draw(tree, dpconvert)
    width, height = images["a.png"].size
    assert width == 2000
    assert 800 < height < 1100
    mask = np.asarray(images["a_tissue.png"])
    assert mask[mask.shape[0] // 2, mask.shape[1] // 2]
    assert not mask[0].any()


@pytest.mark.parametrize(
    ("mpp", "width", "drawn", "bar"),
    [
        (0.25, 97_792, 884, (72, "2 mm")),
        (0.5, 2220, 2000, (180, "200 um")),
        (None, 3000, 2000, (333, "500 px of level 0")),
    ],
)
def test_scale_bars_are_round_lengths(mpp: float | None, width: int, drawn: int, bar: tuple[int, str]) -> None:
    seen = drawing.Overview(None, None, None, [], mpp)  # type: ignore[arg-type]
    if bar[1] == "200 um":
        bar = (round(200 / 0.5 * drawn / width), "200 um")
    assert drawing._bar(seen, drawn / width, drawn) == bar


def test_there_is_a_sheet_for_each_class(tree: Tree, dpconvert: Call) -> None:
    tree.slide("a.tif")
    tree.write("a.geojson", OBJECTS)
    tree.manifest('[rule]\ntype = "presence"\nsize = 64\npositive = ["yes"]\n')
    images = draw(tree, dpconvert)
    assert set(images) == {"a.png", "a_tissue.png", "a_class_no.png", "a_class_yes.png"}
    rows = {name: (images[f"a_class_{name}.png"].height - drawing.LINE) // drawing.CELL for name in ("no", "yes")}
    assert rows == {"no": 6, "yes": 1}


def test_a_slide_is_chosen_by_name_and_the_first_annotated_one_otherwise(tree: Tree, dpconvert: Call) -> None:
    for name in "abc":
        tree.slide(f"{name}.tif")
    tree.write("b.geojson", OBJECTS)
    tree.manifest('[layout]\nmissing = "none"\n[rule]\ntype = "presence"\nsize = 64\npositive = ["yes"]\n')
    assert "b.png" in draw(tree, dpconvert)
    answer = dpconvert("preview", tree.folder / "own.toml", "--source", tree.root, "--slide", "A", "--out", tree.folder)
    assert "a.png" in answer.out
    answer = dpconvert("preview", tree.folder / "own.toml", "--source", tree.root, "--slide", "zebra")
    assert answer.code == 1
    assert "no slide named 'zebra'" in answer.err


def test_masks_and_points_are_drawn_too(tree: Tree, dpconvert: Call) -> None:
    tree.fake.slide("a.tif", np.full((SIDE, SIDE, 3), 255, np.uint8), levels=1)
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[100:200, 100:200] = 1
    tree.fake.save("a_mask.png", values)
    tree.manifest(
        '[layout]\nvalues = {0 = "no", 1 = "yes"}\n[rule]\ntype = "presence"\nsize = 512\npositive = ["yes"]\n'
    )
    image = draw(tree, dpconvert)["a.png"].convert("RGB")
    assert image.getpixel((150, 100)) == ImageColor.getrgb(OUTLINE)
    (tree.root / "a_mask.png").unlink()
    (tree.folder / "preview" / "a.png").unlink()
    tree.write("a.geojson", geojson(("Point", (150, 300), "yes")))
    image = draw(tree, dpconvert)["a.png"].convert("RGB")
    assert image.getpixel((155, 300)) == ImageColor.getrgb(OUTLINE)


@pytest.mark.parametrize("name", ["umcm-colorectal", "camelyon16", "warwick-crc", "lung", "necrosis"])
def test_every_kind_of_source_has_a_preview(
    name: str, converted: Callable[[str], Converted], dpconvert: Call, tmp_path: Path
) -> None:
    answer = dpconvert("preview", name, "--source", converted(name).source, "--out", tmp_path, "--quiet")
    assert (answer.code, answer.err) == (0, "")
    sheets = [file for file in tmp_path.iterdir() if "_class_" in file.name]
    assert len(sheets) == len(converted(name).card.classes)


def test_a_folder_that_cannot_be_written_is_a_user_s_error(tree: Tree, dpconvert: Call) -> None:
    tree.slide("a.tif")
    tree.write("a.geojson", OBJECTS)
    tree.manifest('[rule]\ntype = "presence"\nsize = 64\npositive = ["yes"]\n')
    (tree.folder / "file").write_text("")
    answer = dpconvert("preview", tree.folder / "own.toml", "--source", tree.root, "--out", tree.folder / "file")
    assert answer.code == 1
    assert "choose another --out" in answer.err


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_file(), reason="needs the real slides")
def test_the_real_slide(tree: Tree, dpconvert: Call) -> None:
    tree.write(REAL.name, REAL.read_bytes())
    ring = [[300, 300], [1500, 250], [1600, 1400], [250, 1200]]
    tree.write(
        "cmu-1-small-region.geojson",
        json.dumps(
            {"type": "Feature", "properties": {"name": "Tumor"}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        ),
    )
    tree.manifest(AREA.replace("size = 128", "size = 128\nmpp = 1\ntissue = 0.2"))
    assert draw(tree, dpconvert)["cmu-1-small-region.png"].width == 1496


def test_sheets_of_classes_whose_names_differ_in_signs_alone_are_kept_apart(tree: Tree, dpconvert: Call) -> None:
    for name, look in (("ER+", 0), ("ER-", 1)):
        for patient in "abc":
            tree.fake.save(f"{name}/{patient}.png", tree.fake.image(64, 64, look))
    text = """
        task = "Own"
        classes = ["ER+", "ER-"]
        shape = "folders"
        [files.images]
        pattern = '(?P<class>ER[+-])/(?P<name>(?P<group>.))[.]png$'
        [split.strict]
        share = [0.6, 0.2, 0.2]
        """
    (tree.folder / "own.toml").write_text(text.replace("(?P<name>(?P<group>.))", "(?P<group>.)"))
    assert len([name for name in draw(tree, dpconvert) if "_class_" in name]) == 2


def test_a_long_legend_fits_its_drawing() -> None:
    canvas = Pillow.new("RGB", (700, 50), "white")
    for text in ("tissue: 69.8%, differs by more than 3.5 from glass of L* 97", 20 * "a long name "):
        pixels = np.asarray(drawing._framed(canvas, "slide", [("red", "other: 1"), ("blue", text)], (10, "1 um")))
        assert (pixels[50:, -8:] == 255).all()
        assert (pixels[50:] < 255).any()
