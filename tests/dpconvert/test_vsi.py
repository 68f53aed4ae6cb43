"""Slides of Olympus, written by `tests.dpconvert.vsis`: slideio, which reads them too, checks what is written."""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slideio
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.errors import OutputError, ReadError
from dpconvert.image import open_image
from dpconvert.image.unread import EXTRAS
from dpconvert.manifest.catalog import load
from dpconvert.readers import with_defaults
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from dpconvert.source.files import Source
from mtrain.predict import files_to_predict
from tests.dpconvert.conftest import Answer, run
from tests.dpconvert.vsis import (
    ALL_PLANES,
    BMP,
    HEADERS,
    JPEG,
    JPEG_2000,
    MACRO,
    MICROMETRES,
    OVERVIEW,
    PNG,
    RAW,
    SAMPLE_MASK,
    TILE,
    C,
    Described,
    T,
    Z,
    reduced,
    tiles,
    write_head,
    write_tiles,
    write_vsi,
)

Cli = Callable[..., Answer]
RANDOM = np.random.default_rng(5)
PIXELS = RANDOM.integers(0, 256, (300, 450, 3), dtype=np.uint8)
SMOOTH = np.kron(RANDOM.integers(0, 256, (30, 45, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
GLASS = np.full((70, 90, 3), 240, np.uint8)
DEEP = RANDOM.integers(20_000, 65_536, (300, 450, 1), dtype=np.uint16)


def slide(path: Path, pixels: NDArray[Any], compression: int = JPEG_2000, **described: Any) -> Path:
    """A slide of one image and an overview, without loss."""
    return write_vsi(path, pixels, compression, **described)


@pytest.mark.parametrize(
    ("pixels", "compression"),
    [(PIXELS, JPEG_2000), (SMOOTH, JPEG), (SMOOTH[:, :, :1], JPEG), (PIXELS[:, :, :1], RAW), (DEEP, RAW)],
)
def test_slideio_and_we_read_what_was_written(pixels: NDArray[Any], compression: int, tmp_path: Path) -> None:
    path, height, width = tmp_path / "a.vsi", *pixels.shape[:2]
    write_vsi(path, pixels, compression, mpp=(0.25, 0.26))
    with slideio.open_slide(str(path), "VSI") as opened:
        scene = opened.get_scene(0)
        assert (scene.name, scene.rect, opened.num_scenes) == ("40x", (0, 0, width, height), 1)
        assert scene.resolution == pytest.approx((0.25e-6, 0.26e-6))
        theirs = [np.atleast_3d(scene.read_block_from_level(level)) for level in range(3)]
    for level, found in enumerate(theirs):
        apart = np.abs(found.astype(int) - reduced(pixels, level)[: found.shape[0], : found.shape[1]])
        assert apart.max() == 0 if compression != JPEG else apart.mean() < 2
    with open_image([path]) as image:
        assert (image.width, image.height) == (width, height)
        assert (image.spacing.x, image.spacing.y, image.notes) == (0.25, 0.26, ())
        ours = image.read(0, 0, width, height).astype(int)
    as_bytes = theirs[0].astype(int) >> 8 * (pixels.itemsize - 1)
    assert np.abs(ours - as_bytes).max() <= 2 * (compression == JPEG)


def test_frames_and_reductions_are_those_of_the_image(tmp_path: Path) -> None:
    with open_image([slide(tmp_path / "a.vsi", PIXELS)]) as image:
        with pytest.raises(ValueError, match="not inside"):
            image.read(400, 250, 51, 50)
        assert (image.read(100, 50, 77, 66) == PIXELS[50:116, 100:177]).all()
        assert (image.read(449, 299, 1, 1) == PIXELS[299:, 449:]).all()
        assert image.downsample(400, 200, (100, 50)) == pytest.approx(4, rel=0.01)
        assert (image.read(0, 0, 400, 200, (200, 100)) == reduced(PIXELS, 1)[:100, :200]).all()
    whole = np.kron(PIXELS, np.ones((2, 2, 1), np.uint8))[:512, :832]
    with open_image([slide(tmp_path / "b.vsi", whole)]) as image:
        assert (image.read(112, 104, 720, 400, (180, 100)) == reduced(whole, 2)[26:126, 28:]).all()


def test_images_without_loss_in_png_are_read(tmp_path: Path) -> None:
    """slideio does not read them; Bio-Formats does."""
    for name, pixels in (("a", PIXELS), ("b", DEEP)):
        with open_image([slide(tmp_path / f"{name}.vsi", pixels, PNG)]) as image:
            assert (image.read(0, 0, 450, 300) == pixels >> 8 * (pixels.itemsize - 1)).all()


@pytest.mark.parametrize(
    ("mpp", "unit", "spacing"),
    [
        ((0.25, 0.5), MICROMETRES, (0.25, 0.5)),
        ((250, 250), "10^-9m^1", (0.25, 0.25)),
        ((0.00025, 0.00025), "10^-3m^1", (0.25, 0.25)),
        ((0.25, 0.25), None, (None, None)),
        ((0.25, 0.25), "pixel", (None, None)),
        ((0.0, 0.0), MICROMETRES, (None, None)),
        ((-0.25, -0.25), MICROMETRES, (None, None)),
        ((float("nan"), 0.25), MICROMETRES, (None, None)),
        ((1e6, 1e6), MICROMETRES, (None, None)),
        (None, None, (None, None)),
    ],
)
def test_the_resolution_is_that_of_the_head_in_its_unit(
    mpp: Any, unit: str | None, spacing: tuple[float | None, float | None], tmp_path: Path
) -> None:
    with open_image([slide(tmp_path / "a.vsi", PIXELS[:200], mpp=mpp, unit=unit)]) as image:
        assert (image.spacing.x, image.spacing.y) == spacing


def test_the_largest_image_is_the_slide_and_others_are_counted(tmp_path: Path) -> None:
    """Its label, overview and macro image are none of the others; in any order, and with numbers in any order."""
    path = tmp_path / "a.vsi"
    small = RANDOM.integers(0, 256, (100, 200, 3), dtype=np.uint8)
    write_head(
        path,
        Described("Overview", 90, 70, (4, 4), kind=OVERVIEW),
        Described("20x", 200, 100, (0.5, 0.5)),
        Described("Label", 500, 480, None),
        Described("40x of the label-free overview", 450, 300),
        Described("Macro image", 130, 70, (9, 9), kind=MACRO),
    )
    for stack, pixels in ((10000, GLASS), (10002, small), (10001, PIXELS), (3, np.zeros((480, 500, 3), np.uint8))):
        write_tiles(tiles(path, stack), pixels, compression=JPEG_2000)
    write_tiles(tiles(path, 4), GLASS.repeat(2, 1)[:, :130], compression=JPEG_2000)
    with open_image([path]) as image:
        assert (image.width, image.height, image.mpp) == (450, 300, 0.25)
        assert (image.read(0, 0, 450, 300) == PIXELS).all()
        assert image.notes == ("1 more image in the file not read",)


@pytest.mark.parametrize("first", ["colour", "grey"])
def test_of_images_of_one_size_the_one_in_colour_is_the_slide(first: str, tmp_path: Path) -> None:
    """A field in bright light and in fluorescence, as the scanner VS200 stores it."""
    path = tmp_path / "a.vsi"
    described = [Described("40x_BF", 450, 300), Described("40x_FL", 450, 300, axes=(C,))]
    write_head(path, *described[:: 1 if first == "colour" else -1])
    stacks = (1, 2) if first == "colour" else (2, 1)
    write_tiles(tiles(path, stacks[0]), {(0,): PIXELS}, compression=JPEG_2000)
    write_tiles(tiles(path, stacks[1]), {(c,): DEEP for c in range(4)}, compression=RAW)
    with open_image([path]) as image:
        assert (image.read(0, 0, 450, 300) == PIXELS).all()
        assert image.notes == ("1 more image in the file not read",)


@pytest.mark.parametrize(
    ("other", "stacks"),
    [
        (Described("20x", 449, 299, (0.5, 0.5)), (1, 2)),
        (Described("40x", 450, 300), (1,)),  # whose tiles are missing
        (Described("40x, all focal planes", 450, 300, kind=ALL_PLANES), (1, 2)),
        (Described("40x, all focal planes", 450, 300, kind=ALL_PLANES), (1,)),
    ],
)
def test_images_whose_tiles_cannot_be_told_apart_are_refused(
    other: Described, stacks: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "a.vsi"
    write_head(path, Described("40x", 450, 300), other)
    for stack in stacks:
        write_tiles(tiles(path, stack), PIXELS[: other.height, : other.width])
    told = rf"\(40x, 450 x 300\) cannot be told; found 2 images and {len(stacks)} files? of tiles of about this size"
    with pytest.raises(ReadError, match=told):
        open_image([path])


def test_fields_of_one_size_are_counted_and_a_mask_of_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.vsi"
    mask = Described("mask", 450, 300, kind=SAMPLE_MASK)
    write_head(path, mask, Described("Field 1", 450, 300), Described("Field 2", 450, 300))
    write_tiles(tiles(path, 1), PIXELS[:, :, :1])
    write_tiles(tiles(path, 5), PIXELS, compression=JPEG_2000)
    write_tiles(tiles(path, 6), 255 - PIXELS)
    with pytest.raises(ReadError, match="cannot be told"):  # which of the three is the mask
        open_image([path])
    write_head(path, mask, Described("Field 1", 450, 300))
    tiles(path, 6).unlink()
    with open_image([path]) as image:
        assert (image.read(0, 0, 450, 300) == PIXELS).all()
        assert image.notes == ()
    write_head(path, Described("Field 1", 450, 300), Described("Field 2", 450, 300))
    tiles(path, 1).unlink()
    write_tiles(tiles(path, 12), 255 - PIXELS)
    with open_image([path]) as image:
        assert (image.read(0, 0, 450, 300) == PIXELS).all()
        assert image.notes == ("1 more image in the file not read",)


def test_tiles_of_other_images_may_be_of_any_kind(tmp_path: Path) -> None:
    """One of floats, one without any tile, and one with tiles in some focal planes only."""
    path = slide(tmp_path / "a.vsi", PIXELS)
    write_tiles(tiles(path, 2), np.zeros((200, 200, 1), np.float32), compression=RAW)
    write_tiles(tiles(path, 3), GLASS, levels=0)
    write_tiles(tiles(path, 4), {(0,): GLASS[:, :20], (1,): GLASS})
    with open_image([path]) as image:
        assert (image.read(0, 0, 450, 300) == PIXELS).all()


def test_several_tiles_in_one_place_are_refused(tmp_path: Path) -> None:
    path = slide(tmp_path / "a.vsi", PIXELS)
    data = bytearray(tiles(path).read_bytes())
    (listed,) = struct.unpack_from("<Q", data, 32)
    data[listed + 4 : listed + 8] = struct.pack("<i", 1)  # the column of the first tile
    tiles(path).write_bytes(data)
    with pytest.raises(ReadError, match=r"frame_t\.ets: several tiles in one place"):
        open_image([path])


@pytest.mark.parametrize(("axes", "what"), [((Z,), "focal planes"), ((T,), "time points"), ((), "planes")])
def test_of_further_planes_in_colour_the_first_is_read(axes: tuple[int, ...], what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.vsi"
    write_head(path, Described("40x", 450, 300, axes=axes))
    planes = {(plane,): PIXELS if plane == 0 else 255 - PIXELS for plane in (2, 0, 1)}
    write_tiles(tiles(path), planes, compression=JPEG_2000)
    with open_image([path]) as image:
        assert (image.read(0, 0, 450, 300) == PIXELS).all()
        assert image.notes == (f"2 more {what} not read",)


def test_a_place_without_a_tile_in_the_first_plane_is_refused_and_not_white(tmp_path: Path) -> None:
    path = tmp_path / "a.vsi"
    write_head(path, Described("40x", 450, 300, axes=(Z,)))
    planes = {(0,): PIXELS[:, :256], (1,): PIXELS}
    write_tiles(tiles(path), planes, levels=1)
    with pytest.raises(ReadError, match=r"20 places without a tile in the first plane.*column 4, row 0"):
        open_image([path])


@pytest.mark.parametrize(
    ("pixels", "axes", "count", "told"),
    [
        (DEEP, (C,), 3, "several channels (fluorescence), not RGB; found 3 channels"),
        (DEEP, (Z, C), 2, "several channels (fluorescence), not RGB; found 2 channels"),
        (DEEP, (), 2, "several channels (fluorescence), not RGB; found 2 channels"),
        (PIXELS, (C,), 2, "several channels (fluorescence), not RGB; found 2 channels"),
        (DEEP.repeat(2, 2), (), 1, "several channels (fluorescence), not RGB; found 2 channels"),
        (DEEP >> 4, (), 1, "of 12 bits?"),
        (DEEP.astype(np.float32), (), 1, "pixels of a kind that is not read; expected 8 or 16 bits"),
        (PIXELS, (), 1, "uncompressed colour tiles, whose order of red, green and blue"),
    ],
)
def test_pixels_that_are_not_read_are_refused(
    pixels: NDArray[Any], axes: tuple[int, ...], count: int, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.vsi"
    write_head(path, Described("40x", 450, 300, axes=axes))
    write_tiles(tiles(path), {(0, c)[-max(len(axes), 1) :]: pixels for c in range(count)}, compression=RAW)
    with pytest.raises(ReadError) as error:
        open_image([path])
    assert told in str(error.value)
    if "12 bits" in told:
        with open_image([path], scale=(0, 4095)) as image:
            wanted = np.round((DEEP >> 4) / 4095 * 255)
            assert np.abs(image.read(0, 0, 450, 300) - wanted).max() <= 1


def test_a_compression_that_is_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"compression that is not read; expected none, JPEG.*; found number 9"):
        open_image([slide(tmp_path / "a.vsi", PIXELS, BMP)])


def test_places_without_tiles_are_white_and_levels_that_lack_tiles_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "a.vsi"
    write_head(path, Described("40x", 450, 300))
    last_column = [(7, row, 0) for row in range(5)]
    write_tiles(tiles(path), PIXELS, compression=JPEG_2000, without=[(2, 1, 0), *last_column, (1, 1, 2)])
    wanted = PIXELS.copy()
    wanted[64:128, 128:192] = wanted[:, 448:] = 255
    with open_image([path]) as image:
        assert (image.read(0, 0, 450, 300) == wanted).all()
        assert image.downsample(400, 200, (50, 25)) == 2


def test_tiles_of_a_small_part_of_the_image_are_not_taken_for_it(tmp_path: Path) -> None:
    """Those of the slide are not here; slideio takes those of another image for them."""
    path = tmp_path / "a.vsi"
    write_head(path, Described("40x", 4500, 3000))
    write_tiles(tiles(path), PIXELS)
    with pytest.raises(ReadError, match=r"the pixels of the largest image \(40x, 4500 x 3000\) are missing"):
        open_image([path])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (
        lambda p: shutil.rmtree(p.parent / "_a_"),
        r"a\.vsi: a slide without the folder of its pixels; expected _a_/ ",
    ),
    "no tiles": (
        lambda p: [tiles(p, n).unlink() for n in (1, 10000)],
        r"a\.vsi: a slide without the files of its pixels; expected _a_/stack1/frame_t\.ets",
    ),
    "tiles of the slide missing": (
        lambda p: tiles(p).unlink(),
        r"a\.vsi: the pixels of the largest image \(40x, 450 x 300\) are missing; expected a file of its tiles, _a_/",
    ),
    "in TIFFs": (
        lambda p: [tiles(p, n).rename(tiles(p, n).with_suffix(".tif")) for n in (1, 10000)],
        r"a\.vsi: a slide whose pixels are in TIFFs, not in tiles, which is not read.*convert",
    ),
    "no ETS": (lambda p: tiles(p).write_bytes(b"x" * 400), r"frame_t\.ets: not a file of tiles \(ETS\); fetch"),
    "an empty ETS": (lambda p: tiles(p).write_bytes(b""), r"frame_t\.ets: cut off: the header"),
    "a cut ETS": (
        lambda p: tiles(p).write_bytes(tiles(p).read_bytes()[:-9]),
        r"frame_t\.ets: cut off: the list of tiles ends at byte \d+; found a file of \d+ bytes",
    ),
    "a cut overview": (lambda p: tiles(p, 10000).write_bytes(b"SIS\0"), r"stack10000/frame_t\.ets: cut off"),
    "a cut head": (
        lambda p: p.write_bytes(p.read_bytes()[:300]),
        r"a\.vsi: (not a readable VSI file|a slide without an)",
    ),
    "an empty head": (lambda p: p.write_bytes(b""), r"a\.vsi: not a readable VSI file; fetch it again"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_missing_or_damaged_is_named_in_one_line(
    damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.vsi"
    write_vsi(path, SMOOTH)
    harm, told = DAMAGE[damage]
    harm(path)
    with pytest.raises(ReadError, match=told) as error:
        open_image([path])
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_tile_is_one_line_and_ends_nothing_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.vsi"
    write_vsi(path, SMOOTH)
    data = bytearray(tiles(path).read_bytes())
    data[HEADERS + 2 : HEADERS + 300] = bytes(298)
    tiles(path).write_bytes(data)
    with open_image([path]) as image:
        with pytest.raises(ReadError, match=r"frame_t\.ets: a damaged tile at column 0, row 0 of level 0: ") as error:
            image.read(0, 0, 20, 20)
        assert image.read(64, 64, 20, 20).shape == (20, 20, 3)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_tile_of_another_size_is_refused(tmp_path: Path) -> None:
    """The list states a length; a JPEG states its own size."""
    path = tmp_path / "a.vsi"
    write_vsi(path, SMOOTH)
    file = io.BytesIO()
    Pillow.new("RGB", (TILE // 2, TILE)).save(file, "JPEG")
    data = bytearray(tiles(path).read_bytes())
    data[HEADERS : HEADERS + len(file.getvalue())] = file.getvalue()
    tiles(path).write_bytes(data)
    with open_image([path]) as image, pytest.raises(ReadError, match="a damaged tile at column 0, row 0 of level 0"):
        image.read(0, 0, 20, 20)


def test_no_damage_of_a_file_of_tiles_ends_in_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "a.vsi"
    write_vsi(path, SMOOTH)
    good = tiles(path).read_bytes()
    (listed,) = struct.unpack_from("<Q", good, 32)
    places = [*range(HEADERS), *range(listed, len(good))]
    for _ in range(150):
        data = bytearray(good)
        for at in RANDOM.choice(places, 3):
            data[at] = int(RANDOM.integers(256))
        tiles(path).write_bytes(data)
        try:
            with open_image([path]) as image:
                image.read(0, 0, image.width, image.height)
        except ReadError:
            continue


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
share = [1, 0, 0]
"""
LEFT = {
    "type": "Feature",
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [200, 0], [200, 300], [0, 300], [0, 0]]]},
    "properties": {"classification": {"name": "Tumour"}},
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """One slide as VSI and as TIFF, each with the same annotations, and files of the scanner beside the tiles."""
    folder = tmp_path / "source"
    slide(folder / "a.vsi", PIXELS)
    Pillow.new("RGB", (20, 20)).save(folder / "_a_" / "label.png")
    tifffile.imwrite(
        folder / "b.tif", PIXELS, photometric="rgb", tile=(64, 64), resolution=(4e4, 4e4), resolutionunit="CENTIMETER"
    )
    for name in "ab":
        (folder / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [LEFT]}))
    (tmp_path / "my.toml").write_text(MANIFEST)
    return folder


def test_its_patches_and_annotations_are_those_of_the_same_tiff(source: Path, dpconvert: Cli) -> None:
    folder = source.parent
    answer = dpconvert(folder / "my.toml", "--source", source, "--out", folder / "out", "--workers", 2, "-q")
    assert (answer.code, answer.err) == (0, "")
    rows = read_index(folder / "out/Mine/index.parquet").to_pylist()
    found = {
        name: {(row["x"], row["y"]): (row["label"], row["sha256"]) for row in rows if row["source"].startswith(name)}
        for name in "ab"
    }
    assert len(found["a"]) == 4 * 3
    assert found["a"] == found["b"]
    assert dpconvert("verify", folder / "out", "--workers", 1, "-q").code == 0
    card = json.loads((folder / "out/Mine/task.json").read_text())
    assert "label.png" not in json.dumps(card["notes"])


def test_one_slide_with_its_tiles_and_a_change_of_them_makes_the_shards_anew(source: Path) -> None:
    manifest, folder = with_defaults(load(source.parent / "my.toml")), source.parent
    opened = Source.open(source, manifest)
    assert [found.name for found in opened.match("slides")] == ["a.vsi", "b.tif"]
    parts = ("a.vsi", "_a_/stack1/frame_t.ets", "_a_/stack10000/frame_t.ets")
    assert opened.slides.files_of("a.vsi") == parts
    run(manifest, source, folder / "out")
    before = read_index(folder / "out/Mine/index.parquet").to_pylist()
    write_tiles(tiles(source / "a.vsi"), 255 - PIXELS, compression=JPEG_2000)
    assert Source.open(source, manifest).digest() != opened.digest()
    with pytest.raises(OutputError, match="holds a conversion with other source files"):
        run(manifest, source, folder / "out")
    run(manifest, source, folder / "new")
    after = read_index(folder / "new/Mine/index.parquet").to_pylist()
    changed = [one["source"] for one, other in zip(before, after, strict=True) if one["sha256"] != other["sha256"]]
    assert len(changed) == 12
    assert {name[0] for name in changed} == {"a"}


def test_a_conversion_that_was_interrupted_goes_on_with_the_tiles_as_they_are(source: Path) -> None:
    manifest, folder = with_defaults(load(source.parent / "my.toml")), source.parent
    run(manifest, source, folder / "out", samples_per_shard=6)
    (folder / "out/Mine/task.json").unlink()
    write_tiles(tiles(source / "a.vsi"), 255 - PIXELS, compression=JPEG_2000)
    resumed = run(manifest, source, folder / "out", samples_per_shard=6)
    assert resumed.digest == run(manifest, source, folder / "new", samples_per_shard=6).digest


def test_a_slide_without_its_tiles_fails_alone_and_is_named(source: Path, dpconvert: Cli) -> None:
    tiles(source / "a.vsi").unlink()
    folder = source.parent
    answer = dpconvert(folder / "my.toml", "--source", source, "--out", folder / "out", "--workers", 1, "-q")
    assert answer.code == 1
    assert "a.vsi: the pixels of the largest image (40x, 450 x 300) are missing" in answer.err


def test_its_tiles_without_the_head_are_noted(source: Path, dpconvert: Cli) -> None:
    (source / "a.vsi").unlink()
    folder = source.parent
    answer = dpconvert(folder / "my.toml", "--source", source, "--out", folder / "out", "--workers", 1)
    assert "not read: 1 slide of Olympus VSI without the file a.vsi, its head" in answer.out + answer.err


def test_a_slide_in_an_archive_is_refused(source: Path, dpconvert: Cli) -> None:
    folder = source.parent
    shutil.make_archive(str(folder / "packed/all"), "zip", source)
    (folder / "packed/b.tif").write_bytes((source / "b.tif").read_bytes())
    answer = dpconvert(folder / "my.toml", "--source", folder / "packed", "--out", folder / "out", "-q")
    assert answer.code == 1
    assert "a.vsi: a slide inside an archive; unpack" in answer.err
    assert "frame_t" not in answer.err


def test_without_the_library_it_is_left_out_with_its_tiles(
    source: Path, dpconvert: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, ".vsi", EXTRAS[".vsi"]._replace(module="not_installed"))
    folder = source.parent
    answer = dpconvert(folder / "my.toml", "--source", source, "--out", folder / "out", "--workers", 1)
    told = "1 slide in a format that is not read (Olympus VSI), the first: a.vsi; install its reader: "
    assert f"{told}pip install 'dpconvert[vsi]'" in answer.out + answer.err
    assert {row["source"] for row in read_index(folder / "out/Mine/index.parquet").to_pylist()} == {"b.tif"}


def test_prediction_takes_the_head_for_the_slide(source: Path) -> None:
    assert files_to_predict([source], Reporter(quiet=True)) == [source / "a.vsi", source / "b.tif"]
    both = [source / "a.vsi", source / "_a_/stack1/frame_t.ets"]
    assert source / "a.vsi" in files_to_predict(both, Reporter(quiet=True))
