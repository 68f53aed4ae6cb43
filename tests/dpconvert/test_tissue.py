"""Tissue is found in every stain, on every glass, with pens and padding: against masks drawn with the slides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.card import load
from dpconvert.image import Flat, open_image, tissue
from dpconvert.image.spacing import Spacing
from dpconvert.image.tissue_mask import LINEAR, TISSUE_MPP, by_glass, by_saturation, cie_lab, side
from tests.dpconvert.conftest import Answer
from tests.dpconvert.synthetic_slides import STAINS, Stain, iou, padded, slide, with_pens

SLIDES = Path(__file__).parents[3] / "shared" / "data" / "slides"
Drawn = tuple[NDArray[np.uint8], NDArray[np.bool_]]


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("around", ["glass", "pens", "white", "black"])
def test_tissue_of_every_stain_is_found_and_nothing_else(stain: str, around: str) -> None:
    drawn = slide(STAINS[stain], seed=len(stain))
    if around == "pens":
        drawn = with_pens(*drawn)
    elif around != "glass":
        drawn = padded(*drawn, 255 if around == "white" else 0)
    pixels, mask = drawn
    assert iou(by_glass(pixels)[0], mask) > (0.85 if stain == "dab, pale counterstain" else 0.95)


def test_saturation_finds_nuclei_alone_where_the_counterstain_is_pale() -> None:
    """The fault that the other rule mends: of two thirds of tissue less than a fifth."""
    pixels, mask = slide(STAINS["dab"], share=0.66)
    assert by_saturation(pixels)[0].mean() < 0.2
    assert by_glass(pixels)[0].mean() == pytest.approx(mask.mean(), abs=0.02)


@pytest.mark.parametrize("stain", sorted(set(STAINS) - {"dab, pale counterstain", "pale h&e"}))
def test_a_field_without_glass_is_all_tissue(stain: str) -> None:
    """But for the two whose tissue is as flat and as pale as glass is."""
    pixels, mask = slide(STAINS[stain], share=1.0)
    assert iou(by_glass(pixels)[0], mask) > 0.95


def underexposed(pixels: NDArray[np.uint8], exposure: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).normal(0, 0.4, pixels.shape)
    return (pixels * exposure + noise).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("stain", sorted(set(STAINS) - {"dark", "silver"}))
@pytest.mark.parametrize(("around", "exposure"), [("glass", 0.55), ("glass", 0.45), ("pens", 0.5), ("black", 0.5)])
def test_tissue_of_an_underexposed_scan_is_found(stain: str, around: str, exposure: float) -> None:
    """Its glass is as dark as L* 45 to 55; once all of such a slide was tissue."""
    pixels, mask = slide(STAINS[stain], seed=len(stain))
    pixels = underexposed(pixels, exposure)
    if around != "glass":
        pixels, mask = with_pens(pixels, mask) if around == "pens" else padded(pixels, mask, 0)
    assert iou(by_glass(pixels)[0], mask) > (0.9 if stain == "dab, pale counterstain" else 0.95)


@pytest.mark.parametrize("stain", sorted(set(STAINS) - {"dark", "silver"}))
@pytest.mark.parametrize("exposure", [0.4, 0.5, 0.6])
def test_an_underexposed_field_without_glass_is_all_tissue(stain: str, exposure: float) -> None:
    """But for the darkest nuclei, which are as dark as black ink."""
    pixels, _ = slide(STAINS[stain], share=1.0)
    assert by_glass(underexposed(pixels, exposure))[0].mean() > 0.9


REDS = {
    "eosin": (200, 60, 110),
    "haemorrhage": (170, 40, 50),
    "red cells": (205, 60, 80),
    "congo red": (210, 70, 80),
    "fibrin": (200, 40, 50),
    "aec": (180, 60, 50),
    "dab": (120, 75, 40),
}


@pytest.mark.parametrize("red", REDS)
def test_what_is_stained_as_red_as_a_pen_stays_tissue(red: str) -> None:
    """So a pen of such a colour does, too: `docs/how-to/slides.md` says so."""
    pixels, mask = slide(Stain((232, 190, 212), REDS[red], REDS[red]))
    assert iou(by_glass(pixels)[0], mask) > 0.95


def flat_slide(background: tuple[int, int, int], *, rectangle: bool) -> Drawn:
    """Tissue of one pale colour, with dark spots, without any noise."""
    y, x = np.mgrid[:300, :300]
    ellipse = ((y - 150) / 130) ** 2 + ((x - 150) / 140) ** 2 < 1
    mask = (abs(y - 150) < 110) & (abs(x - 150) < 130) if rectangle else ellipse
    pixels = np.full((300, 300, 3), background, np.uint8)
    pixels[mask] = 226, 222, 224
    pixels[mask & (y % 20 < 6) & (x % 20 < 6)] = 120, 75, 40
    return pixels, mask


@pytest.mark.parametrize("background", [(255, 255, 255), (244, 244, 244), (0, 0, 0)])
@pytest.mark.parametrize("rectangle", [False, True])
def test_pale_tissue_is_not_taken_for_glass_beside_white_or_black(
    background: tuple[int, int, int], rectangle: bool
) -> None:
    pixels, mask = flat_slide(background, rectangle=rectangle)
    assert iou(by_glass(pixels)[0], mask) > 0.97


def test_lab_is_that_of_the_standard() -> None:
    """White, black and the primaries of sRGB, as tables of colour science have them (D65)."""
    colours = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.2], [87.73, -86.18, 83.18], [32.3, 79.19, -107.86]]
    np.testing.assert_allclose(cie_lab(colours)[0], expected, atol=0.15)
    assert LINEAR[188] == pytest.approx(0.5, abs=0.01)


MANIFEST = """
task = "T"
shape = "slides"
classes = ["other", "tumour"]
[files.slides]
pattern = '(?P<name>[^/]+)\\.png$'
[layout]
missing = true
[rule]
type = "area"
positive = ["tumour"]
share = 0.1
size = 40
tissue = 0.5
RULE
[split.strict]
share = [1, 0, 0]
"""


@pytest.mark.parametrize(("rule", "kept"), [("", 60), ('tissue_rule = "saturation"', 0)])
def test_a_manifest_chooses_the_rule_and_dropped_patches_are_counted(
    rule: str, kept: int, dpconvert: Callable[..., Answer], tmp_path: Path
) -> None:
    """Of 64 patches of 40 x 40 px those with at least half of tissue, counted in the mask that was drawn."""
    pixels, mask = slide(STAINS["dab"], share=0.9)
    by_patch = mask.reshape(8, 40, 8, 40).mean(axis=(1, 3))
    (tmp_path / "source").mkdir()
    Pillow.fromarray(pixels).save(tmp_path / "source" / "a.png")
    (tmp_path / "m.toml").write_text(MANIFEST.replace("RULE", rule))
    made = dpconvert(tmp_path / "m.toml", "--source", tmp_path / "source", "--out", tmp_path / "out", "--workers", 1)
    if not kept:
        assert "no samples" in made.err or made.code == 1
        return
    card = load(tmp_path / "out" / "T")
    assert card.samples() == (by_patch >= 0.5).sum() == kept
    (note,) = (note for note in card.notes if note.startswith("tissue: "))
    assert note == f"tissue: {64 - kept} of 64 patches hold less than 50% of tissue (rule 'glass') and are left out"
    assert (card.options["tissue"], card.options["tissue_rule"]) == (0.5, "glass")


class Sized(Flat):
    """An image of any size, of which no pixel is read."""

    def __init__(self, width: int, height: int, mpp: float | None) -> None:
        self.width, self.height, self.spacing = width, height, Spacing(mpp, mpp)


def test_small_slides_are_looked_at_as_coarsely_as_large_ones() -> None:
    assert side(Sized(2220, 2967, 0.5)) == int(2967 * 0.5 / TISSUE_MPP)
    assert side(Sized(100_000, 50_000, 0.25)) == 3125
    assert side(Sized(400_000, 50_000, 0.25)) == 4096  # what is held stays bounded
    assert side(Sized(500, 400, 0.25)) == 64
    assert side(Sized(4000, 4000, None), mpp=0.5) == 250  # as a manifest says
    assert [side(Sized(size, size, None)) for size in (100, 4000, 100_000)] == [256, 1000, 2048]


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("cmu-1-small-region.svs", 0.37, 0.44),
        ("tcga-cr-7395-01a-01-ts1.svs", 0.59, 0.66),
        ("OS-1-detail.ome.tif", 0.97, 1),
    ],
)
def test_tissue_of_the_real_slides_is_what_one_sees(name: str, least: float, most: float) -> None:
    """Looked at in an image of each: a strip of skin, a block with padding around its glass, a field without glass."""
    if not (SLIDES / name).is_file():
        pytest.skip(f"no {name} beside the project")
    with open_image([SLIDES / name]) as image:
        assert least <= tissue(image).mask.mean() <= most
