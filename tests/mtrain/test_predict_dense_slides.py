"""Masks, outlines and points of slides by a network whose answer is known: they lie at the level-0 pixels drawn."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dpconvert.runtime.progress import Reporter
from mtrain.data.rows import DenseTargets
from mtrain.errors import UsageError
from mtrain.predict.dense import Segmented, segment_slide
from mtrain.predict.segmenter import Segmenter
from mtrain.predict.slide import Patch
from mtrain.predict.tiling import UNKNOWN
from tests.dpconvert.mirax import write_mirax
from tests.mtrain.test_predict import QUIET

GLASS, TISSUE, RED = (244, 244, 244), (150, 90, 160), (230, 110, 130)
Discs = list[tuple[int, int, int]]  # x, y and radius
DISCS: Discs = [(300, 260, 20), (700, 500, 26), (900, 700, 22), (1002, 812, 20)]


class Redness(Segmenter):
    """Class 1, and the disc of a point, where red exceeds green by 90; maps of points have the size of the input.

    pitch: level-0 pixels in one pixel of the input.
    """

    def __init__(self, size: int, pitch: float) -> None:
        self.of, self.size, self.task = DenseTargets(("other", "disc"), ("disc",), radius_um=5.0), size, "Both"
        self.half = max(1, round(13 / pitch))  # half the radius of a disc

    def logits(self, raw_images: object) -> tuple[Tensor | None, Tensor | None]:
        pixels = torch.from_numpy(np.stack(raw_images).astype(np.float32)).permute(0, 3, 1, 2)  # type: ignore[call-overload]
        pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        red = (pixels[:, :1] - pixels[:, 1:2] - 90) / 20
        smooth = red
        side = 2 * self.half + 1
        for _ in range(2):  # highest amid a disc; rows and columns apart, which is faster
            smooth = F.avg_pool2d(smooth, (side, 1), stride=1, padding=(self.half, 0))
            smooth = F.avg_pool2d(smooth, (1, side), stride=1, padding=(0, self.half))
        return torch.cat([-red, red], 1), smooth


def drawn(height: int, width: int, discs: Discs, glass: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    pixels = np.full((height, width, 3), GLASS if glass else TISSUE, np.uint8)
    rows, columns = np.mgrid[:height, :width] + 0.5
    truth = np.zeros((height, width), np.bool_)
    for x, y, radius in discs:
        truth |= (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    pixels[truth] = RED
    return pixels, truth


def pyramid(path: Path, pixels: NDArray[np.uint8], factor: float) -> Path:
    """A slide of 0.25 um per pixel with three levels, each `factor` coarser than the one before."""
    with tifffile.TiffWriter(path) as tiff:
        for level in range(3):
            size = [round(side / factor**level) for side in (pixels.shape[1], pixels.shape[0])]
            coarser = np.asarray(Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.BOX))
            per_cm = 1e4 / (0.25 * factor**level)
            tiff.write(
                coarser,
                photometric="rgb",
                tile=(128, 128),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
            )
    return path


def features(path: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(str(path)).read_text())["features"]
    return found


def overlap(found: Segmented, truth: NDArray[np.bool_]) -> float:
    """Intersection over union of the outlines of discs and of the truth, by the centres of level-0 pixels."""
    areas = [
        shapely.geometry.shape(one["geometry"])
        for one in features(found.polygons)
        if one["properties"]["classification"]["name"] == "disc"
    ]
    rows, columns = np.mgrid[: truth.shape[0], : truth.shape[1]] + 0.5
    inside = shapely.contains_xy(shapely.union_all(areas), columns.ravel(), rows.ravel()).reshape(truth.shape)
    return float((inside & truth).sum() / (inside | truth).sum())


def mask_overlap(found: Segmented, truth: NDArray[np.bool_]) -> float:
    """The same of the mask, whose pixels are `pitch` level-0 pixels."""
    mask = tifffile.imread(str(found.mask))
    rows, columns = (np.mgrid[: truth.shape[0], : truth.shape[1]] + 0.5) / np.array(found.pitch)[::-1, None, None]
    inside = mask[rows.astype(int).clip(0, mask.shape[0] - 1), columns.astype(int).clip(0, mask.shape[1] - 1)] == 1
    return float((inside & truth).sum() / (inside | truth).sum())


@pytest.mark.parametrize(
    ("side", "mpp", "size", "least"),
    [(96, 0.25, 96, 0.999), (64, 0.5, 64, 0.95), (50, 0.37, 64, 0.95), (90, 0.31, 72, 0.95), (64, 0.83, 64, 0.9)],
)
def test_masks_outlines_and_points_of_a_pyramid_lie_where_they_were_drawn(
    tmp_path: Path, side: int, mpp: float, size: int, least: float
) -> None:
    """899 x 1051 pixels, levels 2.7 and 7.29 times coarser; no side is a multiple of a tile."""
    pixels, truth = drawn(899, 1051, DISCS)
    path = pyramid(tmp_path / "slide.tif", pixels, 2.7)
    found = segment_slide(
        Redness(size, mpp / 0.25 * side / size), path, Patch(side=side, mpp=mpp), tmp_path / "out", QUIET
    )
    assert overlap(found, truth) >= least
    assert mask_overlap(found, truth) >= least
    places = sorted(one["geometry"]["coordinates"] for one in features(found.points))
    assert np.abs(np.array(places) - [disc[:2] for disc in DISCS]).max() <= 2 + found.pitch[0]
    assert found.skipped == 0


def test_what_a_slide_states_to_contain_pixels_is_predicted_at_the_place_it_has_in_the_slide(tmp_path: Path) -> None:
    """A MIRAX slide of 1280 x 1024 pixels, scanned from (192, 128) to (1024, 832) alone."""
    pixels, truth = drawn(1024, 1280, DISCS[:3])
    path = tmp_path / "slide.mrxs"
    write_mirax(path, pixels, (slice(128, 832), slice(192, 1024)))
    found = segment_slide(Redness(64, 2), path, Patch(side=64, mpp=0.5), tmp_path / "out", QUIET)
    assert found.pitch == (2, 2)
    assert overlap(found, truth[128:, 192:]) >= 0.95
    assert mask_overlap(found, truth) >= 0.95
    # QuPath's coordinates start at the bounds
    places = sorted(one["geometry"]["coordinates"] for one in features(found.points))
    assert np.abs(np.add(places, [192, 128]) - [disc[:2] for disc in DISCS[:3]]).max() <= 4
    mask = tifffile.imread(str(found.mask))
    assert mask.shape == (512, 640)
    scanned = np.zeros(mask.shape, np.bool_)
    scanned[64:416, 96:512] = True
    assert ((mask != UNKNOWN) == scanned).all()


def test_an_object_in_little_tissue_is_found_and_what_is_skipped_is_said(tmp_path: Path) -> None:
    """Two objects on glass, each less than 4% of a tile of 256 x 256 pixels, and much less than the patches of the
    training had (half).
    """
    pixels, truth = drawn(1024, 1024, [(300, 300, 26), (800, 640, 26)], glass=True)
    path = pyramid(tmp_path / "slide.tif", pixels, 2)
    said = io.StringIO()
    patch = Patch(side=128, mpp=0.5, tissue=0.5)
    found = segment_slide(Redness(128, 2), path, patch, tmp_path / "out", Reporter(stream=said))
    assert found.found == {"disc": 2}
    assert overlap(found, truth) >= 0.93
    assert 0 < found.skipped < found.patches + found.skipped == 49
    note = f"{found.skipped} of 49 patches not predicted: no tissue (--tissue 0 predicts every patch)"
    assert note in said.getvalue()


def test_a_given_share_of_tissue_holds_and_none_predicts_everything(tmp_path: Path) -> None:
    """An object in the red of a pen, which is not taken for tissue."""
    pixels, truth = drawn(512, 512, [(256, 256, 12)], glass=True)
    pixels[truth] = (250, 40, 60)
    path = pyramid(tmp_path / "slide.tif", pixels, 2)
    with pytest.raises(UsageError, match="--tissue 0 predicts every patch"):
        segment_slide(Redness(64, 2), path, Patch(side=64, mpp=0.5), tmp_path / "out", QUIET)
    every = Patch(side=64, mpp=0.5, least=0.0)
    found = segment_slide(Redness(64, 2), path, every, tmp_path / "out", QUIET)
    assert (found.skipped, found.shares["disc"] > 0) == (0, True)
    pixels[:128, :256] = TISSUE
    path = pyramid(tmp_path / "half.tif", pixels, 2)
    halves = segment_slide(Redness(64, 2), path, Patch(side=64, mpp=0.5, least=0.5), tmp_path / "out", QUIET)
    assert (halves.patches, halves.skipped) == (3 + 4, 49 - 7)


def test_a_slide_that_is_narrower_than_a_patch_is_refused_with_its_size(tmp_path: Path) -> None:
    pixels, _ = drawn(100, 600, [])
    path = pyramid(tmp_path / "slide.tif", pixels, 2)
    with pytest.raises(UsageError, match=r"at least 128 x 128 pixels.*600 x 100.*--patch"):
        segment_slide(Redness(64, 2), path, Patch(side=64, mpp=0.5), tmp_path / "out", QUIET)
