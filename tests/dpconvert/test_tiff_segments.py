"""Data of strips and tiles that claim more than their page has are refused before they are decoded."""

from __future__ import annotations

import io
import struct
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from dpconvert.annotations import mask_pixels
from dpconvert.errors import ReadError
from dpconvert.image import Slide, open_image
from dpconvert.image.flat import flat
from dpconvert.image.guards.jpeg import MOST_SCANS
from dpconvert.image.guards.tiff_segments import LITTLE, check_segment, pixels
from dpconvert.image.tiff.tiff_pages import TiffPages
from tests.dpconvert.tiffs import TILE, shared_tiles

WIDE, TALL = 1200, 1000  # more than LITTLE
assert WIDE * TALL > LITTLE


def encoded(**codec: Any) -> bytes:
    ((name, options),) = codec.items()
    rgb = np.zeros((TALL, WIDE, 4 if options.pop("alpha", False) else 3), np.uint8)
    return bytes(getattr(imagecodecs, f"{name}_encode")(rgb, **options))


def progressive(scans: int, thumbnail: bytes = b"", mode: str = "L", side: int = 16) -> bytes:
    """A JPEG whose last scan comes again and again; `thumbnail` stands in a segment of its own."""
    buffer = io.BytesIO()
    Pillow.new(mode, (side, side)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    if thumbnail:
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail + data[2:]
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]


def page(compression: int, wide: int, tall: int) -> Any:
    return SimpleNamespace(compression=compression, is_tiled=True, tilewidth=wide, tilelength=tall, samplesperpixel=3)


STREAMS: dict[str, tuple[int, dict[str, Any]]] = {
    "JPEG": (7, {"jpeg8": {}}),
    "JPEG, older": (6, {"jpeg8": {}}),
    "JPEG, lossless": (33007, {"ljpeg": {}}),
    "JPEG 2000": (34712, {"jpeg2k": {"codecformat": "j2k"}}),
    "JPEG 2000 in boxes": (33005, {"jpeg2k": {"codecformat": "jp2"}}),
    "WebP": (50001, {"webp": {"level": 50, "lossless": False}}),
    "WebP, lossless": (50001, {"webp": {"level": 50, "lossless": True}}),
    "WebP with transparency": (34927, {"webp": {"level": 50, "lossless": False, "alpha": True}}),
    "PNG": (34933, {"png": {}}),
}


@pytest.mark.parametrize("name", STREAMS)
def test_data_are_taken_where_they_fit_and_refused_where_they_claim_more(name: str) -> None:
    compression, codec = STREAMS[name]
    try:
        data = encoded(**{key: dict(options) for key, options in codec.items()})
    except ValueError:  # the lossless coder wants grey
        data = bytes(imagecodecs.ljpeg_encode(np.zeros((TALL, WIDE), np.uint8)))
    check_segment(page(compression, WIDE, TALL), data)
    with pytest.raises(ValueError, match=r"claim \d{7,} samples, where 64 x 64 pixels are expected"):
        check_segment(page(compression, 64, 64), data)
    for cut in (b"", data[:11], data[:20]):
        with pytest.raises(ValueError, match="do not state their size"):
            check_segment(page(compression, WIDE, TALL), cut)


def test_what_cannot_be_seen_beforehand_is_refused() -> None:
    for compression in (22610, 34887, 50002, 12345):
        with pytest.raises(ValueError, match=r"compression that is not read|not a valid COMPRESSION"):
            check_segment(page(compression, 64, 64), b"data")
    check_segment(page(7, 16, 16), progressive(MOST_SCANS - 10))
    with pytest.raises(ValueError, match="more than 100 scans"):
        check_segment(page(7, 16, 16), progressive(MOST_SCANS + 1))
    with pytest.raises(ValueError, match="more than 100 scans"):
        check_segment(
            page(7, 16, 16), progressive(MOST_SCANS + 1, bytes(imagecodecs.jpeg8_encode(np.zeros((8, 8, 3), np.uint8))))
        )
    check_segment(page(7, 16, 16), bytes(imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8))) + b"\xff\xda" * 200)


def test_every_way_to_read_a_tiff_refuses_them(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.zeros((64, 64), np.uint8), tile=(64, 64), compression="jpeg2000", photometric="minisblack"
    )
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        at = data.index(b"\xff\x4f\xff\x51", tiff.pages.first.dataoffsets[0]) + 8
    path.write_bytes(data[:at] + struct.pack(">8I", *[4096, 4096, 0, 0] * 2) + data[at + 32 :])
    with closing(TiffPages(path)) as pages, pytest.raises(ReadError, match=r"claim 1[67]\d{6} samples"):
        pages.region(0, 0, 0, 64, 64)
    with pytest.raises(ReadError, match=r"claim 1[67]\d{6} samples"):
        flat(path)
    with pytest.raises(ReadError, match=r"claim 1[67]\d{6} samples"):
        mask_pixels._coarser(path.read_bytes(), "a.tif")


def test_a_page_of_more_bytes_than_may_be_held_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((64, 64), np.uint16), tile=(64, 64), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tiff:
        assert (pixels(tiff.pages.first, 64 * 64 * 2) == 1).all()
        with pytest.raises(ValueError, match="more than 0 MiB of pixels"):
            pixels(tiff.pages.first, 64 * 64 * 2 - 1)


def test_jpegs_of_many_scans_are_refused_wherever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = progressive(MOST_SCANS + 1, mode="RGB", side=TILE)
    (tmp_path / "a.jpg").write_bytes(many)
    with pytest.raises(ReadError, match="more than 100 scans"):
        flat(tmp_path / "a.jpg")
    monkeypatch.setattr("imagecodecs.jpeg8_encode", lambda *_, **__: many)
    with Slide(shared_tiles(tmp_path / "a.tif", 4 * TILE, TILE, np.zeros((TILE, TILE, 3), np.uint8))) as slide:
        for read in (slide.read, slide.overview):
            with pytest.raises(ReadError, match="more than 100 scans"):
                read(0, 0, TILE, TILE, (TILE // 8, TILE // 8))


@pytest.mark.parametrize("compression", ["lerc", "jpegxl", "jpegxr"])
@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_a_compression_that_nothing_reads_is_not_called_damage(
    tmp_path: Path, compression: str, tile: tuple[int, int] | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), compression=compression, photometric="rgb", tile=tile)
    with pytest.raises(ReadError) as raised:
        open_image([path], 1).read(0, 0, 8, 8)
    told = str(raised.value)
    assert told.startswith(f"{path}: a TIFF with an unsupported compression; found {compression.upper()}")
    assert "fetch it again" not in told
