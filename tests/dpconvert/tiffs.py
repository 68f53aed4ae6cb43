"""TIFFs that no usual writer makes: gigantic in a few megabytes, or with holes; a manifest for such slides."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

TILE = 512
LONG8, SHORT, LONG, RATIONAL = 16, 3, 4, 5
TISSUE = """
task = "Tissue"
shape = "slides"
classes = ["normal", "tumour"]
[rule]
type = "area"
size = 256
tissue = 0.3
positive = ["tumour"]
share = 0.5
cap = 20
[image]
format = "jpeg"
[split.strict]
"""


def shared_tiles(
    path: Path, width: int, height: int, tile: NDArray[np.uint8], *, factors: Sequence[int] = (1,), mpp: float = 0.25
) -> Path:
    """A BigTIFF pyramid whose table of tiles points to the same JPEG tile everywhere."""
    jpeg = imagecodecs.jpeg8_encode(tile, level=90)
    data = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    jpeg_at = len(data)
    data += jpeg
    last = 8
    for factor in factors:
        w, h = width // factor, height // factor
        count = -(-w // TILE) * -(-h // TILE)
        offsets_at = len(data)
        data += struct.pack("<Q", jpeg_at) * count
        counts_at = len(data)
        data += struct.pack("<I", len(jpeg)) * count
        data += struct.pack("<HHHxx", 8, 8, 8)
        per_cm = round(1e4 / mpp / factor * 1000), 1000
        entries = [
            (254, LONG, 1, 1 if factor > 1 else 0),
            (256, LONG, 1, w),
            (257, LONG, 1, h),
            (258, SHORT, 3, (8, 8, 8)),
            (259, SHORT, 1, 7),
            (262, SHORT, 1, 6),
            (277, SHORT, 1, 3),
            (282, RATIONAL, 1, per_cm),
            (283, RATIONAL, 1, per_cm),
            (284, SHORT, 1, 1),
            (296, SHORT, 1, 3),
            (322, LONG, 1, TILE),
            (323, LONG, 1, TILE),
            (324, LONG8, count, offsets_at),
            (325, LONG, count, counts_at),
            (530, SHORT, 2, (2, 2)),
        ]
        at = len(data)
        data[last : last + 8] = struct.pack("<Q", at)
        data += struct.pack("<Q", len(entries))
        for tag, kind, n, value in entries:
            data += struct.pack("<HHQ", tag, kind, n) + _value(kind, value)
        last = len(data)
        data += bytes(8)
    path.write_bytes(data)
    return path


def _value(kind: int, value: int | tuple[int, ...]) -> bytes:
    if isinstance(value, int):
        return struct.pack("<Q", value)
    return struct.pack(f"<{len(value)}{'H' if kind == SHORT else 'I'}", *value).ljust(8, b"\0")
