"""What the headers of JPEG 2000 streams state, of headers written here marker by marker."""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpconvert.image.guards.jpeg2000 import claimed, precisions

WHOLE = 15  # exponent of a precinct as large as can be


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">HH", marker, len(body) + 2) + body


def coding(exponent: int, layers: int = 1, levels: int = 0, *, of: int | None = None, block: int = 6) -> bytes:
    """COD, or COC of a component: lossless, blocks and precincts of 2 to their exponents at each resolution."""
    blocks = struct.pack(">BBBBB", levels, block - 2, block - 2, 0, 1) + bytes([exponent | exponent << 4]) * (
        levels + 1
    )
    if of is not None:
        return segment(0xFF53, bytes([of, 1]) + blocks)
    return segment(0xFF52, struct.pack(">BBHB", 1, 0, layers, 0) + blocks)


def part(*segments: bytes, body: bytes = bytes(100), size: int | None = None) -> bytes:
    """A tile-part of the first tile with markers of its own."""
    header = b"".join(segments)
    size = 12 + len(header) + 2 + len(body) if size is None else size
    return segment(0xFF90, struct.pack(">HIBB", 0, size, 0, 1)) + header + b"\xff\x93" + body


def stream(*segments: bytes, side: int = 1024, tile: int = 0, components: int = 1, parts: bytes | None = None) -> bytes:
    tile = tile or side
    of_each = b"\x07\x01\x01" * components
    size = segment(0xFF51, struct.pack(">H8IH", 0, side, side, 0, 0, tile, tile, 0, 0, components) + of_each)
    quantization = segment(0xFF5C, bytes([0x40] + [8 << 3] * 19))
    return b"\xff\x4f" + size + b"".join(segments) + quantization + (part() if parts is None else parts) + b"\xff\xd9"


@pytest.mark.parametrize(
    "data",
    [
        stream(coding(WHOLE)),
        stream(coding(0)),
        stream(coding(4, 65_535)),
        stream(coding(WHOLE), tile=10),
        stream(coding(WHOLE), parts=b""),
    ],
)
def test_a_stream_claims_its_samples_however_they_are_divided(data: bytes) -> None:
    assert claimed(data) == 1024 * 1024


@pytest.mark.parametrize(
    "data", [b"", b"\xff\x4f", stream()[:40], stream(coding(WHOLE), components=0), stream(side=0, tile=1)]
)
def test_headers_that_do_not_tell_are_none(data: bytes) -> None:
    assert claimed(data) is None


def boxed(*boxes: tuple[bytes, bytes]) -> bytes:
    return b"".join(struct.pack(">I4s", len(body) + 8, kind) + body for kind, body in boxes)


def test_samples_of_a_palette_are_indices() -> None:
    plain = stream(coding(WHOLE), components=3)
    first = (b"jP  ", b"\r\n\x87\n")
    assert claimed(boxed(first, (b"jp2h", bytes(20)), (b"jp2c", plain))) == claimed(plain) == 3 * 1024 * 1024
    assert precisions(boxed(first, (b"jp2h", bytes(20)), (b"jp2c", plain))) == {(8, False)}
    with_palette = boxed((b"jp2h", boxed((b"pclr", bytes(20)))), (b"jp2c", plain))
    assert (claimed(with_palette), precisions(with_palette)) == (claimed(plain), set())


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([0, 1, 3]),
    st.sampled_from(["j2k", "jp2"]),
    st.sampled_from([None, 30]),
)
def test_what_openjpeg_writes_claims_its_samples(
    width: int, height: int, channels: int, kind: Any, level: int | None
) -> None:
    pixels = np.zeros((height, width, channels) if channels else (height, width), np.uint8)
    assert claimed(imagecodecs.jpeg2k_encode(pixels, codecformat=kind, level=level)) == pixels.size
