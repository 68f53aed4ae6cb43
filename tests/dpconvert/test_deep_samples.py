"""Samples of other than 8 bits in formats that Pillow scales as it opens them: PNM, PAM and JPEG 2000."""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from dpconvert.annotations import mask_pixels
from dpconvert.errors import ReadError
from dpconvert.image import flat
from dpconvert.image.guards.jpeg2000 import precisions

random = np.random.default_rng(4)


def netpbm(samples: NDArray[Any], white: int, kind: str) -> bytes:
    height, width, channels = samples.shape
    if kind == "P7":
        alpha = "_ALPHA" * (channels == 4)
        head = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL {white}\nTUPLTYPE RGB{alpha}\nENDHDR\n"
    else:
        head = f"{kind}\n# written by hand\n{width} {height}\n{white}\n"
    if kind in ("P2", "P3"):
        return head.encode() + b" # samples\n" + b"\n".join(b"%d" % value for value in samples.ravel())
    return head.encode() + samples.astype(">u2" if white > 255 else "u1").tobytes()


@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6", "P7"])
@pytest.mark.parametrize("white", [65535, 4095, 1023, 255, 15, 1000, 100])
def test_netpbm_keeps_the_upper_eight_bits_or_is_scaled_to_its_own_white(kind: str, white: int) -> None:
    samples = random.integers(0, white + 1, (9, 11, 1 if kind in ("P2", "P5") else 3))
    samples[0, 0], samples[0, 1] = 0, white
    bits = {65535: 16, 4095: 12, 1023: 10}.get(white)
    expected = samples >> bits - 8 if bits else np.floor(samples * 255 / white + 0.5)
    found = flat(io.BytesIO(netpbm(samples, white, kind)))
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


def test_pam_lays_opacity_over_white() -> None:
    samples = np.array([[[4095, 0, 0, 4095], [4095, 0, 0, 0]]])
    assert flat(io.BytesIO(netpbm(samples, 4095, "P7"))).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_bitmaps_have_ones_for_black() -> None:
    assert flat(io.BytesIO(b"P4\n3 2\n\xa0\x40"))[:, :, 0].tolist() == [[0, 255, 0], [255, 0, 255]]
    assert flat(io.BytesIO(b"P1\n3 2\n101\n0 1 0"))[:, :, 0].tolist() == [[0, 255, 0], [255, 0, 255]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (netpbm(np.ones((2, 2, 3)), 255, "P6") * 2, "several images in one file, where one is expected"),
        (netpbm(np.ones((2, 2, 3)), 255, "P6")[:-1], "damaged or missing: cut off"),
        (netpbm(np.full((2, 2, 3), 16), 15, "P3"), "samples up to 16, where 12 up to 15"),
        (netpbm(np.full((2, 2, 3), 4095), 65535, "P6"), r"of 12 bits\?"),
        (b"P6\n99999 99999\n255\n", "claims 99999 x 99999"),
        (b"P6\n0 1\n255\n", "a head of 0 x 1"),
        (b"P7\nWIDTH 2\n", "a head without an end"),
    ],
)
def test_netpbm_that_is_no_whole_image_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        flat(io.BytesIO(data))


def test_a_mask_in_pgm_has_the_values_that_it_stores() -> None:
    """Pillow makes 85 and 170 of the classes 1 and 2 of 3."""
    mask = np.array([[[0], [1]], [[2], [3]]])
    assert mask_pixels.read(netpbm(mask, 3, "P5"), "m.pgm", colours=False).tolist() == [[0, 1], [2, 3]]
    assert mask_pixels.read(netpbm(mask * 100, 1000, "P5"), "m.pgm", colours=False).tolist() == [[0, 100], [200, 300]]


@pytest.mark.parametrize("bits", [4, 8, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_jpeg_2000_keeps_the_upper_eight_bits(bits: int, channels: int, codec: Any) -> None:
    """Pillow rounds 16-bit colours up and over: white becomes black."""
    samples = random.integers(0, 1 << bits, (20, 24, channels)).astype(np.uint8 if bits <= 8 else np.uint16)
    samples[0] = (1 << bits) - 1
    data = imagecodecs.jpeg2k_encode(samples.squeeze(), level=0, bitspersample=bits, codecformat=codec)
    assert precisions(data) == {(bits, False)}
    expected = samples.astype(int) * 255 // ((1 << bits) - 1) if bits < 8 else samples.astype(int) >> bits - 8
    if channels == 4:
        alpha = expected[:, :, 3:]
        expected = (expected[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
    found = flat(io.BytesIO(data))
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


def test_jpeg_2000_of_few_or_signed_bits_is_refused_like_other_formats() -> None:
    dark = imagecodecs.jpeg2k_encode(np.full((20, 24, 3), 3000, np.uint16), level=0)
    with pytest.raises(ReadError, match=r"of 12 bits\?"):
        flat(io.BytesIO(dark))
    assert flat(io.BytesIO(dark), (0, 4095))[0, 0].tolist() == [187] * 3  # 3000 / 4095 * 255 = 186.8
    with pytest.raises(ReadError, match="int16 samples"):
        flat(io.BytesIO(imagecodecs.jpeg2k_encode(np.full((20, 24), -5, np.int16), level=0)))
