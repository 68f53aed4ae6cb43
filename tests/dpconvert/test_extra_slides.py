"""Slides that optional libraries read: CZI written by Zeiss's own library, and OME-Zarr written by zarr."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from pylibCZIrw import czi

from dpconvert.errors import ReadError
from dpconvert.image import open_image
from dpconvert.image.czi import OF_SCENES
from dpconvert.image.unread import EXTRAS
from dpconvert.manifest.catalog import load
from dpconvert.readers import with_defaults
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from mtrain.predict import files_to_predict
from tests.dpconvert.conftest import Answer, run
from tests.dpconvert.test_resolution import samples

RANDOM = np.random.default_rng(3)
CZI_MANIFEST = """
task = "Czi"
shape = "slides"
classes = ["no", "yes"]
[split.strict]
share = [1, 0, 0]
[rule]
type = "area"
size = 64
positive = ["Tumor"]
share = 0.5
"""
PIXELS = RANDOM.integers(0, 256, (700, 900, 3), dtype=np.uint8)
GREY = RANDOM.integers(20_000, 65_536, (60, 80), dtype=np.uint16)


def write_czi(path: Path, *tiles: tuple[NDArray[Any], tuple[int, int]], mpp: float | None = 0.25, **plane: int) -> None:
    """Tiles (BGR or grey) at places, with a scale in metres."""
    with czi.create_czi(str(path), compression_options="zstd1:") as document:
        for number, (pixels, at) in enumerate(tiles):
            document.write(pixels, location=at, plane={"C": 0, **plane}, scene=number)
        if mpp is not None:
            document.write_metadata("slide", scale_x=mpp * 1e-6, scale_y=mpp * 1e-6)


def write_zarr(
    path: Path, version: str = "0.5", mpp: float = 0.25, unit: str = "micrometer", group: str = "", levels: int = 3
) -> None:
    """As the specification has it: axes c, y, x, levels by 2, Zarr 2 for 0.4 and 3 for 0.5."""
    form: Any = 2 if version == "0.4" else 3
    root = zarr.open_group(str(path), mode="w", zarr_format=form)
    image = root.create_group(group) if group else root
    for level in range(levels):
        pixels = np.moveaxis(halved(PIXELS, level), 2, 0)
        image.create_array(str(level), data=pixels, chunks=(3, 128, 128))
    scales = [[1.0, mpp * 2**level, mpp * 2**level] for level in range(levels)]
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": unit} for n in "yx")]
    sets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for level, scale in enumerate(scales)
    ]
    told = [{"axes": axes, "datasets": sets, "version": version}]
    image.attrs.update({"multiscales": told} if version == "0.4" else {"ome": {"version": "0.5", "multiscales": told}})


def halved(pixels: NDArray[Any], times: int) -> NDArray[Any]:
    for _ in range(times):
        height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
        blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
        pixels = blocks.mean((1, 3)).round().astype(np.uint8)
    return pixels


def test_a_czi_is_one_image_with_its_resolution(tmp_path: Path) -> None:
    """Two scenes with a gap, which is white; the left one starts at negative coordinates, as slides do."""
    blue_first = PIXELS[..., ::-1]
    write_czi(tmp_path / "a.czi", (blue_first[:, :400], (-1000, 50)), (blue_first[:, 400:], (-500, 50)))
    with open_image([tmp_path / "a.czi"]) as image:
        assert (image.width, image.height, image.mpp) == (1000, 700, 0.25)
        assert (image.read(0, 0, 400, 700) == PIXELS[:, :400]).all()
        assert (image.read(400, 0, 100, 700) == 255).all()
        assert (image.read(500, 13, 300, 17) == PIXELS[13:30, 400:700]).all()
        blocks = PIXELS[:200, :400].reshape(100, 2, 200, 2, 3).mean((1, 3))
        assert np.abs(image.read(0, 0, 400, 200, (200, 100)) - blocks).max() <= 1


def test_annotations_on_a_czi_lie_where_its_own_reader_has_the_pixels(tmp_path: Path) -> None:
    """Coordinates count from the upper left corner of the image, wherever it lies on the stage."""
    root = tmp_path / "source"
    root.mkdir()
    write_czi(root / "a.czi", (PIXELS[:512, :512, ::-1], (-1000, 50)))
    ring = [[128, 64], [256, 64], [256, 192], [128, 192], [128, 64]]
    told = {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"classification": {"name": "Tumor"}}}
    (root / "a.geojson").write_text(json.dumps([{"type": "Feature"} | told]))
    (tmp_path / "m.toml").write_text(CZI_MANIFEST)
    run(with_defaults(load(tmp_path / "m.toml")), root, tmp_path / "out")
    found = set()
    with czi.open_czi(str(root / "a.czi")) as document:
        for about, image in samples(tmp_path / "out" / "Czi"):
            x, y = about["x"], about["y"]
            assert (image == document.read(roi=(x - 1000, y + 50, 64, 64), plane={"C": 0})[..., ::-1]).all()
            found |= {(x, y)} if about["label_name"] == "yes" else set()
    assert found == {(128, 64), (192, 64), (128, 128), (192, 128)}


def test_a_czi_of_several_scenes_says_from_where_annotations_count(tmp_path: Path) -> None:
    write_czi(tmp_path / "two.czi", (PIXELS[:, :400, ::-1], (0, 0)), (PIXELS[:, 400:, ::-1], (500, 0)))
    write_czi(tmp_path / "one.czi", (PIXELS[:, :400, ::-1], (0, 0)))
    with open_image([tmp_path / "two.czi"]) as two, open_image([tmp_path / "one.czi"]) as one:
        assert (two.notes, one.notes) == ((OF_SCENES,), ())


def test_a_czi_of_grey_values_needs_a_range(tmp_path: Path) -> None:
    write_czi(tmp_path / "a.czi", (GREY[..., None], (0, 0)), mpp=None)
    with open_image([tmp_path / "a.czi"], scale=(0, 65535)) as image:
        assert image.mpp is None
        wanted = np.round(GREY / 257).astype(int)
        assert np.abs(image.read(0, 0, 80, 60).astype(int) - wanted[..., None]).max() <= 1


@pytest.mark.parametrize("axis", ["Z", "T"])
@pytest.mark.parametrize("first", [-2, 3])
def test_the_planes_of_a_czi_count_from_any_number(tmp_path: Path, axis: str, first: int) -> None:
    planes = [PIXELS[:60, :80], PIXELS[60:120, :80]]
    with czi.create_czi(str(tmp_path / "s.czi"), compression_options="zstd1:") as document:
        for number, pixels in enumerate(planes):
            document.write(pixels, plane={"C": 0, axis: first + number})
    with open_image([tmp_path / "s.czi"]) as image:
        assert (image.read(0, 0, 80, 60) == planes[0][..., ::-1]).all()
        assert image.notes == (f"1 more {'focal plane' if axis == 'Z' else 'time point'} not read",)


def test_a_czi_whose_tiles_do_not_share_a_plane_is_refused_and_not_white(tmp_path: Path) -> None:
    """The second scene was focused elsewhere: the plane that is read has no pixels of it."""
    with czi.create_czi(str(tmp_path / "s.czi"), compression_options="zstd1:") as document:
        for scene in range(2):
            document.write(PIXELS[:60, :80], location=(100 * scene, 0), plane={"C": 0, "Z": scene}, scene=scene)
    told = r"1 tile without pixels in the first plane \(focal plane 0 and time point 0\).*found one at \(100, 0\)"
    with pytest.raises(ReadError, match=told):
        open_image([tmp_path / "s.czi"])


def test_a_czi_of_several_channels_is_refused_and_one_of_focal_planes_says_so(tmp_path: Path) -> None:
    with czi.create_czi(str(tmp_path / "two.czi")) as document:
        for channel in range(2):
            document.write(GREY[..., None], plane={"C": channel})
    with pytest.raises(ReadError, match=r"two\.czi: an image of several channels \(fluorescence\).*2 channels"):
        open_image([tmp_path / "two.czi"])
    with czi.create_czi(str(tmp_path / "deep.czi")) as document:
        for z in range(3):
            document.write(np.full((20, 30, 3), 50 * z, np.uint8), plane={"C": 0, "Z": z})
    with open_image([tmp_path / "deep.czi"]) as image:
        assert image.notes == ("2 more focal planes not read",)
        assert (image.read(0, 0, 30, 20) == 0).all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("group", ["", "0"])
def test_an_ome_zarr_is_one_image_with_its_levels_and_resolution(version: str, group: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    write_zarr(path, version, mpp=250, unit="nanometer", group=group)
    if group:  # as bioformats2raw has it, with a label image beside
        root = zarr.open_group(str(path), mode="r+")
        told = {"bioformats2raw.layout": 3}
        root.attrs.update(told if version == "0.4" else {"ome": {"version": "0.5", **told}})
        root.create_group("1")
    with open_image([path]) as image:
        assert (image.width, image.height, image.mpp) == (900, 700, 0.25)
        assert image.notes == (("1 more image in the folder not read",) if group else ())
        assert (image.read(100, 90, 333, 222) == PIXELS[90:312, 100:433]).all()
        assert image.downsample(800, 400, (200, 100)) == 4
        assert (image.read(0, 0, 800, 400, (200, 100)) == halved(PIXELS, 2)[:100, :200]).all()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: shutil.rmtree(path / "0"), "not a readable OME-Zarr"),
        (lambda path: (path / "zarr.json").write_text("{"), "not a readable OME-Zarr"),
        (lambda path: zarr.open_group(str(path), mode="w"), "no image by OME-Zarr: multiscales"),
        (
            lambda path: zarr.open_group(str(path), mode="w").attrs.update({"ome": {"plate": {}}}),
            "a plate of many images",
        ),
    ],
)
def test_folders_of_zarr_that_are_no_image_are_refused(
    damage: Callable[[Path], object], told: str, tmp_path: Path
) -> None:
    write_zarr(tmp_path / "a.zarr")
    damage(tmp_path / "a.zarr")
    with pytest.raises(ReadError, match=rf"a\.zarr: {told}"):
        open_image([tmp_path / "a.zarr"])


def described(path: Path, pixels: NDArray[Any], names: list[str], colours: list[str], **more: Any) -> Path:
    """An OME-Zarr of channels in this order (channels, height, width), with their names and colours."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    root.create_array("0", data=pixels)
    axes = [{"name": "rgb", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
    told = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [SCALE]}], "version": "0.4"}
    channels = [{"label": name, "color": colour} for name, colour in zip(names, colours, strict=True)]
    root.attrs.update({"multiscales": [told | more], "omero": {"channels": channels}})
    return path


SCALE = {"type": "scale", "scale": [1.0, 0.5, 0.5]}
BLUE_FIRST = ["0000FF", "00FF00", "FF0000"]


@pytest.mark.parametrize("names", [["Blue", "Green", "Red"], ["0", "1", "2"], ["", "", ""]])
def test_channels_of_ome_zarr_are_put_in_order_by_name_or_colour(names: list[str], tmp_path: Path) -> None:
    last = np.moveaxis(PIXELS[:90, :60, ::-1], 2, 0)
    path = described(tmp_path / "a.zarr", last, names, BLUE_FIRST, coordinateTransformations=[SCALE])
    with open_image([path]) as image:
        assert (image.read(0, 0, 60, 90) == PIXELS[:90, :60]).all()
        assert image.mpp == 0.25  # both scales


@pytest.mark.parametrize("names", [["DAPI", "FITC", "Cy5"], ["DAPI", "FITC", "Cy3", "Cy5"], ["", "", "", ""]])
def test_channels_of_ome_zarr_that_are_no_colours_are_refused(names: list[str], tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (len(names), 30, 20), dtype=np.uint8)
    path = described(tmp_path / "a.zarr", pixels, names, [*BLUE_FIRST, "FFFFFF"][: len(names)])
    with pytest.raises(ReadError, match=f"several channels .*; found {len(names)} channels"):
        open_image([path])


def test_further_images_and_label_images_of_ome_zarr_are_reported(tmp_path: Path) -> None:
    path = described(tmp_path / "a.zarr", np.moveaxis(PIXELS[:90, :60], 2, 0), ["r", "g", "b"], BLUE_FIRST[::-1])
    root = zarr.open_group(str(path), mode="r+")
    root.attrs["multiscales"] = [*root.attrs["multiscales"], root.attrs["multiscales"][0]]
    with open_image([path]) as image:
        assert image.notes == ("1 more image under `multiscales` not read",)
    root.attrs["image-label"] = {"version": "0.4"}
    with pytest.raises(ReadError, match="a label image, not a slide"):
        open_image([path])


def several(path: Path, version: str, sizes: dict[str, int], listed: bool) -> None:
    """A folder of several square images, as bioformats2raw writes it; their names are numbers, or `listed`."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    told = {"bioformats2raw.layout": 3}
    root.attrs.update(told if version == "0.4" else {"ome": {"version": "0.5", **told}})
    for name, size in sizes.items():
        group = root.create_group(name)
        group.create_array("0", data=np.moveaxis(PIXELS[:size, :size], 2, 0))
        axes = [{"name": name} for name in "cyx"]
        image = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
        group.attrs.update(image if version == "0.4" else {"ome": {"version": "0.5", **image}})
    if listed:
        root.create_group("OME").attrs.update({"series": [*sizes]})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("names", "listed"), [(("0", "1", "2"), False), (("macro", "scan", "label"), True)])
def test_of_several_images_of_a_folder_the_largest_is_the_slide(
    version: str, names: tuple[str, ...], listed: bool, tmp_path: Path
) -> None:
    several(tmp_path / "a.zarr", version, dict(zip(names, (40, 200, 60), strict=True)), listed)
    with open_image([tmp_path / "a.zarr"]) as image:
        assert (image.width, image.notes) == (200, ("2 more images in the folder not read",))
        assert (image.read(10, 20, 30, 40) == PIXELS[20:60, 10:40]).all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_levels_in_another_order_are_put_in_theirs(version: str, tmp_path: Path) -> None:
    write_zarr(tmp_path / "a.zarr", version)
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="r+")
    told = dict(root.attrs)
    (told if version == "0.4" else told["ome"])["multiscales"][0]["datasets"].reverse()
    root.attrs.update(told)
    with open_image([tmp_path / "a.zarr"]) as image:
        assert (image.width, image.height, image.mpp) == (900, 700, 0.25)
        assert (image.read(100, 90, 333, 222) == PIXELS[90:312, 100:433]).all()


def test_an_ome_zarr_in_one_file_is_read_like_its_folder(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a.zarr")
    files = sorted(file for file in (tmp_path / "a.zarr").rglob("*") if file.is_file())
    with zipfile.ZipFile(tmp_path / "a.ozx", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(tmp_path / "a.zarr"))
    whole, folder = open_image([tmp_path / "a.ozx"]), open_image([tmp_path / "a.zarr"])
    assert (whole.width, whole.height, whole.spacing) == (folder.width, folder.height, folder.spacing)
    assert np.array_equal(whole.read(10, 20, 300, 200, (300, 200)), PIXELS[20:220, 10:310])
    whole.close()
    (tmp_path / "b.ozx").write_bytes((tmp_path / "a.ozx").read_bytes()[:-100])
    with pytest.raises(ReadError, match=r"b\.ozx: not a readable OME-Zarr: File is not a zip file"):
        open_image([tmp_path / "b.ozx"])


def test_label_images_in_a_folder_are_noted_and_never_taken_for_nothing(
    tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    write_zarr(tmp_path / "source/a.zarr", levels=1)
    labels = zarr.open_group(str(tmp_path / "source/a.zarr"), mode="r+").create_group("labels")
    labels.attrs.update({"ome": {"version": "0.5", "labels": ["tumour"]}})
    with open_image([tmp_path / "source/a.zarr"]) as image:
        assert image.notes == ("1 label image not read: tumour",)
    (tmp_path / "my.toml").write_text(MANIFEST.replace("missing = true", 'missing = "none"'))
    answer = dpconvert(tmp_path / "my.toml", "--source", tmp_path / "source", "--out", tmp_path / "out", "-q")
    assert answer.code == 1
    assert "a.zarr: label images of a slide without other annotations" in answer.err


def test_folders_of_zarr_in_archives_or_without_their_suffix_are_named(
    tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    (tmp_path / "my.toml").write_text(MANIFEST)
    write_zarr(tmp_path / "packed/a.zarr", levels=1)
    shutil.make_archive(str(tmp_path / "zipped/all"), "zip", tmp_path / "packed")
    (tmp_path / "packed/a.zarr").rename(tmp_path / "packed/a")
    for source, told in (
        ("zipped", "unpack all.zip: an OME-Zarr"),
        ("packed", "add .zarr to the name of the folder a:"),
    ):
        answer = dpconvert(tmp_path / "my.toml", "--source", tmp_path / source, "--out", tmp_path / "out", "-q")
        assert (answer.code, told in answer.err) == (1, True), answer.err


def test_samples_of_12_bits_are_noticed_in_scenes_with_a_gap_between_them(tmp_path: Path) -> None:
    low = (PIXELS[:60, :80].astype(np.uint16) << 4)[..., ::-1]
    write_czi(tmp_path / "a.czi", (low, (0, 0)), (low, (2000, 0)))
    with pytest.raises(ReadError, match="of 12 bits"):
        open_image([tmp_path / "a.czi"])


def test_samples_of_12_bits_are_noticed_wherever_the_image_is_not_black(tmp_path: Path) -> None:
    low = np.full((1200, 1300), 4095, np.uint16)
    low[:600, :600] = low[400:800, 450:850] = 0  # the corner, and the middle
    write_czi(tmp_path / "a.czi", (low[..., None], (0, 0)))
    write_zarr(tmp_path / "a.zarr", levels=0)
    array = zarr.open_group(str(tmp_path / "a.zarr")).create_array("0", data=low, chunks=(256, 256))
    described = {"axes": [{"name": axis} for axis in "yx"], "datasets": [{"path": array.basename}]}
    zarr.open_group(str(tmp_path / "a.zarr")).attrs["ome"] = {"version": "0.5", "multiscales": [described]}
    for name in ("a.czi", "a.zarr"):
        with pytest.raises(ReadError, match="of 12 bits"):
            open_image([tmp_path / name])


def test_a_damaged_chunk_is_reported_and_files_that_are_no_czi_are_refused(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a.zarr")
    chunk = max((tmp_path / "a.zarr/0/c").rglob("*"))
    chunk.write_bytes(b"damaged")
    with open_image([tmp_path / "a.zarr"]) as image, pytest.raises(ReadError, match="cannot be read at"):
        image.read(0, 0, image.width, image.height)
    (tmp_path / "b.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
    with pytest.raises(ReadError, match=r"b\.czi: not a readable CZI file"):
        open_image([tmp_path / "b.czi"])


MANIFEST = """task = "Mine"
classes = ["Other", "Tumour"]
shape = "slides"
[layout]
missing = true
[rule]
type = "area"
size = 100
share = 0.5
positive = ["Tumour"]
[split.strict]
share = [0.5, 0, 0.5]
"""


def test_patches_of_both_formats_are_those_of_the_same_tiff(tmp_path: Path, dpconvert: Callable[..., Answer]) -> None:
    """One slide in three containers with one annotation: pixels, labels and resolutions agree."""
    source = tmp_path / "source"
    source.mkdir()
    write_czi(source / "a.czi", (PIXELS[..., ::-1], (70, -30)))
    write_zarr(source / "b.ome.zarr")
    tifffile.imwrite(
        source / "c.tif", PIXELS, photometric="rgb", tile=(128, 128), resolution=(4e4, 4e4), resolutionunit="CENTIMETER"
    )
    ring = [[0, 0], [450, 0], [450, 700], [0, 700], [0, 0]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "Tumour"}},
    }
    for name in "abc":
        (source / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    (tmp_path / "my.toml").write_text(MANIFEST)
    answer = dpconvert(tmp_path / "my.toml", "--source", source, "--out", tmp_path / "out", "--workers", 1, "-q")
    assert (answer.code, answer.err) == (0, "")
    rows = read_index(tmp_path / "out/Mine/index.parquet").to_pylist()
    of_slide = {
        slide: {(row["x"], row["y"]): (row["label"], row["sha256"]) for row in rows if row["source"].startswith(slide)}
        for slide in "abc"
    }
    assert len(of_slide["a"]) == 9 * 7
    assert of_slide["a"] == of_slide["b"] == of_slide["c"]
    assert dpconvert("verify", tmp_path / "out", "--workers", 1, "-q").code == 0


@pytest.mark.parametrize("suffix", [".czi", ".zarr"])
def test_without_the_library_one_line_says_what_to_install(
    suffix: str, tmp_path: Path, dpconvert: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, suffix, EXTRAS[suffix]._replace(module="not_installed"))
    source = tmp_path / "source"
    source.mkdir()
    write_czi(source / "a.czi", (PIXELS[..., ::-1], (0, 0)))
    write_zarr(source / "a.zarr")
    (source / ("a.zarr" if suffix == ".czi" else "a.czi")).rename(tmp_path / "other")
    install = rf"pip install 'dpconvert\[{suffix[1:]}\]'"
    with pytest.raises(ReadError, match=install):
        open_image([source / f"a{suffix}"])
    (tmp_path / "my.toml").write_text(MANIFEST)
    answer = dpconvert(tmp_path / "my.toml", "--source", source, "--out", tmp_path / "out", "--workers", 1, "-q")
    assert answer.code != 0
    assert len(answer.err.splitlines()) == 1
    assert f"pip install 'dpconvert[{suffix[1:]}]'" in answer.err


def test_a_drafted_manifest_gives_slides_names_without_double_suffixes(
    tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    """So that annotations `p1_b.geojson` belong to `p1_b.ome.zarr`."""
    source = tmp_path / "slides"
    source.mkdir()
    small = PIXELS[:64, :64]
    for patient in (1, 2, 3):
        write_czi(source / f"p{patient}_a.czi", (small[..., ::-1], (0, 0)))
        write_zarr(source / f"p{patient}_b.ome.zarr", levels=1)
    dpconvert("init", source, "--out", tmp_path / "my.toml")
    pattern = re.compile(tomllib.loads((tmp_path / "my.toml").read_text())["files"]["slides"]["pattern"])
    names = {path.name: found["name"] for path in source.iterdir() if (found := pattern.search(path.name))}
    assert len(names) == 6
    assert all(name == file.partition(".")[0] for file, name in names.items())


def test_prediction_takes_a_folder_of_ome_zarr_for_one_slide(tmp_path: Path) -> None:
    write_zarr(tmp_path / "in/a.ome.zarr", levels=1)
    quiet = Reporter(quiet=True)
    of_folder, of_file = (files_to_predict([tmp_path / name], quiet) for name in ("in", "in/a.ome.zarr"))
    assert of_folder == of_file == [tmp_path / "in/a.ome.zarr"]
