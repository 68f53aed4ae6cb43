"""The size in the header of a flat image, and whether the file is complete."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dpconvert.errors import ReadError
from dpconvert.image import Flat
from dpconvert.image.header import complete_size

PIXELS = np.random.default_rng(0).integers(0, 255, (30, 41, 3), np.uint8)
FORMATS = {
    "raw.tif": {},
    "lzw.tiff": {"compression": "tiff_lzw"},
    "a.png": {},
    "a.jpg": {},
    "a.bmp": {},
}


@pytest.fixture(params=FORMATS)
def draw_image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    Image.fromarray(PIXELS).save(path, **FORMATS[request.param])
    return path


def test_the_size_is_known_without_the_pixels(draw_image: Path) -> None:
    assert complete_size(draw_image) == (41, 30)
    data = io.BytesIO(draw_image.read_bytes())
    assert complete_size(data) == (41, 30)
    assert data.tell() == 0


def test_of_a_cut_file_it_is_not(draw_image: Path) -> None:
    whole = draw_image.read_bytes()
    for length in (0, 3, 40, len(whole) // 2, len(whole) - 1):
        assert complete_size(io.BytesIO(whole[:length])) is None
    draw_image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError):
        Flat(draw_image)


def test_a_planar_image_that_is_all_there(tmp_path: Path) -> None:
    path = tmp_path / "planar.tif"
    planes = np.moveaxis(PIXELS, 2, 0)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", compression="packbits")
    assert complete_size(path) in ((41, 30), None)
    assert np.array_equal(Flat(path).pixels, PIXELS)
    assert (Flat(path).width, Flat(path).height) == (41, 30)


def test_other_formats_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    Image.fromarray(PIXELS).save(path)
    assert complete_size(path) is None
    assert (Flat(path).width, Flat(path).height) == (41, 30)


def test_what_is_no_image_or_not_there_has_no_size(tmp_path: Path) -> None:
    assert complete_size(tmp_path / "absent.tif") is None
    (tmp_path / "text.tif").write_text("not an image")
    assert complete_size(tmp_path / "text.tif") is None
