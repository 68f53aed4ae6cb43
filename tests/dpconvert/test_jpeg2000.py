"""What JPEG 2000 streams cost, of headers written here marker by marker."""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpconvert.image.guards.jpeg2000 import OF_A_BLOCK, OF_A_PACKET, OF_A_PRECINCT, OF_A_TILE, claimed

WHOLE = 15  # exponent of a precinct as large as can be
A_PRECINCT = 3 * OF_A_PRECINCT + OF_A_PACKET


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


def cost(side: int, precincts: int, *, layers: int = 1, blocks: int = 0) -> int:
    """Of a component of one tile."""
    blocks = blocks or (-(-side // 64)) ** 2
    return side * side + precincts * (3 * OF_A_PRECINCT + layers * OF_A_PACKET) + blocks * OF_A_BLOCK


def test_a_usual_stream_costs_its_samples_and_little_more() -> None:
    assert claimed(stream(coding(WHOLE))) == 1024 * 1024 + A_PRECINCT + 256 * OF_A_BLOCK == 1_060_800
    twelve = claimed(stream(coding(7, 12, 5), components=3))
    assert twelve == 3 * cost(1024, 64 + 16 + 4 + 1 + 1 + 1, layers=12)
    assert twelve < 1.3 * 3 * 1024 * 1024


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (stream(coding(1), side=256), cost(256, 128 * 128)),
        (stream(coding(3)), cost(1024, 128 * 128)),
        (stream(coding(WHOLE, 65_535)), cost(1024, 1, layers=65_535)),
        (stream(coding(4, 99), components=2), 2 * cost(1024, 64 * 64, layers=99)),
        (stream(coding(2, levels=1), side=100), cost(100, 13 * 13 + 25 * 25)),
        (stream(coding(WHOLE, block=2)), cost(1024, 1, blocks=256 * 256)),
        (stream(coding(WHOLE), coding(3, of=0)), cost(1024, 128 * 128)),
        (stream(coding(3, of=0), coding(WHOLE, 9)), cost(1024, 128 * 128, layers=9)),
        (stream(coding(WHOLE), parts=part(coding(3))), cost(1024, 128 * 128)),
        (stream(coding(WHOLE), parts=part() + part(coding(3, of=0))), cost(1024, 128 * 128)),
        (stream(coding(WHOLE), parts=part(coding(3), size=0)), cost(1024, 128 * 128)),
        (stream(coding(WHOLE), side=100, tile=10), 100 * (cost(10, 4) + OF_A_TILE)),
        (stream(coding(2), side=100, tile=10), 100 * (cost(10, 16) + OF_A_TILE)),
    ],
)  # fmt: skip
def test_precincts_blocks_layers_and_tiles_are_counted_wherever_they_are_stated(data: bytes, expected: int) -> None:
    assert claimed(data) == expected


@pytest.mark.parametrize(
    "data", [stream(coding(WHOLE), side=10_000), stream(coding(0)), stream(coding(4, 65_535), components=2)]
)
def test_what_takes_a_gigabyte_or_minutes_is_refused(data: bytes) -> None:
    """Eight bytes a sample: no limit on memory is wanted from who asks."""
    with pytest.raises(ValueError, match=r"JPEG 2000 that takes as much as \d{9,} samples"):
        claimed(data)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff\x4f", stream()[:60], stream(coding(WHOLE)[:-1]), stream(segment(0xFF00, b"")), stream(parts=b""),
        stream(b"\xff\x52\0\0"), stream(parts=part(size=13)), stream(coding(WHOLE), components=0),
        stream(coding(3)[:4] + coding(3)[4:-1]),
    ],
)  # fmt: skip
def test_headers_that_do_not_tell_are_none(data: bytes) -> None:
    assert claimed(data) is None


def boxed(*boxes: tuple[bytes, bytes]) -> bytes:
    return b"".join(struct.pack(">I4s", len(body) + 8, kind) + body for kind, body in boxes)


def test_a_palette_is_none_since_it_makes_many_components_of_one() -> None:
    plain = stream(coding(WHOLE))
    assert claimed(boxed((b"jP  ", b"\r\n\x87\n"), (b"jp2h", bytes(20)), (b"jp2c", plain))) == claimed(plain)
    assert claimed(boxed((b"jp2h", boxed((b"pclr", bytes(20)))), (b"jp2c", plain))) is None


@given(
    st.integers(1, 90), st.integers(1, 90), st.sampled_from([0, 1, 3]), st.sampled_from(["j2k", "jp2"]),
    st.sampled_from([None, 30]),
)  # fmt: skip
def test_what_openjpeg_writes_costs_little_more_than_its_samples(
    width: int, height: int, channels: int, kind: Any, level: int | None
) -> None:
    pixels = np.zeros((height, width, channels) if channels else (height, width), np.uint8)
    told = claimed(imagecodecs.jpeg2k_encode(pixels, codecformat=kind, level=level))
    assert told is not None
    assert pixels.size <= told <= pixels.size + (6 * A_PRECINCT + 4 * OF_A_BLOCK) * max(channels, 1)
