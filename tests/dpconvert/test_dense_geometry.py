"""Targets stay on their images: turned files, pixels that are not square, resampled patches, formats of annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from dpconvert import card as cards
from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Answer, run
from tests.dpconvert.test_dense import REAL, masks_of, stored
from tests.dpconvert.test_resolution import slide
from tests.dpconvert.test_shape_slides import Tree, geojson

SEG = '[dense.seg]\nclasses = ["other", "tumour"]\nlabels = {Tumor = "tumour"}\nunannotated = "other"\n'
OUTLINE = [(20, 10), (70, 10), (70, 41), (20, 41)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def converted(tree: Tree, text: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Masks (empty without) and JSON of the samples, and the folder."""
    run(tree.manifest(text), tree.root, tree.folder / "out", **options)
    folder = tree.folder / "out" / "Own"
    samples = stored(folder)
    has_masks = all("seg.png" in parts for parts in samples.values())
    return masks_of(folder) if has_masks else {}, {key: json.loads(p["json"]) for key, p in samples.items()}, folder


def inside(fields: dict[str, Any], size: int) -> Any:
    """Which pixels of a square sample OUTLINE, a rectangle, covers by half at least."""

    def covered(start: int, length: int, low: int, high: int) -> Any:
        edges = start + np.arange(size + 1) * length / size
        return (np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)).clip(0) * size / length

    across = covered(fields["x"], fields["width"], 20, 70)
    down = covered(fields["y"], fields["height"], 10, 41)
    return np.outer(down, across).round(9) >= 0.5


AREA = '[rule]\ntype = "area"\npositive = ["Tumor"]\nshare = 0.5\n'


def test_pixels_that_are_not_square_have_targets_by_axis(tree: Tree) -> None:
    """0.5 by 1 um: a patch of 32 px at 1 um is a frame of 64 by 32."""
    slide(tree, 128, 64, (0.5, 1.0))
    tree.write("a.geojson", geojson(("Polygon", [[*OUTLINE]], "Tumor")))
    text = AREA + "size = 32\nmpp = 1.0\n" + SEG + '[dense.points]\nclasses = ["Tumor"]\nradius_um = 3\n'
    masks, fields, folder = converted(tree, text)
    assert len(masks) == 4
    for key, mask in masks.items():
        assert (mask == inside(fields[key], 32)).all()
    (at,) = [f["points"] for f in fields.values() if f["points"]]
    assert at == [[45 / 2, 25.5, 0]]
    assert cards.load(folder).dense.points.radius_px == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("stored_side", [16, 24, 64])
def test_resampled_patches_have_masks_of_their_size(tree: Tree, stored_side: int) -> None:
    slide(tree, 96, 64, (0.5, 0.5))
    tree.write("a.geojson", geojson(("Polygon", [[*OUTLINE]], "Tumor")))
    masks, fields, _ = converted(tree, AREA + f"size = 32\nstored = {stored_side}\n" + SEG)
    for key, mask in masks.items():
        assert mask.shape == (stored_side, stored_side)
        assert (mask == inside(fields[key], stored_side)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_targets_are_on_the_upright_image(tree: Tree, orientation: int) -> None:
    """The stored file is turned; outlines refer to the image as programs show it."""
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[10:41, 20:70] = 255
    turned = Image.fromarray(upright)
    back = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    if orientation > 1:
        turned = turned.transpose(getattr(Image.Transpose, back[orientation]))
    tree.root.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        tree.root / "a.tif",
        np.asarray(turned),
        photometric="rgb",
        metadata=None,
        extratags=[(274, "H", 1, orientation, True)],
    )
    tree.write("a.geojson", geojson(("Polygon", [[*OUTLINE]], "Tumor")))
    masks, fields, folder = converted(tree, AREA + "size = 32\n" + SEG)
    assert len(masks) == 6
    for key, parts in stored(folder).items():
        (tree.folder / "one.png").write_bytes(parts["png"])
        assert (masks[key] == (np.asarray(Image.open(tree.folder / "one.png"))[:, :, 0] == 255)).all()
        assert fields[key]["width"] == 32


def test_images_that_exif_turns_are_counted(tree: Tree) -> None:
    """Whoever drew on the pixels as stored learns that they are read as shown."""
    tree.root.mkdir(parents=True, exist_ok=True)
    for name, orientation in (("a", 3), ("b", 1), ("c", 6)):
        (exif := Image.Exif())[274] = orientation
        Image.fromarray(np.full((96, 96, 3), 90, np.uint8)).save(tree.root / f"{name}.png", exif=exif)
        tree.write(f"{name}.geojson", geojson(("Polygon", [[*OUTLINE]], "Tumor")))
    tree.manifest("[files.slides]\npattern = '(?P<name>[abc])\\.png$'\n" + AREA + "size = 32\n" + SEG)
    noted = "annotations: 2 x of an image that EXIF turns, taken as drawn on the upright image"
    assert noted in tree.plan(dense=True).notes


def test_slides_with_a_label_keep_what_is_drawn_on_them(tree: Tree) -> None:
    """Rule tiles: the label is that of the slide, the mask is that of its QuPath file."""
    slide(tree, 64, 64, (0.5, 0.5), "yes_a.tif")
    slide(tree, 64, 64, (0.5, 0.5), "no_b.tif")
    tree.write("yes_a.geojson", geojson(("Polygon", [[*OUTLINE]], "Tumor: Positive")))
    text = (
        '[rule]\ntype = "tiles"\nsize = 64\n[layout]\nmissing = "none"\n[files.slides]\n'
        "pattern = '(?P<name>(?P<class>yes|no)_.)\\.tif$'\n" + SEG
    )
    masks, fields, _ = converted(tree, text)
    by_label = {fields[key]["label_name"]: (mask, fields[key]) for key, mask in masks.items()}
    assert (by_label["yes"][0] == inside(by_label["yes"][1], 64)).all()
    assert (by_label["no"][0] == 0).all()


def test_coco_gives_polygons_with_overlaps_boxes_and_points(tree: Tree) -> None:
    slide(tree, 64, 64, (0.5, 0.5))
    tree.write(
        "all.json",
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "a.tif", "width": 64, "height": 64}],
                "categories": [{"id": 1, "name": "Tumor"}, {"id": 2, "name": "Vessel"}],
                "annotations": [
                    {
                        "id": 1,
                        "image_id": 7,
                        "category_id": 2,
                        "segmentation": [[30, 20, 50, 20, 50, 30, 30, 30]],
                        "bbox": [30, 20, 20, 10],
                    },
                    {
                        "id": 2,
                        "image_id": 7,
                        "category_id": 1,
                        "segmentation": [[20, 10, 70, 10, 70, 41, 20, 41]],
                        "bbox": [20, 10, 50, 31],
                    },
                ],
            }
        ),
    )
    both = '{Tumor = "tumour", Vessel = "vessel"}'
    text = (
        '[rule]\ntype = "area"\npositive = ["Tumor"]\nignore = ["Vessel"]\nshare = 0.5\nsize = 64\n'
        f'[dense.seg]\nclasses = ["other", "tumour", "vessel"]\nlabels = {both}\nunannotated = "other"\n'
        f'[dense.boxes]\nclasses = ["tumour", "vessel"]\nlabels = {both}\nexhaustive = true\n'
    )
    masks, fields, _ = converted(tree, text)
    ((key, mask),) = masks.items()
    wanted = inside(fields[key], 64).astype(int)
    wanted[20:30, 30:50] = 2
    assert (mask == wanted).all()
    assert fields[key]["boxes"] == [[30, 20, 50, 30, 1], [20, 10, 64, 41, 0]]


def test_crops_of_objects_have_their_masks(tree: Tree) -> None:
    slide(tree, 96, 64, (0.5, 0.5))
    tree.write("a.geojson", geojson(("Polygon", [[(20, 10), (40, 10), (40, 30)]], "yes")))
    text = '[rule]\ntype = "crop"\n[dense.seg]\nclasses = ["no", "yes"]\nunannotated = "no"\n'
    masks, _, _ = converted(tree, text)
    (mask,) = masks.values()
    assert mask.shape == (20, 20)
    assert (mask == np.triu(np.ones((20, 20)))).all()  # half of each pixel on the slanted side counts as covered


def test_a_file_that_breaks_between_plan_and_shards_is_reported(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, dpconvert: Callable[..., Answer]
) -> None:
    slide(tree, 64, 64, (0.5, 0.5))
    tree.write("a.geojson", geojson(("Polygon", [[*OUTLINE]], "Tumor")))
    tree.manifest(AREA + "size = 32\n" + SEG)
    given = tree.folder / "own.toml", "--source", tree.root, "--out", tree.folder / "out", "--workers", 1, "-q"

    def broken(*_: object) -> None:
        tree.write("a.geojson", geojson(("Polygon", [[*OUTLINE]], "Tumor"))[:-9])

    from dpconvert import conversion

    original = conversion._shards
    with monkeypatch.context() as patched:
        patched.setattr(conversion, "_shards", lambda *a: (broken(), original(*a))[1])
        answer = dpconvert(*given)
    assert answer.code == 1
    assert "a.geojson" in answer.err
    assert "Traceback" not in answer.err
    assert not (tree.folder / "out" / "Own" / "task.json").exists()


def test_real_masks_of_white_blood_cells_are_kept(tmp_path: Path, dpconvert: Callable[..., Answer]) -> None:
    """Background 0, cytoplasm 128, nucleus 255, as numpy reads them; the rule makes two classes by the nucleus."""
    source = REAL / "wbc" / "Dataset 1"
    if not source.is_dir():
        pytest.skip(f"real data are not beside the project: {source}")
    (tmp_path / "wbc.toml").write_text(
        'task = "Wbc"\nclasses = ["small", "large"]\nshape = "masks"\n'
        "[files.images]\npattern = '(?P<name>00\\d)\\.bmp$'\n[files.masks]\npattern = '(?P<name>00\\d)\\.png$'\n"
        '[layout]\nvalues = {0 = "background", 128 = "cytoplasm", 255 = "nucleus"}\n'
        '[rule]\ntype = "area"\nsize = 120\npositive = ["nucleus"]\nignore = ["background", "cytoplasm"]\nshare = 0.2\n'
        '[dense.seg]\nclasses = ["background", "cytoplasm", "nucleus"]\n'
    )
    given = tmp_path / "wbc.toml", "--source", source, "--out", tmp_path / "out", "--workers", 1, "-q"
    answer = dpconvert(*given)
    assert (answer.code, answer.err) == (0, "")
    masks = masks_of(tmp_path / "out" / "Wbc")
    rows = read_index(tmp_path / "out" / "Wbc" / "index.parquet").to_pylist()
    assert len(rows) == 9
    for row in rows:
        told = np.asarray(Image.open(source / row["source"].replace(".bmp", ".png")).convert("L"))
        crop = told[row["y"] : row["y"] + 120, row["x"] : row["x"] + 120]
        assert (masks[row["key"]] == np.select([crop == 128, crop == 255], [1, 2])).all()
        assert row["label"] == int((crop == 255).mean() > 0.2)


def test_real_points_of_bone_marrow_are_kept(tmp_path: Path, dpconvert: Callable[..., Answer]) -> None:
    source = REAL / "bm_graz"
    if not source.is_dir():
        pytest.skip(f"real data are not beside the project: {source}")
    example = Path(__file__).resolve().parents[2] / "manifests" / "examples" / "bm-graz.toml"
    answer = dpconvert(example, "--source", source, "--dense", "--out", tmp_path, "--workers", 1, "-q")
    assert (answer.code, answer.err) == (0, "")
    folder = tmp_path / "BoneMarrowNuclei"
    fields = [json.loads(parts["json"]) for parts in stored(folder).values()]
    found = {
        (Path(f["files"][0]).stem, f["x"] + x, f["y"] + y, ("1", "3")[kind])
        for f in fields
        for x, y, kind in f["points"]
    }
    told = set()
    for path in sorted(source.rglob("annotations/*.txt")):
        for line in path.read_text().splitlines()[1:]:
            x, y, kind = line.split()
            told.add((path.stem, float(x), float(y), kind))
    assert len(told) > 100
    assert found == {point for point in told if point[1] < 1200 and point[2] < 1200}
    assert cards.load(folder).dense.points.radius_px == 16  # type: ignore[union-attr]
