"""Images of known formats alone, which cost what their size tells."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import EpsImagePlugin
from PIL import Image as Pillow

from dpconvert.annotations import mask_pixels
from dpconvert.errors import ReadError
from dpconvert.image.flat import flat
from dpconvert.image.guards.allowed_formats import FORMATS, open_image
from dpconvert.image.guards.jpeg import MOST_SCANS
from tests.dpconvert.test_jpeg2000 import boxed
from tests.dpconvert.test_tiff_segments import progressive

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


def saved(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("L", (8, 8), 7).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_formats_that_datasets_come_in_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(saved(kind))
    assert flat(tmp_path / "a").shape == (8, 8, 3)


def test_an_image_that_pillow_runs_a_program_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript is a program of its own, for which Pillow runs Ghostscript; whatever the file is called."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(tmp_path / "gs"))
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(ReadError, match=r"a\.png: not an image of a known format"):
        flat(tmp_path / "a.png")
    with pytest.raises(ReadError, match="not a readable mask"):
        mask_pixels.read(EPS, "m.png", colours=False)
    assert not (tmp_path / "ran").exists()


def in_several(data: bytes) -> bytes:
    """The same as the first of two images of a file, which Pillow gives another format's name."""
    first = Pillow.new("L", (8, 8))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[first])
    both = buffer.getvalue()
    at = both.index(b"\xff\xe2")
    index = both[at : at + 2 + int.from_bytes(both[at + 2 : at + 4], "big")]
    return data[:2] + index + data[2:]


COSTLY = {
    "scans": progressive(MOST_SCANS + 1),
    "scans of one of several": in_several(progressive(MOST_SCANS + 1)),
}


@pytest.mark.parametrize("name", COSTLY)
def test_images_that_cost_more_than_their_size_tells_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(COSTLY[name])
    with pytest.raises(ReadError, match="more than 100 scans"):
        flat(tmp_path / "a.png")
    with pytest.raises(ReadError, match="more than 100 scans"):
        mask_pixels.read(COSTLY[name], "m.png", colours=False)


def test_an_image_in_jpeg_ls_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.jls").write_bytes(imagecodecs.jpegls_encode(np.zeros((8, 8), np.uint8)))
    with pytest.raises(ReadError, match=r"a\.jls: an image in JPEG-LS, a format that is not read; convert it to PNG"):
        flat(tmp_path / "a.jls")


def test_an_empty_file_is_reported_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ReadError, match=r"a\.png: empty file \(0 bytes\); fetch it again"):
        flat(tmp_path / "a.png")


@pytest.mark.parametrize(
    "layout",
    [
        {"tile_size": (16, 16)},
        {"tile_size": (32, 32), "codeblock_size": (4, 4)},
        {"precinct_size": (32, 32), "codeblock_size": (4, 4), "num_resolutions": 1},
        {"tile_size": (64, 64), "quality_layers": [40, 20, 10, 5, 1], "irreversible": True},
    ],
    ids=str,
)
def test_a_small_jpeg_2000_image_is_read_however_finely_it_is_divided(layout: dict[str, Any], tmp_path: Path) -> None:
    image = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8))
    image.save(tmp_path / "a.jp2", **layout)
    pixels = flat(tmp_path / "a.jp2")
    assert pixels.shape == (480, 640, 3)
    assert layout.get("irreversible") or np.array_equal(pixels, np.asarray(image))


def test_a_jpeg_2000_image_with_a_palette_is_read(tmp_path: Path) -> None:
    """Boxes as a program writes them (ISO/IEC 15444-1, I.5.3): indices 0 and 1, for two colours of three channels."""
    indices = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) // 8 % 2
    code = imagecodecs.jpeg2k_encode(indices, codecformat="j2k", level=0)
    palette = struct.pack(">HB", 2, 3) + bytes([7, 7, 7]) + bytes([200, 10, 30]) + bytes([1, 2, 3])
    boxes = boxed(
        (b"ihdr", struct.pack(">IIHBBBB", 64, 64, 1, 7, 7, 0, 0)),
        (b"colr", b"\1\0\0" + struct.pack(">I", 16)),
        (b"pclr", palette),
        (b"cmap", b"".join(struct.pack(">HBB", 0, 1, column) for column in range(3))),
    )
    whole = boxed((b"jP  ", b"\r\n\x87\n"), (b"ftyp", b"jp2 \0\0\0\0jp2 "), (b"jp2h", boxes), (b"jp2c", bytes(code)))
    (tmp_path / "a.jp2").write_bytes(whole)
    assert np.array_equal(flat(tmp_path / "a.jp2"), np.array([[200, 10, 30], [1, 2, 3]], np.uint8)[indices])


def test_usual_ones_are_not(tmp_path: Path) -> None:
    with open_image(io.BytesIO(in_several(progressive(1)))) as image:
        assert (image.format, image.size) == ("MPO", (16, 16))
    pixels = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="jp2"))
    assert np.array_equal(flat(tmp_path / "a.jp2"), pixels)
