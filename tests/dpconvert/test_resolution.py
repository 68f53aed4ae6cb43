"""Pixels that are not square, and resolutions that users know better than files."""

from __future__ import annotations

import hashlib
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
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.errors import ManifestError, SourceError
from dpconvert.image.opening import open_image
from dpconvert.image.spacing import MAGNIFICATION
from dpconvert.manifest.catalog import load
from dpconvert.manifest.model import Manifest
from dpconvert.plan.options import Options
from dpconvert.readers import with_defaults
from tests.dpconvert.conftest import Answer, run
from tests.dpconvert.test_shape_slides import AREA, Tree, geojson

MPP = "mpp = 0.5\n[layout]\nmissing = true\n"
PER_CM = {"resolutionunit": "CENTIMETER"}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def pixels(width: int, height: int) -> NDArray[np.uint8]:
    """Smooth enough that any filter keeps it: red grows with x, green with y."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.rint(np.stack([x, y, np.full_like(x, 60)], axis=2)).astype(np.uint8)


def slide(
    tree: Tree, width: int, height: int, mpp: tuple[float, float] | None, name: str = "a.tif", **more: Any
) -> None:
    tags = {} if mpp is None else {"resolution": (1e4 / mpp[0], 1e4 / mpp[1])} | PER_CM
    (tree.root / name).parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(tree.root / name, pixels(width, height), photometric="rgb", metadata=None, **tags, **more)


def samples(folder: Path) -> list[tuple[dict[str, Any], NDArray[np.uint8]]]:
    found = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            data = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name in (name for name in data if name.endswith(".json")):
            image = Pillow.open(io.BytesIO(data[re.sub("json$", "png", name)]))
            found.append((json.loads(data[name]), np.asarray(image)))
    return found


def converted(tree: Tree, manifest: Manifest, **options: Any) -> list[tuple[dict[str, Any], NDArray[np.uint8]]]:
    run(manifest, tree.root, tree.folder / "out", **options)
    return samples(tree.folder / "out" / "Own")


@pytest.mark.parametrize("tile", [None, (64, 64)], ids=["strips", "tiles"])
@pytest.mark.parametrize("mpp", ["mpp = 1.0", ""], ids=["at a resolution", "in the file's pixels"])
def test_pixels_that_are_not_square_are_resampled_by_axis_and_annotations_stay_on_them(
    tree: Tree, mpp: str, tile: Any
) -> None:
    slide(tree, 256, 128, (0.5, 1.0), tile=tile)  # 128 x 128 um
    tree.write("a.geojson", geojson(("Polygon", [[(0, 0), (128, 0), (128, 64), (0, 64)]], "Tumor")))  # 64 x 64 um
    found = converted(tree, tree.manifest(AREA.replace("size = 128", "size = 32") + mpp + "\n"))
    assert len(found) == 16
    for told, image in found:
        assert (told["width"], told["height"]) == (64, 32)
        assert image.shape == (32, 32, 3)
        assert (told["mpp_read"], told["mpp_stored"]) == (0.5, 1.0)
        assert told["label_name"] == ("yes" if told["x"] < 128 and told["y"] < 64 else "no")
        wanted = pixels(256, 128)[told["y"] : told["y"] + 32, told["x"] : told["x"] + 64]
        halved = wanted.reshape(32, 32, 2, 3).mean(axis=2)
        assert np.abs(image - halved).max() <= 1


def test_sides_that_differ_by_less_than_two_percent_pass_for_square(tree: Tree) -> None:
    slide(tree, 256, 256, (0.2425, 0.2426))
    found = converted(tree, tree.manifest(AREA + "[layout]\nmissing = true\n"))
    assert {(told["width"], told["height"], told["stored_width"]) for told, _ in found} == {(128, 128, 128)}


def test_the_coarser_axis_decides_whether_a_slide_is_fine_enough(tree: Tree) -> None:
    slide(tree, 512, 512, (0.25, 0.6))
    tree.manifest(AREA + MPP)
    with pytest.raises(SourceError, match=r"coarser than the rule requires.*found 0\.6, as the file states"):
        tree.plan()


def test_a_whole_image_of_pixels_that_are_not_square_is_stored_square(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for label in ("no", "yes"):
        slide(tree, 40, 30, (1.0, 0.5), f"{label}/1.tif")
        slide(tree, 40, 30, (0.5, 0.5), f"{label}/2.tif")
    (tmp_path / "own.toml").write_text(
        'task = "Own"\nshape = "folders"\nclasses = ["no", "yes"]\n[split.strict]\nshare = [1, 0, 0]\n'
        "[files.images]\npattern = '(?P<name>(?P<class>[a-z]+)/\\d)\\.tif$'\n"
    )
    manifest = load(tmp_path / "own.toml")
    found = {told["files"][0]: (told, image) for told, image in converted(tree, with_defaults(manifest))}
    told, image = found["no/1.tif"]
    assert image.shape == (15, 40, 3)
    assert (told["width"], told["height"], told["mpp_read"], told["mpp_stored"]) == (40, 30, 1.0, 1.0)
    told, image = found["yes/2.tif"]
    assert (image == pixels(40, 30)).all()
    assert told["mpp_stored"] == 0.5


def test_crops_and_shifted_patches_are_square_too(tree: Tree) -> None:
    slide(tree, 256, 128, (0.5, 1.0))
    tree.write("a.geojson", geojson(("Polygon", [[(100, 40), (140, 40), (140, 60), (100, 60)]], "yes")))
    tree.manifest('[rule]\ntype = "crop"\n')
    (row,) = tree.plan().rows
    assert (row.box, row.stored) == ((100, 40, 40, 20), (20, 20))
    tree.manifest('[rule]\ntype = "objects"\nsize = 16\npositive = "yes"\nnone = "no"\ncrops = 3\n')
    shifted = [row for row in tree.plan().rows if row.label == 1]
    assert len(shifted) == 3
    for row in shifted:
        assert row.box is not None
        assert (row.box[2:], row.stored) == ((32, 16), (16, 16))
        assert row.box.x < 120 < row.box.x + 32
        assert row.box.y < 50 < row.box.y + 16


@pytest.mark.parametrize("tile", [None, (64, 64)], ids=["strips", "tiles"])
@pytest.mark.parametrize(("stated", "mpp"), [("MPP = 0.2525", 0.2525), ("MPP = 0,25", 0.25), ("AppMag = 40", None)])
def test_a_part_of_a_slide_of_aperio_s_states_its_resolution(
    tile: tuple[int, int] | None, stated: str, mpp: float | None, tmp_path: Path
) -> None:
    text = f"Aperio Image Library v11.1.9\r\n128x128 -> 128x128|Filename = 7|{stated}"
    tifffile.imwrite(
        tmp_path / "a.tif", pixels(128, 128), photometric="rgb", metadata=None, description=text, tile=tile
    )
    with open_image([tmp_path / "a.tif"]) as image:
        assert image.mpp == mpp


@pytest.mark.parametrize("tile", [None, (64, 64)], ids=["strips", "tiles"])
@pytest.mark.parametrize(
    ("magnification", "mpp", "noted"),
    [("20", 0.25, True), ("40", 0.5, True), ("40", 0.263, False), ("20", 0.502, False), ("2,5", 0.25, True)],
)
def test_a_magnification_that_contradicts_the_resolution_is_noted(
    tile: tuple[int, int] | None, magnification: str, mpp: float, noted: bool, tmp_path: Path
) -> None:
    text = f"Aperio Image Library v11.1.9\r\n128x128 -> 128x128|AppMag = {magnification}|MPP = {mpp}"
    tifffile.imwrite(
        tmp_path / "a.svs", pixels(128, 128), photometric="rgb", metadata=None, description=text, tile=tile
    )
    with open_image([tmp_path / "a.svs"]) as image:
        assert (image.mpp, MAGNIFICATION in image.notes) == (mpp, noted)
        image.restate(1.0)
        assert (image.mpp, image.notes) == (1.0, ())


# what users know better


def test_an_override_goes_before_what_the_file_states(tree: Tree) -> None:
    slide(tree, 512, 512, (0.635, 0.635))
    found = converted(tree, tree.manifest(AREA + MPP), mpp_override=0.25)
    assert len(found) == 4
    assert {(told["width"], told["mpp_read"], told["mpp_stored"]) for told, _ in found} == {(256, 0.25, 0.5)}


def test_the_manifest_may_override_too_and_within_sane_bounds_only(
    tree: Tree, dpconvert: Callable[..., Answer]
) -> None:
    slide(tree, 512, 512, (0.635, 0.9))
    path = tree.folder / "own.toml"
    tree.manifest(AREA + MPP)
    path.write_text("mpp_override = 0.25\n" + path.read_text())
    found = converted(tree, with_defaults(load(path)))
    assert {(told["width"], told["height"]) for told, _ in found} == {(256, 256)}
    for absurd in (250, "nan", "inf"):
        assert dpconvert(path, "--source", tree.root, "--mpp-override", absurd).code == 2
    path.write_text("mpp_override = 250\n" + path.read_text().partition("\n")[2])
    with pytest.raises(ManifestError, match="mpp_override"):
        load(path)


def test_a_resolution_that_is_given_and_not_used_is_reported(tree: Tree) -> None:
    slide(tree, 512, 512, (0.5, 0.5))
    slide(tree, 512, 512, None, "b.tif")
    tree.manifest(AREA + MPP)
    assert [note for note in tree.plan(mpp=0.25).notes if "--mpp" in note] == [
        "--mpp 0.25 is not used where a file states its own resolution (1 of 2 images); "
        "--mpp-override 0.25 replaces what files state"
    ]
    assert not [note for note in tree.plan(mpp_override=0.25).notes if "--mpp" in note]
    tree.manifest(AREA + MPP.replace("0.5", "0.4"))
    with pytest.raises(SourceError, match=r"found 0\.5, as the file states \(and 0\.4, which was given, is for files"):
        tree.plan(mpp=0.4)


def test_patches_of_one_size_in_pixels_at_several_resolutions_are_reported(tree: Tree) -> None:
    slide(tree, 512, 512, (0.5, 0.5))
    slide(tree, 512, 512, (0.25, 0.25), "b.tif")
    tree.manifest(AREA + "[layout]\nmissing = true\n")
    noted = "patches of 128 pixels cover different areas: files state 0.25 to 0.5 micrometres per pixel; `mpp`"
    assert [note[: len(noted)] for note in tree.plan().notes if "different areas" in note] == [noted]
    assert not [note for note in tree.plan(mpp_override=0.5).notes if "different areas" in note]
    tree.manifest(AREA + MPP)
    assert not [note for note in tree.plan().notes if "different areas" in note]


def test_a_conversion_of_an_earlier_version_goes_on_where_no_override_is_given(tree: Tree) -> None:
    manifest = tree.manifest(AREA)
    before = Options().model_dump()
    del before["mpp_override"], before["dense"]
    assert json.loads(Options().text()) == before
    newer = {"mpp_override", "dense", "unit", "reader", "file_names"}
    said = manifest.model_dump_json(exclude={"path", "root"} | newer)
    assert manifest.digest == hashlib.sha256(said.encode()).hexdigest()
    assert Options(mpp_override=0.25).text() != Options().text()
