import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from dpconvert.image.decode import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    pixels = decode(data)
    assert pixels.shape == (9, 7, 3)
    return pixels


def test_png_pixels_come_back_as_they_were() -> None:
    assert np.array_equal(decoded(encoded(RGB)), PIXELS)


@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 95, "subsampling": 0}, {"progressive": True}])
def test_jpeg_decodes_as_pillow_does(options: dict[str, Any]) -> None:
    data = encoded(RGB, "JPEG", **options)
    assert np.array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_grey_is_repeated_over_three_channels(kind: str) -> None:
    data = encoded(RGB.convert("L"), kind)
    assert np.array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_a_palette_is_looked_up() -> None:
    image = RGB.quantize(8)
    assert np.array_equal(decoded(encoded(image)), np.asarray(image.convert("RGB")))


def test_one_bit_is_black_and_white() -> None:
    assert set(np.unique(decoded(encoded(RGB.convert("1"))))) == {0, 255}


def test_transparency_shows_white() -> None:
    pixels = np.zeros((9, 7, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:, 0, 3], pixels[:, 1, 3], pixels[:, 2:, 3] = 0, 51, 255
    result = decoded(encoded(Image.fromarray(pixels)))
    assert result[0, 0].tolist() == [255, 255, 255]
    assert result[0, 1].tolist() == [244, 204, 204]  # a fifth of (200, 0, 0) over four fifths of white
    assert result[0, 2].tolist() == [200, 0, 0]


def test_grey_with_transparency_shows_white() -> None:
    image = Image.fromarray(np.full((9, 7), 10, np.uint8)).convert("LA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (decoded(encoded(image)) == 255).all()


def test_of_sixteen_bits_the_upper_eight_are_kept() -> None:
    deep = PIXELS.astype(np.uint16) * 256 + 255
    assert np.array_equal(decoded(imagecodecs.png_encode(deep)), PIXELS)
    assert np.array_equal(decoded(imagecodecs.png_encode(deep[..., 0].copy()))[..., 2], PIXELS[..., 0])


def test_a_cmyk_jpeg_decodes_as_pillow_does() -> None:
    data = encoded(RGB.convert("CMYK"), "JPEG")
    assert np.array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_orientation_tags_are_applied() -> None:
    """In shards of older versions; those made now hold no such file."""
    exif = Image.Exif()
    exif[274] = 6
    turned = decode(encoded(RGB, "JPEG", exif=exif))
    assert np.array_equal(turned, np.rot90(decoded(encoded(RGB, "JPEG")), -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_cut_image_is_an_error(kind: str, share: float) -> None:
    data = encoded(RGB.resize((90, 70)), kind)
    with pytest.raises(ValueError, match=r"."):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(data)


def test_a_changed_byte_in_a_png_is_noticed() -> None:
    data = bytearray(encoded(RGB.resize((90, 70))))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ValueError, match=r"."):
        decode(bytes(data))


@pytest.mark.parametrize("filled", [b"", b"\xff"], ids=["plain", "filled"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_that_claims_more_than_it_can_hold_is_refused_at_once(kind: str, filled: bytes) -> None:
    """Thirteen thousand pixels each way; between segments of a JPEG there may be bytes that mean nothing."""
    data = encoded(RGB, kind)
    if kind == "JPEG":
        data = data[:2] + filled + data[2:]
        assert np.array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(data))))
    changed = bytearray(data)
    at, form = (16, ">II") if kind == "PNG" else (data.index(b"\xff\xc0") + 5, ">HH")
    struct.pack_into(form, changed, at, 13_000, 13_000)
    with pytest.raises(ValueError, match=r"claims 13000 x 13000 pixels in \d+ bytes"):
        decode(bytes(changed))


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = encoded(RGB, "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    decode(data[:-2] + 80 * last + data[-2:])
    with pytest.raises(ValueError, match="more than 100 scans"):
        decode(data[:-2] + 100 * last + data[-2:])


@pytest.mark.parametrize(
    ("kept", "zeros", "said"),
    [
        (8, 0, "no image data"),
        (11, 0, "no image data"),
        (8, 100, "byte 12 is not the name"),
        (33, 100, "byte 37 is not"),
    ],
)
def test_a_png_filled_with_zeros_gives_the_same_reason_each_time(kept: int, zeros: int, said: str) -> None:
    """The library puts the name of a chunk into its message, and arbitrary memory for one that is no text."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "PNG")
    with pytest.raises(ValueError, match=said):
        decode(stream.getvalue()[:kept] + bytes(zeros))
