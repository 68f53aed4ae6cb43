"""Read the header of a JPEG stream before anything is decoded."""

from __future__ import annotations

import re
import struct

FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers followed by the image size
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
SCAN = 0xDA
FILL = 0xFF  # fill byte, allowed any number of times before a marker
AFTER_FILL = re.compile(rb"[^\xff]")
ADOBE = 0xEE  # APP14: name, version, flags, and the colour transform
MOST_SCANS = 100  # the limit of libtiff; each scan costs as much as the image


def checked_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a stream; None if its segments are not contiguous.

    Raises:
        ValueError: the stream has more than MOST_SCANS scans, so that decoding takes far longer than its size suggests.
    """
    size, channels, parts, at = None, 0, True, 2
    while len(data) > at + 9 and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in FRAMES and size is None:
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            size, progressive = (width, height), marker in PROGRESSIVE
        elif marker == SCAN and size is not None:
            parts = progressive or data[at + 4] != channels  # channels of a scan beside those of the image
            break
        if marker != FILL:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        elif after := AFTER_FILL.search(data, at):
            at = after.start() - 1
        else:
            break
    if parts and data.count(b"\xff\xda") > MOST_SCANS:
        raise ValueError(f"JPEG data of more than {MOST_SCANS} scans")
    return size


def stated_colours(data: bytes) -> str:
    """Return "RGB" or "YCbCr", as Adobe's marker or that of JFIF states for three channels; "" without either."""
    transform = adobe_transform(data)
    if transform is not None:
        return {0: "RGB", 1: "YCbCr"}.get(transform, "")
    return "YCbCr" if data[2:4] == b"\xff\xe0" and data[6:10] == b"JFIF" else ""


def adobe_transform(data: bytes) -> int | None:
    """Return the transform in Adobe's marker: 0 for none, 1 for YCbCr, 2 for YCCK; None without a marker."""
    at = 2
    while len(data) > at + 4 and data[at] == 0xFF and data[at + 1] != SCAN:
        if data[at + 1] == FILL:
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == ADOBE and length >= 14 and data[at + 4 : at + 9] == b"Adobe":
            return data[at + 15]
        at += 2 + length
    return None
