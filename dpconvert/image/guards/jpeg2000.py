"""Estimate the cost of a JPEG 2000 stream for OpenJPEG from its headers (ISO/IEC 15444-1, annexes A, I).

The estimate models the allocations of the decoder, since nothing else limits them: OpenJPEG runs in this process, which
may be the user's own, and neither has a limit nor returns to Python before it ends.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dpconvert.image.guards.claims import MOST_PIXELS, RATIO

LITTLE = 1 << 20  # samples, or equivalent cost, that are always allowed
MOST = 100_000_000  # maximum cost in samples; OpenJPEG needs at most eight bytes for each
MOST_SAMPLES = 4 * MOST_PIXELS  # maximum samples of an image, even if its bytes could contain more
OF_A_TILE = 9 << 10  # cost of a tile, in samples
OF_A_PRECINCT = 640  # cost of a precinct of a subband
OF_A_BLOCK = 40  # cost of a code-block
OF_A_PACKET = 64  # cost of a layer of a precinct, even one without data
BANDS = 3  # subbands of a resolution
SOC, SIZ, COD, COC, SOT, SOD = 0xFF4F, 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93
# CAP, CPF, PLM, PLT, TLM, QCD, QCC, RGN, POC, PPM, PPT, CRG, COM, MCT, MCC, MCO, CBD
OTHERS = frozenset(0xFF00 | kind for kind in (
    0x50, 0x59, 0x57, 0x58, 0x55, 0x5C, 0x5D, 0x5E, 0x5F, 0x60, 0x61, 0x63, 0x64, 0x74, 0x75, 0x77, 0x78,
))  # fmt: skip
HEAD = struct.Struct(">2H")
COMPONENTS = 42  # offset in bytes from SOC to the components in SIZ


@dataclass(frozen=True)
class TileGrid:
    """The number and size of tiles and the number of components, from the marker SIZ (A.5.1)."""

    count: int
    width: int
    height: int
    components: int
    astray: int  # 1 where one may begin within a precinct, which are counted from 0


def claimed(data: bytes) -> int | None:
    """Return the samples of an image plus the cost of its tiles, precincts, blocks and layers; None without a header.

    Raises:
        ValueError: the cost exceeds MOST: in samples or packets that its bytes cannot contain, or in one tile apart
            from its samples.
    """
    at = _codestream(data)
    if at is None or data[at : at + 4] != struct.pack(">2H", SOC, SIZ):
        return None
    try:
        right, bottom, left, top, wide, tall, left_most, top_most, components = struct.unpack_from(">8IH", data, at + 8)
        count = math.ceil((right - left_most) / wide) * math.ceil((bottom - top_most) / tall)
        whole = count == 1 and left == top == 0
        tiles = TileGrid(count, min(wide, right - left), min(tall, bottom - top), components, int(not whole))
        samples: int = (right - left) * (bottom - top) * components
        segments = list(_segments(data, at + 2))
        layers = max((int.from_bytes(segment[2:4], "big") for marker, segment in segments if marker == COD), default=1)
        styles = [segment[:1] + segment[5:] for marker, segment in segments if marker == COD]
        styles += [segment[1 if components < 257 else 2 :] for marker, segment in segments if marker == COC]
        most = max((_of_precincts(tiles, style[0], style[1:], layers) for style in styles), default=0)
    except (struct.error, IndexError, ValueError, ZeroDivisionError):
        return None
    of_tiles = count * OF_A_TILE if count > 1 else 0
    beside = most + of_tiles
    all_in_all = samples + beside
    can_be_held = RATIO * len(data)  # a packet takes at least one byte, so the number of bytes limits the time
    at_once = most // max(count, 1) + of_tiles  # tiles are decoded one after the other
    is_held = samples <= min(MOST_SAMPLES, can_be_held) and beside <= max(MOST, can_be_held) and at_once <= MOST
    if all_in_all > MOST and not is_held:
        raise ValueError(f"JPEG 2000 that takes as much as {all_in_all} samples")
    return all_in_all if all_in_all > 0 else None


def precisions(data: bytes) -> set[tuple[int, bool]]:
    """Return bits per sample and signedness of each component (A.5.1, Ssiz); empty without a header."""
    at = _codestream(data)
    if at is None or data[at : at + 4] != struct.pack(">2H", SOC, SIZ) or len(data) < at + COMPONENTS:
        return set()
    count = int.from_bytes(data[at + COMPONENTS - 2 : at + COMPONENTS], "big")
    stated = data[at + COMPONENTS : at + COMPONENTS + 3 * count : 3]
    return {((one & 0x7F) + 1, bool(one & 0x80)) for one in stated}


def _codestream(data: bytes) -> int | None:
    """Return the offset of the codestream, 0 or in the box `jp2c`; None if it is missing or there is a palette."""
    at = 0
    while data[at : at + 2] != b"\xff\x4f" and len(data) >= at + 16:
        size, kind, long = struct.unpack_from(">I4sQ", data, at)
        head = 16 if size == 1 else 8
        if kind == b"jp2c":
            return at + head
        if (step := long if size == 1 else size) < head:
            return None
        if kind == b"jp2h" and b"pclr" in data[at : at + step]:  # it makes up to 255 components of one
            return None
        at += step
    return 0 if at == 0 else None


def _segments(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield markers with their segments, of the main header and of the tile-part headers.

    Raises:
        ValueError, struct.error: a marker is invalid at its position, or the stream ends in it.
    """
    end = 0  # length of the tile-part
    while True:
        marker, length = HEAD.unpack_from(data, at)
        if marker == SOD:
            if end == 0:  # to the end of the stream
                return
            if end < at + 2:
                raise ValueError("a tile-part that is shorter than its header")
            at = end
            if data[at : at + 2] != struct.pack(">H", SOT):
                return
            continue
        if marker == SOT:
            (part,) = struct.unpack_from(">I", data, at + 6)
            end = at + part if part else 0
        elif marker not in (SIZ, COD, COC) and marker not in OTHERS:
            raise ValueError(f"a marker {marker:04x}")
        if length < 2:
            raise ValueError("an invalid segment")
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _of_precincts(tiles: TileGrid, style: int, parameters: bytes, layers: int) -> int:
    """Return the cost of the precincts and blocks of all tiles and components, by the parameters of A.6.1."""
    levels = parameters[0]
    sizes = parameters[5 : 6 + levels] if style & 1 else b"\xff" * (levels + 1)
    if len(sizes) != levels + 1:
        raise ValueError("truncated precinct sizes")
    count = 0
    for resolution, exponents in enumerate(sizes):
        across = -(-tiles.width >> levels - resolution + (exponents & 15))
        down = -(-tiles.height >> levels - resolution + (exponents >> 4))
        count += (across + tiles.astray) * (down + tiles.astray)
    blocks = -(-tiles.width >> parameters[1] + 2) * -(-tiles.height >> parameters[2] + 2)
    cost = count * (OF_A_PRECINCT * BANDS + OF_A_PACKET * layers) + blocks * OF_A_BLOCK
    return cost * tiles.count * tiles.components
