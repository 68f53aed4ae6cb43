"""Pixels of slides and images of every kind, against arrays worked out by hand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.errors import ReadError
from dpconvert.image import Flat, Mosaic, Slide, flat, open_image, otsu, over, resample, thumbnail, tissue
from dpconvert.image.spacing import of_texts

Pixels = NDArray[np.uint8]
PINK, GLASS = (200, 90, 160), (243, 243, 243)
RED, GREY = (200, 30, 60), (90, 90, 90)


def blank(width: int, height: int, colour: tuple[int, int, int] = GLASS) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


def noise(width: int, height: int) -> Pixels:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pyramid(path: Path, levels: list[Pixels], *, mpp: float | None = 0.25) -> Path:
    """A tiled TIFF without loss, as OpenSlide opens it; without a resolution where `mpp` is None."""
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(levels):
            tiff.write(
                pixels,
                tile=(64, 64),
                photometric="rgb",
                compression="adobe_deflate",
                subfiletype=1 if number else 0,
                metadata=None,
                **({} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}),
            )
    return path


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """Level 0 is noise, level 1 (half the size) red, level 2 (a quarter) grey: one sees which one was read."""
    return pyramid(tmp_path / "a.tif", [noise(512, 256), blank(256, 128, RED), blank(128, 64, GREY)])


def test_a_slide_is_read_by_openslide_with_its_resolution(slide: Path) -> None:
    with open_image([slide]) as image:
        assert isinstance(image, Slide)
        assert (image.width, image.height, image.mpp) == (512, 256, 0.25)
        np.testing.assert_array_equal(image.read(100, 50, 70, 60), noise(512, 256)[50:110, 100:170])


@pytest.mark.parametrize(
    ("frame", "out", "colour"),
    [(128, 64, RED), (128, 32, GREY), (128, 16, GREY), (96, 32, RED)],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(
    frame: int, out: int, colour: tuple[int, int, int], slide: Path
) -> None:
    with open_image([slide]) as image:
        assert image.read(64, 64, frame, frame, out=(out, out)).tolist() == [[list(colour)] * out] * out


def test_whole_factors_are_averaged(tmp_path: Path) -> None:
    level = noise(256, 256)
    mean = level.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    with open_image([pyramid(tmp_path / "a.tif", [level])]) as image:
        from_slide = image.read(0, 0, 256, 256, out=(64, 64))
    for read in (from_slide, Flat(level).read(0, 0, 256, 256, out=(64, 64))):
        assert np.abs(read - mean).max() <= 1  # Pillow rounds rows, then columns
        assert np.abs(read - mean).mean() < 0.35


def test_a_frame_outside_the_image_is_our_own_mistake() -> None:
    image = Flat(blank(10, 10))
    for frame in [(-1, 0, 5, 5), (6, 0, 5, 5), (0, 6, 5, 5), (0, 0, 0, 5)]:
        with pytest.raises(ValueError, match=r"frame \(.*\) is not inside 10 x 10"):
            image.read(*frame)


def test_transparency_becomes_the_background() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, 1] = (255, 0, 0, 255)
    rgba[0, 2] = (255, 0, 0, 128)
    assert over(rgba, (255, 255, 255)).tolist() == [[[255, 255, 255], [255, 0, 0], [255, 127, 127]]]
    assert over(rgba, (0, 10, 20))[0, 0].tolist() == [0, 10, 20]


@pytest.mark.parametrize(
    ("text", "mpp"),
    [
        ("0.243", 0.243),
        ("0.05", 0.05),
        ("10", 10.0),
        ("0.049", None),
        ("1000", None),
        ("nan", None),
        ("", None),
        ("a", None),
        (None, None),
    ],
)
def test_a_resolution_that_cannot_be_is_none(text: str | None, mpp: float | None) -> None:
    assert of_texts(text, None).x == mpp


def test_a_slide_of_an_absurd_resolution_has_none(tmp_path: Path) -> None:
    with open_image([pyramid(tmp_path / "a.tif", [blank(128, 128)], mpp=352.8)]) as image:  # 72 dpi
        assert image.mpp is None
    with open_image([pyramid(tmp_path / "b.tif", [blank(128, 128)], mpp=None)]) as image:
        assert image.mpp is None


def test_black_padding_and_glass_are_no_tissue() -> None:
    pixels = blank(400, 100)
    pixels[:, 100:200] = PINK
    pixels[:, 300:] = (3, 0, 1)  # saturated, and dark
    share = tissue(Flat(pixels)).share([(0, 0, 100, 100), (100, 0, 100, 100), (50, 0, 100, 100), (300, 0, 100, 100)])
    np.testing.assert_allclose(share, [0, 1, 0.5, 0], atol=0.02)


@pytest.mark.parametrize(("colour", "share"), [(GLASS, 0.0), (PINK, 1.0), ((0, 0, 0), 0.0)])
def test_an_image_may_be_all_tissue_or_none(colour: tuple[int, int, int], share: float) -> None:
    assert tissue(Flat(blank(100, 100, colour))).share([(0, 0, 100, 100)]).tolist() == [share]


def test_otsu_cuts_between_two_heaps() -> None:
    values = np.concatenate([np.full(50, 0.1), np.full(70, 0.11), np.full(80, 0.8)])
    assert 0.11 < otsu(values) < 0.8


def test_a_thumbnail_is_the_whole_image_read_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = blank(400, 800)
    pixels[400:] = PINK
    whole = thumbnail(Flat(pixels), 80)
    monkeypatch.setattr("dpconvert.image.overview.BAND", 400 * 30)
    assert whole.shape == (80, 40, 3)
    np.testing.assert_array_equal(thumbnail(Flat(pixels), 80), whole)
    assert whole[39, 0].tolist() == list(GLASS)
    assert whole[40, 0].tolist() == list(PINK)
    assert thumbnail(Flat(pixels), 5000).shape == (800, 400, 3)


def test_a_mosaic_is_row_major(tmp_path: Path) -> None:
    files = []
    for number in range(6):
        Pillow.fromarray(blank(4, 2, (number, 0, 0))).save(tmp_path / f"{number}.png")
        files.append(tmp_path / f"{number}.png")
    with open_image(files, columns=3) as image:
        assert (image.width, image.height) == (12, 4)
        assert image.read(0, 0, 12, 4)[::2, ::4, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ReadError, match="make no mosaic"):
        open_image(files, columns=4)
    with pytest.raises(ReadError, match="make no mosaic"):
        Mosaic([Flat(blank(4, 2)), Flat(blank(2, 4))], 2, "a")


# --- flat images


def write(path: Path, image: Pillow.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def palette() -> Pillow.Image:
    image = Pillow.new("P", (6, 4))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((1, 0), 1)
    return image


@pytest.mark.parametrize(
    ("name", "image", "options", "corner"),
    [
        ("rgb.png", Pillow.new("RGB", (6, 4), (1, 2, 3)), {}, (1, 2, 3)),
        ("grey.png", Pillow.new("L", (6, 4), 7), {}, (7, 7, 7)),
        ("bilevel.png", Pillow.new("1", (6, 4), 1), {}, (255, 255, 255)),
        ("palette.png", palette(), {}, (10, 20, 30)),
        ("clear.png", Pillow.new("RGBA", (6, 4), (1, 2, 3, 0)), {}, (255, 255, 255)),
        ("sixteen.png", Pillow.fromarray(np.full((4, 6), 0xAB12, np.uint16)), {}, (0xAB, 0xAB, 0xAB)),
        ("sixteen.tif", Pillow.fromarray(np.full((4, 6), 0xAB12, np.uint16)), {}, (0xAB, 0xAB, 0xAB)),
        ("cmyk.tif", Pillow.new("CMYK", (6, 4), (0, 255, 255, 0)), {}, (255, 0, 0)),
        ("lzw.tif", Pillow.new("RGB", (6, 4), (1, 2, 3)), {"compression": "tiff_lzw"}, (1, 2, 3)),
        ("packbits.tif", Pillow.new("RGB", (6, 4), (1, 2, 3)), {"compression": "packbits"}, (1, 2, 3)),
        ("a.bmp", Pillow.new("RGB", (6, 4), (1, 2, 3)), {}, (1, 2, 3)),
        ("a.gif", palette(), {}, (10, 20, 30)),
    ],
)
def test_images_of_every_kind_become_rgb(
    name: str, image: Pillow.Image, options: dict[str, Any], corner: tuple[int, int, int], tmp_path: Path
) -> None:
    path = write(tmp_path / name, image, **options)
    with open_image([path]) as opened:
        assert (opened.width, opened.height) == (6, 4)
        pixels = opened.read(0, 0, 6, 4)
    assert (pixels.shape, pixels.dtype) == ((4, 6, 3), np.uint8)
    assert tuple(pixels[0, 0]) == corner
    assert flat(io.BytesIO(path.read_bytes())).tolist() == pixels.tolist()


@pytest.mark.parametrize("compression", ["packbits", "lzw", None])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_planar_tiffs_are_put_together(compression: str | None, kind: type, tmp_path: Path) -> None:
    expected = noise(70, 50)
    planes = np.moveaxis(expected, 2, 0).astype(kind) * (257 if kind is np.uint16 else 1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", compression=compression)
    with open_image([path]) as image:
        np.testing.assert_array_equal(image.read(0, 0, 70, 50), expected)
    np.testing.assert_array_equal(flat(io.BytesIO(path.read_bytes())), expected)


def test_an_ome_tiff_is_read_with_its_resolution(tmp_path: Path) -> None:
    expected, path = noise(70, 50), tmp_path / "a.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, expected, photometric="rgb", ome=True, metadata=metadata)
    with open_image([path]) as image:
        np.testing.assert_array_equal(image.read(10, 20, 30, 30), expected[20:50, 10:40])
        assert image.mpp == 0.5


def test_a_whole_factor_of_an_array_is_averaged_and_another_one_filtered() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert resample(pixels, (4, 4), (2, 2))[0, 0].tolist() == [8, 9, 10]  # of 0 3 12 15, 1 4 13 16, 2 5 14 17
    assert resample(pixels, (4, 4), (3, 3)).shape == (3, 3, 3)
    np.testing.assert_array_equal(resample(pixels, (2, 2), (2, 2)), pixels[:2, :2])


# --- damaged ones


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.png": lambda path: Pillow.fromarray(noise(60, 60)).save(path),
    "a.jpg": lambda path: Pillow.fromarray(noise(60, 60)).save(path),
    "a.bmp": lambda path: Pillow.fromarray(noise(60, 60)).save(path),
    "a.tif": lambda path: Pillow.fromarray(noise(60, 60)).save(path, compression="tiff_lzw"),
    "b.tif": lambda path: tifffile.imwrite(path, np.moveaxis(noise(60, 60), 2, 0), photometric="rgb", planarconfig=2),
    "c.tif": lambda path: pyramid(path, [noise(300, 300)]),
    "a.ome.tif": lambda path: tifffile.imwrite(path, noise(60, 60), photometric="rgb", ome=True),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.9])
def test_a_file_that_is_cut_is_an_error(name: str, part: float, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ReadError):
        read_all(path)


@pytest.mark.parametrize("name", ["absent.png", "absent.tif", "folder.png", "folder.tif"])
def test_what_is_no_file_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(ReadError):
        read_all(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "tif", "svs", "ndpi", "mrxs", "dcm"])
def test_text_is_no_image(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text("not an image\n" * 100)
    with pytest.raises(ReadError):
        read_all(path)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(WRITERS)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5))
def test_changed_bytes_raise_nothing_but_our_own_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[float, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"changed-{name}"
    WRITERS[name](path)
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[min(int(at * len(data)), len(data) - 1)] = value
    path.write_bytes(data)
    try:
        read_all(path)
    except ReadError as error:
        assert error.where is not None  # noqa: PT017


def read_all(path: Path) -> None:
    with open_image([path]) as image:
        thumbnail(image, 64)
        image.read(0, 0, min(image.width, 300), min(image.height, 300))


@pytest.mark.parametrize("planar", [False, True])
def test_a_few_bytes_that_claim_gigabytes_are_refused_at_once(planar: bool, tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(
        path,
        shape=(3, 12_000, 12_000) if planar else (12_000, 12_000, 3),
        dtype=np.uint8,
        photometric="rgb",
        planarconfig="separate" if planar else "contig",
        compression="zlib",
        rowsperstrip=12_000,
        data=iter([zlib.compress(b"")] * (3 if planar else 1)),
    )
    for file in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(ReadError, match=r"claims 12000 x 12000 pixels in \d+ bytes"):
            flat(file)


def as_ndpi(tiff: bytes) -> bytes:
    """The directories of a TIFF once more at its end, with Hamamatsu's offsets of 8 bytes and upper halves."""
    data, (at,) = bytearray(tiff), struct.unpack_from("<I", tiff, 4)
    link = 4
    while at:
        (count,) = struct.unpack_from("<H", tiff, at)
        entries = tiff[at : at + 2 + 12 * count]
        (at,) = struct.unpack_from("<I", tiff, at + 2 + 12 * count)
        data += bytes(-len(data) % 8)
        struct.pack_into("<Q", data, link, len(data))
        link = len(data) + len(entries)
        data += entries + bytes(8) + bytes(4 * count)
    return bytes(data)


def test_of_the_focal_planes_of_an_ndpi_the_one_in_focus_is_read(tmp_path: Path) -> None:
    planes = {focus: np.full((64, 128, 3), 100 + focus, np.uint8) for focus in (-50, 0, 50)}
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        for focus, pixels in planes.items():
            tags = [(65420, "I", 1, 1, True), (65421, "f", 1, 20.0, True), (65424, "i", 1, focus, True)]
            writer.write(
                pixels,
                photometric="rgb",
                compression="jpeg",
                rowsperstrip=64,
                resolution=(40_000, 40_000),
                resolutionunit="CENTIMETER",
                extratags=[*tags, (65422, "i", 1, 0, True), (65423, "i", 1, 0, True)],
                metadata=None,
            )
    (tmp_path / "s.ndpi").write_bytes(as_ndpi((tmp_path / "s.tif").read_bytes()))
    with open_image([tmp_path / "s.ndpi"]) as image:
        assert image.mpp == 0.25
        assert np.abs(image.read(0, 0, 128, 64).astype(int) - 100).max() <= 1
        assert image.notes == ("2 more focal planes not read",)
