"""Slides of Olympus (VSI and ETS), written by the layout that Bio-Formats and slideio read; slideio opens them.

A head `a.vsi` is a TIFF of a thumbnail behind a tree of tags: a volume has a header of 24 bytes and fields, each of a
type, a tag, the place of the next field, a length, and a second tag if its type says so.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

VOLUME, INLINE, EXTRA = 0x10000000, 0x40000000, 0x08000000  # bits of a field's type
INTEGER, RECTANGLE, TWO_DOUBLES, TEXT = 5, 259, 260, 8192
MICROMETRES = "10^-6m^1"
RAW, JPEG, JPEG_2000, PNG, BMP = 0, 2, 3, 8, 9
OVERVIEW, SAMPLE_MASK, ALL_PLANES, MACRO = 1, 2, 64, 256  # types of images
Z, T, C = 1, 2, 4  # meanings of further axes
HEADERS = 64 + 228  # bytes of an ETS before its tiles
TILE = 64


@dataclass(frozen=True)
class Described:
    """An image in the head: its size in pixels, the sides of a pixel, its type, and what its further axes mean."""

    name: str
    width: int
    height: int
    mpp: tuple[float, float] | None = (0.25, 0.25)
    unit: str | None = MICROMETRES
    kind: int = 0
    axes: tuple[int, ...] = ()


def write_head(path: Path, *images: Described) -> None:
    """A head with the tags of its images, and a thumbnail with a private tag, as scanners write it."""
    tags = _volume(_inside(2000, _volume(*map(_image, images))))
    wide, tall = 30, 20
    at, pixels = 8 + len(tags), np.full((tall, wide, 3), 200, np.uint8).tobytes()
    entries = (
        (256, 3, 1, wide),
        (257, 3, 1, tall),
        (258, 3, 3, at + len(pixels)),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, at),
        (277, 3, 1, 3),
        (278, 3, 1, tall),
        (279, 4, 1, len(pixels)),
        (284, 3, 1, 1),
        (33560, 4, 1, 7),
    )
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<2H2I", *entry) for entry in entries)
    start = struct.pack("<2sHI", b"II", 42, at + len(pixels) + 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + tags + pixels + struct.pack("<4H", 8, 8, 8, 0) + directory + bytes(4))


def write_tiles(
    path: Path,
    planes: NDArray[Any] | Mapping[tuple[int, ...], NDArray[Any]],
    levels: int = 3,
    compression: int = JPEG,
    without: Sequence[tuple[int, int, int]] = (),
) -> None:
    """A file of tiles of one image (height, width, components), or of planes by their places on further axes.

    without: tiles (column, row, level) that are not stored.
    """
    every = planes if isinstance(planes, Mapping) else {(): planes}
    body, listed = b"", b""
    axes = 3 + len(next(iter(every)))
    for further, plane in every.items():
        for level in range(levels):
            pixels = reduced(plane, level)
            for row in range(-(-pixels.shape[0] // TILE)):
                for column in range(-(-pixels.shape[1] // TILE)):
                    if (column, row, level) in without:
                        continue
                    data = _encoded(_tile(pixels, column, row), compression)
                    at = struct.pack(f"<{axes}i", column, row, *further, level)
                    listed += struct.pack("<I", 0) + at + struct.pack("<QII", HEADERS + len(body), len(data), 0)
                    body += data
    first = next(iter(every.values()))
    count = len(listed) // (4 + 4 * axes + 16)
    kind = {np.dtype(np.uint8): 2, np.dtype(np.uint16): 4, np.dtype(np.float32): 9}[first.dtype]
    head = struct.pack("<4s3IQ2IQ2IQ2I", b"SIS", 64, 2, axes, 64, 228, 0, HEADERS + len(body), count, 0, 0, 0, 0)
    head += struct.pack("<4s9I", b"ETS", 0x30001, kind, first.shape[2], 3, compression, 90, TILE, TILE, 1)
    head += bytes(4 * 17) + bytes([255] * 12) + bytes(4 * 7 + 4) + struct.pack("<I", 1) + bytes(4 * 18)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + bytes(HEADERS - len(head)) + body + listed)


def write_vsi(path: Path, pixels: NDArray[Any], compression: int = JPEG, **more: Any) -> Path:
    """A slide of one image with an overview, as scanners store it; `more` describes the image."""
    height, width = pixels.shape[:2]
    glass = np.full((70, 90, 3), 240, np.uint8)
    write_head(path, Described("40x", width, height, **more), Described("Overview", 90, 70, (4, 4), kind=OVERVIEW))
    write_tiles(tiles(path), pixels, compression=compression)
    write_tiles(tiles(path, 10000), glass, levels=1)
    return path


def tiles(path: Path, stack: int = 1) -> Path:
    """The file of tiles of a head."""
    return path.with_name(f"_{path.stem}_") / f"stack{stack}" / "frame_t.ets"


def reduced(pixels: NDArray[Any], times: int) -> NDArray[Any]:
    """Halve an image by the means of four pixels."""
    for _ in range(times):
        height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
        blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
        pixels = blocks.mean((1, 3)).round().astype(pixels.dtype)
    return pixels


def _tile(pixels: NDArray[Any], column: int, row: int) -> NDArray[Any]:
    part = pixels[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
    beyond = (0, TILE - part.shape[0]), (0, TILE - part.shape[1]), (0, 0)
    return np.ascontiguousarray(np.pad(part, beyond, "edge"))


def _encoded(tile: NDArray[Any], compression: int) -> bytes:
    if compression == JPEG:
        file = io.BytesIO()
        Image.fromarray(tile.squeeze()).save(file, "JPEG", quality=100, subsampling=0)
        return file.getvalue()
    if compression == JPEG_2000:
        return bytes(imagecodecs.jpeg2k_encode(tile.squeeze(), level=0, reversible=True))
    if compression == PNG:
        return bytes(imagecodecs.png_encode(tile.squeeze()))
    return tile.tobytes()


def _image(image: Described) -> bytes:
    properties = [_text(2030, image.name), _integer(2074, image.kind)]
    if image.mpp is not None:
        properties.append(_field(TWO_DOUBLES, 2019, struct.pack("<2d", *image.mpp)))
    if image.unit is not None:
        properties.append(_text(2020, image.unit))
    frame = _field(RECTANGLE, 2053, struct.pack("<4i", 0, 0, image.width, image.height))
    external = _inside(2018, _volume(_integer(20005, 1), frame), 1)
    axes = (
        _inside(2007, _volume(_inside(2008, _volume(_integer(2023, kind)), 1)), 0, at)
        for at, kind in enumerate(image.axes)
    )
    return _inside(2001, _volume(_inside(2005, _volume(*properties), 1), _inside(2002, _volume(external)), *axes))


def _volume(*fields: bytes) -> bytes:
    """A header and fields; each begins with the place of the next one, 0 for the last."""
    body, at = b"", 24
    for number, field in enumerate(fields):
        at += len(field)
        following = at if number + 1 < len(fields) else 0
        body += field[:8] + struct.pack("<i", following) + field[12:]
    return struct.pack("<2HIq2I", 24, 21321, 1, 24, len(fields), 0) + body


def _field(kind: int, tag: int, data: bytes) -> bytes:
    return struct.pack("<IIiI", kind, tag, 0, len(data)) + data


def _inside(tag: int, volume: bytes, kind: int = 0, second: int | None = None) -> bytes:
    if second is None:
        return _field(VOLUME | kind, tag, volume)
    return struct.pack("<IIiIi", VOLUME | EXTRA | kind, tag, 0, len(volume), second) + volume


def _integer(tag: int, value: int) -> bytes:
    return struct.pack("<IIiI", INLINE | INTEGER, tag, 0, value)


def _text(tag: int, text: str) -> bytes:
    return _field(TEXT, tag, f"{text}\0".encode("utf-16-le"))
