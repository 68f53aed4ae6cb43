"""Check that JPEG frames of a DICOM slide have the colours that its tags state, by which alone OpenSlide decodes them.

Encapsulated frames: DICOM PS3.5, section A.4.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from dpconvert.errors import ReadError
from dpconvert.image.guards.jpeg import stated_colours

JPEG = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"}  # transfer syntaxes: baseline, extended
PIXEL_DATA = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"  # tag, value representation and length of encapsulated frames
ITEM = 0xE000FFFE
PIECE, HEAD = 1 << 20, 1 << 16


def check_colours(path: Path, properties: Mapping[str, str]) -> None:
    """Refuse a slide of which OpenSlide would show YCbCr as RGB, or the reverse. properties: those of OpenSlide.

    Raises:
        ReadError: the marker of the first frame contradicts PhotometricInterpretation.
    """
    tag = properties.get("dicom.PhotometricInterpretation", "")
    if properties.get("dicom.TransferSyntaxUID") not in JPEG or not (tag == "RGB" or tag.startswith("YBR")):
        return
    colours = stated_colours(_first_frame(path))
    if colours and (colours == "RGB") != (tag == "RGB"):
        right = "RGB" if colours == "RGB" else "YBR_FULL_422"
        raise ReadError(
            "JPEG frames in other colours than PhotometricInterpretation states",
            where=path,
            expected=tag,
            found=f"{colours}, by the frame's own marker",
            remedy=f'correct the tag in all files of the slide: dcmodify -m "PhotometricInterpretation={right}" FILE',
        )


def _first_frame(path: Path) -> bytes:
    """Return the beginning of the first frame; empty if there is none."""
    with path.open("rb") as file:
        kept = b""
        while piece := file.read(PIECE):
            at = (kept + piece).find(PIXEL_DATA)
            if at >= 0:
                file.seek(file.tell() - len(kept + piece) + at + len(PIXEL_DATA))
                break
            kept = piece[-len(PIXEL_DATA) :]
        offsets = _item(file.read(8))  # the basic offset table
        if offsets is None:
            return b""
        file.seek(offsets, 1)
        frame = _item(file.read(8))
        return b"" if frame is None else file.read(min(frame, HEAD))


def _item(head: bytes) -> int | None:
    """Return the length of an item; None if there is none."""
    tag, length = struct.unpack("<II", head) if len(head) == 8 else (0, 0)
    return int(length) if tag == ITEM else None
