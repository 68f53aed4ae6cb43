"""Masks and points of slides: tiles leave no seam, polygons cover the pixels of their class, points are found once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
import tifffile
import torch
from click.testing import CliRunner
from scipy.ndimage import uniform_filter
from torch import Tensor

from mtrain import cli
from mtrain.data.rows import DenseTargets
from mtrain.predict.dense import segment_slide, separated
from mtrain.predict.outlines import outlines
from mtrain.predict.segmenter import Segmenter
from mtrain.predict.slide import Patch
from mtrain.predict.tiling import UNKNOWN, blended, class_map, starts
from tests.mtrain.test_dense_transfer import folder
from tests.mtrain.test_predict import QUIET

__all__ = ["folder"]
SIZE = 32


class Stub(Segmenter):
    """Class 1 and the points' discs where red exceeds green by 100; one place of discs for each 4 x 4 pixels."""

    def __init__(self) -> None:
        self.of, self.size, self.task = DenseTargets(("other", "disc"), ("disc",), radius_px=6.0), SIZE, "Both"

    def logits(self, raw_images: object) -> tuple[Tensor | None, Tensor | None]:
        red = torch.from_numpy(np.stack(raw_images).astype(np.float32))  # type: ignore[call-overload]
        map_ = (red[..., 0] - red[..., 1] - 100)[:, None] / 50
        smooth = torch.nn.functional.avg_pool2d(map_, 11, stride=1, padding=5)  # highest in the middle of a disc
        return torch.cat([-map_, map_], 1), torch.nn.functional.avg_pool2d(smooth, 4)


def test_tiles_overlap_by_half_and_reach_the_end() -> None:
    assert starts(32, 32) == [0]
    assert starts(70, 32) == [0, 16, 32, 38]


def test_blended_tiles_equal_the_untiled_map_away_from_the_edges() -> None:
    image = np.random.default_rng(0).normal(size=(101, 133)).astype(np.float32)
    whole = uniform_filter(image, 5, mode="constant")
    tiles = [
        (x, y, uniform_filter(image[y : y + SIZE, x : x + SIZE], 5, mode="constant")[None])
        for y in starts(101, SIZE)
        for x in starts(133, SIZE)
    ]
    found = np.zeros_like(image)
    for top, strip, known in blended(tiles, 1, (101, 133), SIZE):
        assert known.all()
        found[top : top + len(known)] = strip[0]
    inner = slice(6, -6)
    assert np.allclose(found[inner, inner], whole[inner, inner], atol=2e-3)


def test_what_no_tile_covers_is_unknown() -> None:
    into = np.zeros((100, 40), np.uint8)
    class_map([(0, 68, np.ones((2, 32, 32), np.float32))], 2, 32, into)
    assert (into[68:, :32] == 0).all()
    assert (into == UNKNOWN).sum() == 100 * 40 - 32 * 32


def test_outlines_cover_exactly_the_pixels_of_their_class_with_holes_across_blocks() -> None:
    classes = (np.random.default_rng(1).random((1100, 20)) < 0.4).astype(np.uint8)
    classes[500:530, 2:18] = 1
    classes[508:520, 6:10] = 0
    parts = outlines(classes, 1, tolerance=0)
    assert sum(part.area for part in parts) == (classes == 1).sum()
    assert any(part.contains(shapely.Point(4.5, 511.5)) and part.interiors for part in parts)
    assert not any(part.contains(shapely.Point(7.5, 511.5)) for part in parts)


def test_of_points_within_the_radius_the_surest_stays() -> None:
    points = np.array([[0, 0, 0, 0.6], [3, 0, 0, 0.9], [5.5, 0, 0, 0.7], [3, 0, 1, 0.5]])
    assert separated(points, 3).tolist() == [[3, 0, 0, 0.9], [3, 0, 1, 0.5]]


@pytest.fixture
def slide(tmp_path: Path) -> tuple[Path, list[tuple[int, int]]]:
    """200 x 300 px of purple tissue with four red discs of radius 6, on and off the borders of tiles."""
    pixels = np.full((200, 300, 3), (150, 90, 160), np.uint8)
    rows, columns = np.mgrid[:200, :300] + 0.5
    centres = [(50, 50), (64, 96), (130, 100), (250, 150)]
    for x, y in centres:
        pixels[(columns - x) ** 2 + (rows - y) ** 2 <= 36] = (250, 40, 60)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(64, 64), resolution=(20000, 20000), resolutionunit="CENTIMETER"
    )
    return path, centres


def test_masks_and_points_of_a_slide_lie_where_they_are(slide: tuple[Path, list[tuple[int, int]]]) -> None:
    path, centres = slide
    patch = Patch(side=SIZE, mpp=0.5, tissue_rule="saturation")
    found = segment_slide(Stub(), path, patch, path.with_name("out"), QUIET)
    truth = tifffile.imread(path)[..., 0] == 250
    with tifffile.TiffFile(str(found.mask)) as tiff:
        assert np.array_equal(tiff.pages[0].asarray(), truth)
        assert tiff.pages[1].shape == (100, 150)
    with openslide.OpenSlide(str(found.mask)) as opened:
        assert opened.dimensions == (300, 200)
    features = json.loads(Path(str(found.polygons)).read_text())["features"]
    discs = [
        shapely.geometry.shape(one["geometry"])
        for one in features
        if one["properties"]["classification"]["name"] == "disc"
    ]
    assert len(discs) == 4
    assert sum(disc.area for disc in discs) == pytest.approx(truth.sum(), rel=0.06)
    assert [len(one["geometry"]["coordinates"]) for one in features] == [5, 1, 1, 1, 1]
    points = json.loads(Path(str(found.points)).read_text())["features"]
    places = sorted(one["geometry"]["coordinates"] for one in points)
    assert found.found == {"disc": 4}
    assert np.abs(np.array(places) - np.array(sorted(centres))).max() <= 4
    assert all(0.5 <= one["properties"]["measurements"]["score"] <= 1 for one in points)


def test_the_command_writes_what_the_decoder_of_the_run_finds_and_refuses_the_rest(
    folder: Path, slide: tuple[Path, list[tuple[int, int]]], tmp_path: Path
) -> None:
    def said(*more: str) -> str:
        given = [
            "predict",
            "--runs",
            str(folder / "runs"),
            "--run",
            "toy",
            "--dense",
            "--device",
            "cpu",
            "--quiet",
            "--mpp-override",
            "0.5",
            "--out",
            str(tmp_path / "out"),
            str(slide[0]),
            *more,
        ]
        done = CliRunner().invoke(cli.group, given)
        return done.output + str(done.exception or "")

    assert "slide.mask.tif" in said("--task", "Masks")
    assert "slide.points.geojson" in said("--task", "Points")
    assert "finds no masks and points of Alpha" in said("--task", "Alpha")
    assert "--dense goes neither with" in said("--task", "Masks", "--features")
    tiny = tmp_path / "some" / "tiny.tif"
    tiny.parent.mkdir()
    (tiny.parent / "more.zip").touch()
    tifffile.imwrite(tiny, np.zeros((20, 20, 3), np.uint8), photometric="rgb")
    narrow = tmp_path / "narrow.tif"
    tifffile.imwrite(narrow, np.zeros((20, 2000, 3), np.uint8), photometric="rgb", tile=(16, 16))
    (tmp_path / "out" / "slide.mask.tif").unlink()
    several = said("--task", "Masks", str(tiny.parent), str(narrow))
    assert "1 archive not read, the first: more.zip" in several  # although quiet
    assert (tmp_path / "out" / "slide.mask.tif").exists()
    assert "tiny.tif: --dense applies only to slides; this is an image; found fewer than 4 patches of 40 px" in several
    assert "narrow.tif: this slide is smaller than a patch" in several
    assert several.endswith("\n1")  # the exit status
    decoder = folder / "runs" / "toy" / "dense.safetensors"
    hidden = decoder.rename(decoder.with_name("hidden"))
    try:
        assert "this run has no decoder of masks and points" in said("--task", "Masks")
    finally:
        hidden.rename(decoder)
