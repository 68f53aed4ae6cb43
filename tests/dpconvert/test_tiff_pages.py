"""TIFFs read piece by piece, against the array that they were written from."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from dpconvert.errors import ReadError
from dpconvert.image import Pages, open_image, opening
from dpconvert.image.tiff import tiff_checks, tiff_pages
from dpconvert.image.tiff.tiff_pages import TiffPages

WIDTH, HEIGHT = 300, 200
REAL = Path(__file__).parents[3] / "shared" / "data" / "slides" / "OS-1-detail.ome.tif"


def drawn(channels: int = 3, kind: type = np.uint8) -> NDArray[Any]:
    rng = np.random.default_rng(7)
    return rng.integers(0, np.iinfo(kind).max, (HEIGHT, WIDTH, channels), dtype=kind)


def planar(rgb: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(rgb, 2, 0))


WRITTEN: dict[str, dict[str, Any]] = {
    "one strip": {"rowsperstrip": HEIGHT},
    "strips, PackBits": {"rowsperstrip": 7, "compression": "packbits"},
    "strips, LZW, big endian": {"rowsperstrip": 13, "compression": "lzw", "predictor": True, "byteorder": ">"},
    "tiles": {"tile": (64, 48)},
    "tiles, deflate": {"tile": (64, 64), "compression": "zlib"},
    "planar strips": {"rowsperstrip": 9, "planarconfig": "separate"},
    "planar tiles, PackBits": {"tile": (32, 32), "planarconfig": "separate", "compression": "packbits"},
    "BigTIFF": {"tile": (64, 64), "bigtiff": True},
    "tiles, LZMA": {"tile": (64, 64), "compression": "lzma"},
    "tiles, Zstandard": {"tile": (64, 64), "compression": "zstd"},
    "tiles, JPEG 2000": {"tile": (64, 64), "compression": "jpeg2000"},
    "planar strips, JPEG 2000": {"rowsperstrip": 50, "planarconfig": "separate", "compression": "jpeg2000"},
    "tiles, WebP": {"tile": (64, 64), "compression": "webp", "compressionargs": {"lossless": True}},
    "tiles, PNG": {"tile": (64, 64), "compression": "png"},
}


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    writer = {key: options.pop(key) for key in ("bigtiff", "byteorder", "ome") if key in options}
    if options.get("planarconfig") == "separate":
        pixels = planar(pixels)
    with tifffile.TiffWriter(path, **writer) as tiff:
        tiff.write(pixels, **({"photometric": "rgb", "metadata": None} | options))
    return path


@pytest.mark.parametrize("layout", WRITTEN)
def test_any_frame_of_any_layout_is_the_array_s(layout: str, tmp_path: Path) -> None:
    rgb = drawn()
    pages = TiffPages(write(tmp_path / "a.tif", rgb, **WRITTEN[layout]))
    for x, y, w, h in ((0, 0, WIDTH, HEIGHT), (0, 0, 1, 1), (63, 47, 2, 2), (100, 13, 150, 100), (299, 199, 1, 1)):
        assert (pages.region(0, x, y, w, h) == rgb[y : y + h, x : x + w]).all()
    pages.close()


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    rgb = drawn(kind=np.uint16)
    pages = TiffPages(write(tmp_path / "a.tif", rgb, tile=(64, 64)))
    assert (pages.region(0, 0, 0, WIDTH, HEIGHT) == rgb >> 8).all()
    pages.close()


def test_grey_inverted_grey_and_palettes(tmp_path: Path) -> None:
    grey = drawn(1)[:, :, 0]
    table = np.random.default_rng(1).integers(0, 1 << 16, (3, 256), dtype=np.uint16)
    for photometric, extra, expected in (
        ("minisblack", {}, grey),
        ("miniswhite", {}, 255 - grey),
        ("palette", {"colormap": table}, None),
    ):
        pages = TiffPages(write(tmp_path / f"{photometric}.tif", grey, photometric=photometric, tile=(64, 64), **extra))
        found = pages.region(0, 0, 0, WIDTH, HEIGHT)
        looked_up = (table >> 8).T[grey] if expected is None else expected[:, :, None]
        assert (found == looked_up).all()
        pages.close()


def test_transparency_is_laid_over_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LARGE", 0)
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[:, :150, 3] = 255
    path = write(tmp_path / "a.tif", rgba, rowsperstrip=8, extrasamples=["unassalpha"])
    with open_image([path]) as image:
        assert isinstance(image, Pages)
        assert image.read(0, 0, WIDTH, HEIGHT)[:, :, 0].mean(axis=0).tolist() == [0.0] * 150 + [255.0] * 150


def test_what_the_file_leaves_out_is_white(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.zeros((HEIGHT, WIDTH, 3), np.uint8), tile=(64, 64))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        counts = [*tiff.pages.first.databytecounts]
        counts[1] = 0
        tiff.pages.first.tags[325].overwrite(counts)
    pages = TiffPages(path)
    assert (pages.region(0, 0, 0, 64, 64) == 0).all()
    assert (pages.region(0, 64, 0, 64, 64) == 255).all()
    pages.close()


def test_an_ome_pyramid_is_read_at_the_level_wanted(tmp_path: Path) -> None:
    rgb = np.full((256, 512, 3), 100, np.uint8)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64)}
        tiff.write(rgb, subifds=2, metadata={"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"}, **options)
        tiff.write(rgb[::2, ::2] + 50, subfiletype=1, **options)
        tiff.write(rgb[::4, ::4] + 100, subfiletype=1, **options)
    with open_image([path]) as image:
        assert (image.width, image.height, image.mpp) == (512, 256, 0.25)
        seen = [
            int(image.read(64, 64, 128, 64, out=out).mean())
            for out in ((128, 64), (64, 32), (50, 25), (32, 16), (8, 4))
        ]
        assert seen == [100, 150, 150, 200, 200]
        assert [image.downsample(128, 64, out) for out in ((128, 64), (64, 32), (8, 4))] == [1, 2, 4]


def test_colours_in_three_pages_are_put_together(tmp_path: Path) -> None:
    rgb = drawn()
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        tiff.write(planar(rgb), photometric="minisblack", tile=(64, 64), metadata={"axes": "CYX"})
    with open_image([tmp_path / "a.ome.tif"]) as image:
        assert (image.read(10, 20, 100, 50) == rgb[20:70, 10:110]).all()


@pytest.mark.parametrize(
    ("tags", "mpp"),
    [
        ({"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({}, None),
    ],
)
def test_the_resolution_of_the_tags_unless_it_is_absurd(
    tags: dict[str, Any], mpp: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LARGE", 0)
    with open_image([write(tmp_path / "a.tif", drawn(), rowsperstrip=8, **tags)]) as image:
        assert image.mpp == mpp


def test_only_the_segments_of_a_frame_are_read_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_pages, "CACHE", 3 * 64 * 64 * 3)
    monkeypatch.setattr(tiff_pages, "ROW_CACHE", 0)
    pages = TiffPages(write(tmp_path / "a.tif", drawn(), tile=(64, 64), compression="zlib"))
    pages.region(0, 0, 0, 65, 64)
    assert [key[2] for key in pages._cache] == [0, 1]
    pages.region(0, 0, 0, WIDTH, HEIGHT)
    assert len(pages._cache) == 3
    pages.close()


def test_a_large_strip_is_mapped_when_it_is_stored_as_it_is_and_refused_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_checks, "SEGMENT_LIMIT", 1000)
    rgb = drawn(kind=np.uint16)
    for options in ({}, {"byteorder": ">"}, {"planarconfig": "separate"}):
        pages = TiffPages(write(tmp_path / "plain.tif", rgb, rowsperstrip=HEIGHT, **options))
        assert (pages.region(0, 5, 6, 70, 80) == rgb[6:86, 5:75] >> 8).all()
        pages.close()
    with pytest.raises(ReadError, match="tiled TIFF"):
        TiffPages(write(tmp_path / "packed.tif", rgb, rowsperstrip=HEIGHT, compression="zlib"))


@pytest.mark.parametrize(
    "make", [lambda: np.zeros((20, 20, 3), np.float32), lambda: np.zeros((20, 20, 5), np.uint8)], ids=["float", "five"]
)
def test_pixels_of_an_unknown_kind_are_refused(make: Callable[[], NDArray[Any]], tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no known meaning"):
        TiffPages(write(tmp_path / "a.tif", make(), photometric="minisblack", planarconfig="contig"))


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        tiff.write(drawn(), photometric="rgb", tile=(64, 64), compression="zlib", metadata=None)
    good, rng, path = buffer.getvalue(), np.random.default_rng(5), tmp_path / "a.tif"
    for number in range(200):
        data = bytearray(good)
        for at in rng.integers(0, len(data) if rng.random() < 0.3 else 2000, 3):
            data[-at - 1 if rng.random() < 0.5 else at] = int(rng.integers(256))
        path.write_bytes(data[: int(rng.integers(100, len(data)))] if rng.random() < 0.2 else data)
        try:
            pages = TiffPages(path)
            try:
                pages.region(0, 0, 0, min(pages.width, 500), min(pages.height, 500))
            finally:
                pages.close()
        except ReadError:
            pass
        except Exception as error:
            error.add_note(f"input {number} of {hashlib.sha256(good).hexdigest()}, changed to {bytes(data[:2000])!r}")
            raise


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_file(), reason="needs the real OME-TIFF")
def test_the_real_ome_tiff_that_openslide_and_pillow_refuse() -> None:
    with open_image([REAL]) as image:
        assert (image.width, image.height) == (1101, 1101)
        assert image.mpp == pytest.approx(0.2271, abs=1e-4)
        with tifffile.TiffFile(REAL) as tiff:
            assert (image.read(100, 50, 900, 1000) == tiff.pages.first.asarray()[50:1050, 100:1000]).all()


def test_strips_are_decoded_once_when_patches_are_taken_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_pages, "CACHE", 0)
    pages, decoded = TiffPages(write(tmp_path / "a.tif", drawn(), rowsperstrip=8, compression="zlib")), []
    assert pages.in_strips
    page = pages.levels[0].pages[0]
    decode = page.decode
    monkeypatch.setattr(page, "decode", lambda *data, **more: decoded.append(data[1]) or decode(*data, **more))
    for y in range(0, HEIGHT - 20, 20):
        for x in range(0, WIDTH - 20, 20):
            pages.region(0, x, y, 20, 20)
    assert sorted(decoded) == list(range(-(-180 // 8)))
    pages.close()


def test_a_tiff_that_is_cut_off_is_reported_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", drawn(), tile=(64, 64), compression="zlib")
    pages = TiffPages(path)
    cut = max(pages.levels[0].pages[0].dataoffsets) + 10
    pages.close()
    with path.open("r+b") as file:
        file.truncate(cut)
    pages = TiffPages(path)
    with pytest.raises(ReadError, match=rf"a.tif: cut off: segment 19 ends at byte \d+; found a file of {cut} bytes"):
        pages.region(0, 256, 192, 44, 8)
    pages.close()


def test_an_ome_tiff_of_several_files_is_read_out_of_each(tmp_path: Path) -> None:
    channels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    ids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{number}" for number in range(3)]
    data = "".join(
        f'<TiffData FirstC="{number}" IFD="0" PlaneCount="1"><UUID FileName="{number}.ome.tif">{name}</UUID></TiffData>'
        for number, name in enumerate(ids)
    )
    sizes = 'DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" SizeC="3" SizeT="1" SizeZ="1"'
    for number, (channel, name) in enumerate(zip(channels, ids, strict=True)):
        xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{name}">'
        xml += f'<Image ID="Image:0"><Pixels ID="Pixels:0" {sizes}>{data}</Pixels></Image></OME>'
        path, side = tmp_path / f"{number}.ome.tif", 16 * (number + 1)  # so that tiles lie elsewhere in each file
        tifffile.imwrite(path, channel, description=xml, metadata=None, tile=(side, side), compression="zlib")
    with open_image([tmp_path / "0.ome.tif"]) as image:
        assert np.array_equal(np.moveaxis(image.read(0, 0, 64, 64), 2, 0), channels)


def test_ome_xml_that_defines_entities_is_none(tmp_path: Path) -> None:
    xml = '<!DOCTYPE OME [<!ENTITY a "ha">]><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">&a;</OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((64, 64, 3), np.uint8), description=xml, metadata=None)
    with pytest.raises(ReadError, match="not a readable TIFF"):
        TiffPages(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("compression", [None, "deflate", "jpeg"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [(16, 16), (16, 48), (48, 48), (32, 80), (64, 64)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiles_of_any_size_and_planes_are_read_as_tifffile_reads_them(
    compression: str | None, planar: str, tile: tuple[int, int], order: Any, tmp_path: Path
) -> None:
    """libtiff refuses uncompressed tiles of no whole kibibytes at the end; planes of JPEG were taken for YCbCr."""
    drawn = np.random.default_rng(3).integers(0, 256, (100, 90, 3), np.uint8)
    is_planar = planar == "separate"
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(drawn, 2, 0) if is_planar else drawn,
        tile=tile,
        planarconfig=planar,
        compression=compression,
        photometric="rgb",
        byteorder=order,
    )
    expected = tifffile.imread(tmp_path / "a.tif")
    with open_image([tmp_path / "a.tif"]) as image:
        found = image.read(0, 0, image.width, image.height)
    np.testing.assert_array_equal(found, np.moveaxis(expected, 0, 2) if is_planar else expected)
