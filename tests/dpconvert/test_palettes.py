"""Images of indexes: every index has a colour in the palette, or the image is refused."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from dpconvert.annotations import mask_pixels, masks
from dpconvert.errors import ReadError
from dpconvert.image import open_image
from dpconvert.image.rgb import KindError, to_rgb

Indexes = NDArray[np.uint8]
Colours = list[tuple[int, int, int]]
FOUR: Colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 99, 199)]
BLACK_AND_WHITE: Colours = [(0, 0, 0), (255, 255, 255)]
SHADES: Colours = [(shade, shade, shade) for shade in range(16)]
DRAWN = np.random.default_rng(0).integers(0, 4, (6, 8), dtype=np.uint8)


def png(indexes: Indexes, colours: Colours, transparency: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = indexes.shape
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)) + chunk(
        b"PLTE", bytes(sum(colours, ()))
    )
    lines = b"".join(b"\0" + line.tobytes() for line in indexes)
    body = (chunk(b"tRNS", transparency) if transparency else b"") + chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def gif(indexes: Indexes, colours: Colours) -> bytes:
    """As Pillow compresses 256 colours, with a table of fewer."""
    buffer, image = io.BytesIO(), Image.fromarray(indexes, "P")
    image.putpalette(bytes(range(256))[::-1] * 3)
    image.save(buffer, "GIF", optimize=False)
    data = buffer.getvalue()
    size = (len(colours) - 1).bit_length()
    table = 3 * (2 << (data[10] & 7))
    return data[:10] + bytes([data[10] & 0xF8 | size - 1]) + data[11:13] + bytes(sum(colours, ())) + data[13 + table :]


def bmp(indexes: Indexes, colours: Colours, bits: int = 8) -> bytes:
    height, width = indexes.shape
    lines = indexes if bits == 8 else indexes[:, ::2] << 4 | indexes[:, 1::2]
    body = b"".join(line.tobytes() + bytes(-len(line.tobytes()) % 4) for line in lines[::-1])
    table = b"".join(bytes([blue, green, red, 0]) for red, green, blue in colours)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(body), 0, 0, len(colours), 0)
    start = 14 + len(info) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + table + body


def pixels(data: bytes) -> NDArray[np.uint8]:
    file = io.BytesIO(data)
    with open_image([file]) as image:
        return image.read(0, 0, image.width, image.height)


@pytest.mark.parametrize("write", [png, gif, bmp])
def test_a_palette_of_few_colours_is_looked_up(write: Callable[[Indexes, Colours], bytes]) -> None:
    assert np.array_equal(pixels(write(DRAWN, FOUR)), np.array(FOUR, np.uint8)[DRAWN])


@pytest.mark.parametrize("index", [4, 200])
@pytest.mark.parametrize("write", [png, gif, bmp])
def test_an_index_without_a_colour_is_refused(write: Callable[[Indexes, Colours], bytes], index: int) -> None:
    drawn = DRAWN.copy()
    drawn[2, 3] = index
    with pytest.raises(
        ReadError, match=f"an index that its palette gives no colour: {index}, where it has 0 to 3; save"
    ):
        pixels(write(drawn, FOUR))


def test_an_index_without_a_colour_is_refused_beside_transparent_colours() -> None:
    with pytest.raises(ReadError, match="gives no colour: 9,"):
        pixels(png(np.array([[0, 9]], np.uint8), FOUR, b"\x80"))


def test_an_index_beyond_the_colours_of_a_tiff_is_not_its_last_colour() -> None:
    with pytest.raises(KindError, match=re.escape("gives no colour: 3, where it has 0 to 1")):
        to_rgb(np.array([[0, 3]], np.uint8), palette=np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_of_8_bits_in_a_tiff_are_not_black(bits: int, tile: Any, tmp_path: Path) -> None:
    """TIFF's have 16 bits; libtiff and so OpenSlide take a palette without more for one of 8."""
    indexes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colours = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint16)
    stated = colours.T * (1 if bits == 8 else 257)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, indexes, photometric="palette", colormap=stated, tile=tile)
    with open_image([path]) as image:
        assert (image.read(0, 0, 16, 16) == colours[indexes]).all()
    red, green, blue = colours[indexes].astype(np.int32).transpose(2, 0, 1)
    assert (mask_pixels.read(path.read_bytes(), "a.tif", colours=True) == red << 16 | green << 8 | blue).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("colours", [BLACK_AND_WHITE, SHADES])
def test_a_bmp_of_shades_is_read_by_its_bits(colours: Colours, bits: int) -> None:
    """Pillow drops such palettes, and would read eight indexes in a byte, or one, whatever their bits."""
    drawn = DRAWN % len(colours)
    data = bmp(drawn, colours, bits)
    expected = np.array(colours, np.uint8)[drawn]
    other = imagecodecs.bmp_decode(data)
    assert np.array_equal(other if other.ndim == 3 else np.repeat(other[..., None], 3, axis=2), expected)
    assert np.array_equal(pixels(data), expected)


def test_a_bmp_of_shades_with_the_first_kind_of_header_is_read_by_its_bits() -> None:
    lines = b"".join(bytes(16 * a + b for a, b in zip(line[::2], line[1::2], strict=True)) for line in DRAWN[::-1])
    table = b"".join(map(bytes, SHADES))
    head = struct.pack("<IHHHH", 12, 8, 6, 1, 4) + table
    data = b"BM" + struct.pack("<IHHI", 14 + len(head) + len(lines), 0, 0, 14 + len(head)) + head + lines
    assert np.array_equal(pixels(data), np.array(SHADES, np.uint8)[DRAWN])


def test_a_mask_as_bmp_in_black_and_white_gives_its_indexes_or_colours() -> None:
    drawn = DRAWN % 2
    data = bmp(drawn, BLACK_AND_WHITE)
    assert np.array_equal(masks.read(data, "m.bmp", {0: "no", 1: "yes"}, (8, 6)).values, drawn)
    named = masks.read(data, "m.bmp", {"#000000": "no", "#ffffff": "yes"}, (8, 6))
    assert np.array_equal(named.values, np.where(drawn, 0xFFFFFF, 0))
