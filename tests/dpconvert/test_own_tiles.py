"""Slides whose tiles are JPEG: read without OpenSlide's drawing, and passed on as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image as Pillow

from dpconvert.card import load
from dpconvert.cli import group
from dpconvert.errors import ReadError
from dpconvert.image import Slide, open_image, overview, thumbnail, tissue_mask
from dpconvert.image.tiff import jpeg_tiles
from dpconvert.image.tiff.jpeg_tiles import SOI
from dpconvert.plan import plan
from dpconvert.runtime import progress
from dpconvert.shards.index import read_index
from dpconvert.source import files
from dpconvert.source.files import ArchiveMember
from dpconvert.source.record import Box, Record, SourceImage
from tests.dpconvert.tiffs import TILE, TISSUE, shared_tiles

MANIFEST = """
task = "Tiles"
shape = "slides"
classes = ["a"]
[files.slides]
pattern = '(?P<class>a)/(?P<name>[a-z]+)\\.tif$'
[layout]
missing = true
[rule]
type = "tiles"
size = 100
[image]
format = "jpeg"
quality = 95
[split.strict]
"""


def write_slide(path: Path, photometric: str, side: int = 640) -> Path:
    """Three levels of noise in JPEG tiles of 128 px."""
    coarse = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    pixels = np.asarray(Pillow.fromarray(coarse).resize((side, side), Pillow.Resampling.BICUBIC))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for level in range(3):
            tiff.write(
                np.ascontiguousarray(pixels[:: 2**level, :: 2**level]),
                tile=(128, 128),
                compression="jpeg",
                compressionargs={"level": 85, "outcolorspace": photometric},
                photometric=photometric,
                subfiletype=1 if level else 0,
                metadata=None,
            )
    return path


@pytest.fixture(params=["ycbcr", "rgb"])
def flat_slide(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """One level of noise in colours that change slowly, of a size that is a whole number of nothing."""
    coarse = np.random.default_rng(0).integers(0, 256, (19, 23, 3), dtype=np.uint8)
    pixels = np.asarray(Pillow.fromarray(coarse).resize((650, 611), Pillow.Resampling.BICUBIC))
    path: Path = tmp_path / "flat.tif"
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        compression="jpeg",
        photometric=request.param,
        metadata=None,
        compressionargs={"level": 90, "outcolorspace": request.param},
    )
    return path


def test_an_overview_of_a_single_level_decodes_no_tile_in_full(
    flat_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_image([flat_slide]) as image:
        whole = image.read(0, 0, 650, 611, out=(65, 61)).astype(int)
        monkeypatch.setattr(jpeg_tiles.imagecodecs, "jpeg8_decode", None)
        made = thumbnail(image, 65).astype(int)
        monkeypatch.setattr(overview, "PART", 130)
        banded = thumbnail(image, 65).astype(int)
    assert made.shape == banded.shape == whole.shape
    assert np.abs(made - whole).mean() < 1.5
    assert np.abs(made - whole)[-1].mean() < 8  # what fills up the tiles at the border is black
    assert np.abs(made - whole)[:, -1].mean() < 8
    assert np.abs(banded - whole).mean() < 3


def test_an_overview_of_a_damaged_level_is_refused(flat_slide: Path) -> None:
    with tifffile.TiffFile(flat_slide) as tiff:
        page = tiff.pages.first
        offset, count = page.dataoffsets[7], page.databytecounts[7]
    data = bytearray(flat_slide.read_bytes())
    data[offset + 2 : offset + count] = bytes(count - 2)
    flat_slide.write_bytes(data)
    with open_image([flat_slide]) as image, pytest.raises(ReadError, match="tile 7 cannot be read"):
        thumbnail(image, 65)


@pytest.fixture(params=["ycbcr", "rgb"])
def slide(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Slide]:
    with Slide(write_slide(tmp_path / "a" / "one.tif", request.param)) as opened:
        yield opened


FRAMES = [
    ((0, 0, 640, 640), (640, 640)),
    ((37, 91, 200, 100), (200, 100)),
    ((128, 256, 256, 256), (128, 128)),
    ((100, 60, 400, 400), (100, 100)),
    ((500, 500, 140, 140), (70, 70)),
]


@pytest.mark.parametrize(("frame", "out"), FRAMES)
def test_pixels_are_those_that_openslide_gives(
    slide: Slide, frame: tuple[int, int, int, int], out: tuple[int, int]
) -> None:
    assert slide.tiles is not None
    own = slide.read(*frame, out=out)
    slide.tiles.close()
    slide.tiles = None
    assert np.array_equal(own, slide.read(*frame, out=out))


@pytest.mark.parametrize(("frame", "out"), [((128, 256, 128, 128), (128, 128)), ((256, 0, 256, 256), (128, 128))])
def test_a_frame_that_is_a_stored_tile_is_passed_on_without_loss(
    slide: Slide, frame: tuple[int, int, int, int], out: tuple[int, int]
) -> None:
    data = slide.stored_jpeg(*frame, out=out)
    assert data is not None
    with Pillow.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), slide.read(*frame, out=out))


@pytest.mark.parametrize(
    ("frame", "out"),
    [
        ((1, 0, 128, 128), (128, 128)),  # off the grid
        ((0, 0, 256, 256), (256, 256)),  # several tiles
        ((0, 0, 128, 128), (64, 64)),  # half a tile of the next level
        ((0, 0, 192, 192), (128, 128)),  # to be resampled
    ],
)
def test_other_frames_are_not_passed_on(slide: Slide, frame: tuple[int, int, int, int], out: tuple[int, int]) -> None:
    assert slide.stored_jpeg(*frame, out=out) is None


def test_the_grid_of_the_file_is_that_of_the_nearest_level_without_partial_tiles(slide: Slide) -> None:
    found = slide.own_grid(1.9)
    assert found is not None
    frames, size = found
    assert size == (128, 128)
    assert frames.tolist() == [[x, y, 256, 256] for y in (0, 256) for x in (0, 256)]  # 320 px hold two tiles and a rest


def test_a_slide_of_another_compression_is_left_to_openslide(tmp_path: Path) -> None:
    path = tmp_path / "lzw.tif"
    tifffile.imwrite(path, np.zeros((256, 256, 3), np.uint8), tile=(128, 128), compression="lzw", photometric="rgb")
    with Slide(path) as slide:
        assert slide.tiles is None
        assert slide.own_grid(1.0) is None
        assert slide.stored_jpeg(0, 0, 128, 128, out=(128, 128)) is None


def test_lossless_tiles_makes_shards_of_the_stored_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(files, "open_image", lambda *files: opened.append(files) or open_image(*files))
    path = write_slide(tmp_path / "source" / "a" / "one.tif", "ycbcr")
    manifest = tmp_path / "tiles.toml"
    manifest.write_text(MANIFEST)
    asked = [
        str(manifest),
        "--source",
        str(tmp_path / "source"),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "1",
        "-q",
    ]
    result = CliRunner().invoke(group, [*asked, "--lossless-tiles"], standalone_mode=False)
    assert result.exception is None
    folder = tmp_path / "out" / "Tiles"
    assert load(folder).samples() == 25
    assert len(opened) == 1  # for the plan, and still there for the samples
    rows = read_index(folder / "index.parquet").to_pylist()
    row = next(row for row in rows if (row["x"], row["y"]) == (256, 128))
    data = (folder / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["length"]]
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        index = 1 * 5 + 2
        stored = path.read_bytes()[page.dataoffsets[index] : page.dataoffsets[index] + page.databytecounts[index]]
    assert stored[2:] in data
    with Pillow.open(io.BytesIO(data)) as image, Slide(path) as slide:
        assert np.array_equal(np.asarray(image.convert("RGB")), slide.read(256, 128, 128, 128))


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("size = 128\nmpp = 0.5", ""),
        ("size = 128\nmpp = 0.96", ""),
        ("size = 100", "1 x tiles of 128 x 128 pixels are passed on, and the rule requests patches of 100"),
        ("size = 128\noverlap = 9", "the rule requests patches of 128 that overlap by 9; the first"),
        ("size = 128\nmpp = 0.7", "expected 0.7 um per pixel; found 0.5 in the nearest level; convert without"),
        ("size = 128\nmpp = 4.0", "expected 4 um per pixel; found 2 in the nearest level; convert without"),
        ("size = 384\nstored = 128", "expected 3 pixels of the file in one; found 2; convert without"),
    ],
)
def test_lossless_tiles_of_another_size_are_noted_and_of_another_resolution_refused(
    rule: str, found: str, tmp_path: Path
) -> None:
    """The levels have 0.5, 1 and 2 um per pixel."""
    write_slide(tmp_path / "source" / "a" / "one.tif", "ycbcr")
    manifest = tmp_path / "tiles.toml"
    manifest.write_text(MANIFEST.replace("size = 100", rule))
    asked = [str(manifest), "--source", str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--lossless-tiles"]
    result = CliRunner().invoke(group, [*asked, "--mpp", "0.5"], standalone_mode=False)
    assert (result.exception is not None) == found.startswith("expected")
    told = f"{result.exception} {result.output}"
    assert found in told if found else "tiles of" not in told


def test_lossless_tiles_is_refused_where_there_is_no_grid(tmp_path: Path) -> None:
    write_slide(tmp_path / "source" / "a" / "one.tif", "ycbcr")
    manifest = tmp_path / "tiles.toml"
    manifest.write_text(MANIFEST.replace('type = "tiles"\nsize = 100', 'type = "whole"'))
    asked = [str(manifest), "--source", str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--lossless-tiles"]
    result = CliRunner().invoke(group, asked, standalone_mode=False)
    assert "--lossless-tiles is for patches on a grid" in str(result.exception)


@pytest.mark.parametrize(
    ("size", "cell", "again", "kept"),
    [(64, 128, 0, 1), (64, 256, 1, 24), (100, 256, 6, 24)],  # the grid of the tiles in cells of one and four, another
)
def test_each_tile_is_decoded_about_once_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, cell: int, again: int, kept: int
) -> None:
    path, decoded = write_slide(tmp_path / "a" / "one.tif", "rgb", 1280), []
    decode, most = imagecodecs.jpeg8_decode, 0
    monkeypatch.setattr("imagecodecs.jpeg8_decode", lambda *data, **more: decoded.append(1) or decode(*data, **more))
    for module in (jpeg_tiles, plan):
        monkeypatch.setattr(module, "BLOCK", 512)
        monkeypatch.setattr(module, "CELL", cell)
    boxes = [Box(x, y, size, size) for y in range(0, 1280 - size, size) for x in range(0, 512 - size, size)]
    records = [Record(SourceImage("p", ("f",), "g"), "no", box) for box in boxes]
    with Slide(path) as slide:
        assert slide.tiles is not None
        for record in sorted(records, key=lambda record: plan._block(record, False)):
            assert record.box is not None
            slide.read(*record.box)
            most = max(most, len(slide.tiles._decoded))
    touched = {(x // 128, y // 128) for b in boxes for x in (b.x, b.x + size - 1) for y in (b.y, b.y + size - 1)}
    assert len(touched) <= len(decoded) <= len(touched) + again
    assert most <= kept


def test_pixels_that_were_given_stay_what_they_were(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_tiles, "BLOCK", 1)  # so that memory is soon used again
    first = slide.read(0, 0, 128, 128)
    before = first.copy()
    for x in range(0, 640, 128):
        for y in range(0, 640, 128):
            slide.read(x, y, 128, 128)
    assert np.array_equal(first, before)


def test_a_slide_that_is_cut_off_is_reported_in_one_line(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a" / "one.tif", "ycbcr")
    with Slide(path) as slide:
        assert slide.tiles is not None
        at = slide.tiles.levels[0]
        at.offsets[24] = path.stat().st_size - 10
        with pytest.raises(ReadError, match=r"one.tif: cut off: tile 24 ends at byte \d+; found a file of \d+ bytes"):
            slide.read(512, 512, 128, 128)
        at.counts[24] = 1 << 60
        with pytest.raises(ReadError, match="cut off: tile 24"):
            slide.stored_jpeg(512, 512, 128, 128, out=(128, 128))


def test_a_slide_inside_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"a.zip/b.svs: a slide inside an archive; unpack the archive"):
        open_image([ArchiveMember(b"II*\0", tmp_path / "a.zip" / "b.svs")])


def test_a_tile_without_a_marker_of_its_colours_gets_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = imagecodecs.jpeg8_encode
    monkeypatch.setattr("imagecodecs.jpeg8_encode", lambda *a, **b: SOI + encode(*a, **b)[20:])  # without JFIF's marker
    tile = np.full((TILE, TILE, 3), (200, 90, 160), np.uint8)
    with Slide(shared_tiles(tmp_path / "a.tif", 4 * TILE, 2 * TILE, tile)) as slide:
        data = slide.stored_jpeg(TILE, 0, TILE, TILE, out=(TILE, TILE))
        assert data is not None
        assert jpeg_tiles.ADOBE_MARKER in data
        with Pillow.open(io.BytesIO(data)) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), slide.read(TILE, 0, TILE, TILE))


def test_an_overview_is_the_same_whoever_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one process at once, in parts by one that tells how far it is, in parts by two."""
    tile = np.full((TILE, TILE, 3), 243, np.uint8)
    tile[: TILE // 2] = (200, 90, 160)
    (tmp_path / "source").mkdir()
    shared_tiles(tmp_path / "source" / "slide.tif", 16_640, 16_640, tile)
    (tmp_path / "source" / "slide.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (tmp_path / "tissue.toml").write_text(TISSUE)
    monkeypatch.setattr(progress, "EVERY", 0)

    def converted(workers: int) -> tuple[str, str]:
        out = tmp_path / f"out{workers}{tissue_mask.SLOW}"
        command = [tmp_path / "tissue.toml", "--source", tmp_path / "source", "--out", out, "--workers", workers]
        answer = CliRunner().invoke(group, [*map(str, command)], catch_exceptions=False)
        return load(out / "Tissue").digest, answer.stderr

    (one, told), (two, _) = converted(1), converted(2)
    assert "Tissue: overviews: 1 of 5 parts" in told
    monkeypatch.setattr(tissue_mask, "SLOW", 1 << 40)
    alone, told = converted(1)
    assert "overviews" not in told
    assert one == two == alone
