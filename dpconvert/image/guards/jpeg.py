"""What a JPEG stream says of itself in its head, before anything is decoded."""

from __future__ import annotations

import re
import struct

FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that a size follows
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
SCAN = 0xDA
FILL = 0xFF  # may stand before a marker, any number of times
AFTER_FILL = re.compile(rb"[^\xff]")
MOST_SCANS = 100  # as libtiff has it: each costs as much as the picture


def checked_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a stream; None where its segments do not follow each other.

    Raises:
        ValueError: it has more than MOST_SCANS scans, so that decoding takes far longer than its size tells.
    """
    size, channels, parts, at = None, 0, True, 2
    while len(data) > at + 9 and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in FRAMES and size is None:
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            size, progressive = (width, height), marker in PROGRESSIVE
        elif marker == SCAN and size is not None:
            parts = progressive or data[at + 4] != channels  # channels of a scan beside those of the picture
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
