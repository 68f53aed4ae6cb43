"""Read the size and the kinds of samples in the header of a JPEG 2000 stream (ISO/IEC 15444-1, annexes A, I)."""

from __future__ import annotations

import struct

SOC_SIZ = struct.pack(">2H", 0xFF4F, 0xFF51)  # start of the codestream, and the marker that follows it
SIZE = struct.Struct(">4I")  # right, bottom, left and top of the image in SIZ (A.5.1), `AT_SIZE` bytes from SOC
AT_SIZE = 8
AT_COMPONENTS = 42  # offset from SOC to the components in SIZ


def claimed(data: bytes) -> int | None:
    """Return the number of samples of all components, without those of a palette; None without a header."""
    at, _ = _codestream(data)
    if at is None or len(data) < at + AT_COMPONENTS:
        return None
    right, bottom, left, top = SIZE.unpack_from(data, at + AT_SIZE)
    samples: int = (right - left) * (bottom - top) * _components(data, at)
    return samples if right > left and bottom > top and samples > 0 else None


def precisions(data: bytes) -> set[tuple[int, bool]]:
    """Return bits per sample and signedness of each component (A.5.1, Ssiz); empty without a header, or of indices."""
    at, has_palette = _codestream(data)
    if at is None or has_palette or len(data) < at + AT_COMPONENTS:
        return set()
    stated = data[at + AT_COMPONENTS : at + AT_COMPONENTS + 3 * _components(data, at) : 3]
    return {((one & 0x7F) + 1, bool(one & 0x80)) for one in stated}


def _components(data: bytes, at: int) -> int:
    return int.from_bytes(data[at + AT_COMPONENTS - 2 : at + AT_COMPONENTS], "big")


def _codestream(data: bytes) -> tuple[int | None, bool]:
    """Return the offset of the codestream, 0 or in the box `jp2c`, or None; and whether a palette comes before it."""
    at, has_palette = 0, False
    while data[at : at + 2] != SOC_SIZ[:2] and len(data) >= at + 16:
        size, kind, long = struct.unpack_from(">I4sQ", data, at)
        head = 16 if size == 1 else 8
        if kind == b"jp2c":
            at += head
            break
        if (step := long if size == 1 else size) < head:
            return None, has_palette
        has_palette |= kind == b"jp2h" and b"pclr" in data[at : at + step]
        at += step
    return (at if data[at : at + 4] == SOC_SIZ else None), has_palette
