"""Labels as people see them, files of annotations that belong to nothing, codecs that are not here."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from dpconvert.annotations.label_names import resolved
from dpconvert.errors import ReadError, SourceError
from dpconvert.image import open_image, opening
from dpconvert.image.flat import flat
from dpconvert.image.guards import jpeg2000
from dpconvert.manifest.catalog import load
from dpconvert.readers import with_defaults
from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import run

AREA = '[rule]\ntype = "area"\nsize = 16\nshare = 0.5\npositive = ["b\u00f6sartig"]\nignore = ["other"]\n'
HEAD = 'task = "Mine"\nclasses = ["no", "yes"]\n'
NFD = unicodedata.normalize("NFD", "b\u00f6sartig")


def slide(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), photometric="rgb")


def square(label: str) -> str:
    ring = [[0, 0], [32, 0], [32, 32], [0, 32], [0, 0]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": label}},
    }
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


def counts(folder: Path, text: str) -> Counter[int]:
    (folder / "m.toml").write_text(HEAD + text, encoding="utf-8")
    run(with_defaults(load(folder / "m.toml")), folder / "source", folder / "out")
    return Counter(row["label"] for row in read_index(folder / "out" / "Mine" / "index.parquet").to_pylist())


BLACK = np.zeros((16, 16, 3), np.uint8)


@pytest.mark.parametrize("label", ["b\u00f6sartig", NFD, "B\u00d6SARTIG"])
@pytest.mark.parametrize("layout", ["", 'layout = {labels = {"b\u00f6sartig" = "b\u00f6sartig"}}\n'])
def test_labels_of_annotations_are_compared_as_people_see_them(label: str, layout: str, tmp_path: Path) -> None:
    slide(tmp_path / "source/s1.tif")
    (tmp_path / "source/s1.geojson").write_text(square(label), encoding="utf-8")
    assert counts(tmp_path, 'shape = "slides"\n' + layout + AREA) == {0: 12, 1: 4}


def test_a_label_that_could_be_two_is_refused() -> None:
    assert resolved(["tumor"], ["Tumor", "tumor"], "f") == "tumor"
    assert resolved(["TUMOR", "x"], ["Tumor"], "f") == "Tumor"
    with pytest.raises(ReadError, match="unknown annotation label 'TUMOR'"):
        resolved(["TUMOR"], ["Tumor", "tumor"], "f")


def test_labels_of_points_too(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    Image.new("RGB", (64, 64), (200, 90, 90)).save(tmp_path / "source/p.png")
    (tmp_path / "source/p.csv").write_bytes("x,y,label\n10,10,YES\n40,40,no\n".encode("utf-16"))
    text = 'shape = "points"\n[rule]\ntype = "crop"\nsize = 8\n'
    assert counts(tmp_path, text + '[layout]\nlabels = {Yes = "yes", No = "no"}\n') == {0: 1, 1: 1}


@pytest.mark.parametrize("missing", ["true", '"none"'])
def test_annotations_all_of_which_belong_to_no_slide_are_an_error(missing: str, tmp_path: Path) -> None:
    slide(tmp_path / "source/s1.tif")
    (tmp_path / "source/t9.geojson").write_text(square("b\u00f6sartig"), encoding="utf-8")
    with pytest.raises(SourceError, match=r"t9.geojson: no file of annotations belongs to a slide here; .*'s1'"):
        counts(tmp_path, f'shape = "slides"\nlayout = {{missing = {missing}}}\n' + AREA)


def test_masks_of_objects_all_of_which_belong_to_no_image_are_an_error(tmp_path: Path) -> None:
    for name in ("images/a.png", "masks/b_1.png"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (32, 32), 255).save(tmp_path / "source" / name)
    text = 'shape = "masks"\nlayout = {objects = true, label = "yes", missing = "none"}\n[rule]\ntype = "crop"\n'
    with pytest.raises(SourceError, match="no mask belongs to an image here"):
        counts(tmp_path, text)


@pytest.mark.parametrize("compression", ["lerc", "jpegxl", "jpegxr"])
def test_a_codec_that_is_not_here_is_no_damage_whatever_the_size(
    compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, photometric="rgb", tile=(32, 32))
    for large in (opening.LARGE, 0):
        monkeypatch.setattr(opening, "LARGE", large)
        with (
            pytest.raises(ReadError, match=rf"unsupported compression; found {compression.upper()}; save it with"),
            open_image([tmp_path / "a.tif"]) as image,
        ):
            image.read(0, 0, 64, 64)


def test_a_large_jpeg_2000_is_a_good_file() -> None:
    """12 000 x 9 000 in colours; its head alone is looked at."""
    small = bytearray(imagecodecs.jpeg2k_encode(np.zeros((90, 120, 3), np.uint8), level=0, codecformat="j2k"))
    for at, value in ((8, 12_000), (12, 9_000), (24, 12_000), (28, 9_000)):
        small[at : at + 4] = value.to_bytes(4, "big")
    small += bytes(12_000 * 9_000 // 20)  # as compression of 60 to 1 leaves
    assert jpeg2000.claimed(bytes(small)) in range(12_000 * 9_000 * 3, 12_000 * 9_000 * 4)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp"])
def test_dots_per_inch_of_a_photograph_are_no_resolution(ending: str, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / f"a.{ending}", dpi=(25_400, 25_400))
    with open_image([tmp_path / f"a.{ending}"]) as image:
        assert image.mpp is None


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (imagecodecs.jpegxl_encode(BLACK), "JPEG XL"),
        (imagecodecs.jpegxl_encode(BLACK, usecontainer=True), "JPEG XL"),
        (imagecodecs.jpegxr_encode(BLACK), "JPEG XR"),
        (imagecodecs.avif_encode(BLACK), "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC, or a film"),
    ],
    ids=["JPEG XL", "JPEG XL in a container", "JPEG XR", "AVIF", "HEIC"],
)
def test_an_image_in_a_format_that_is_not_read_is_called_by_its_name(data: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with pytest.raises(ReadError, match=f"an image in {kind}, a format that is not read; convert these"):
        flat(path)
