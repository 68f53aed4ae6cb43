"""Open untrusted TIFFs: silence libtiff, and protect tifffile from endless chains and excessive claims.

libtiff, with which Pillow decodes TIFFs, writes messages to stderr. After `quiet` it is silent in the whole process,
and Pillow raises errors without logging. tifffile follows a chain of directories wherever it leads, and allocates all
planes that OME-XML states, so `open_tiff` and `check_xml` check both first. Microscope stacks and Leica collections are
read page by page, since tifffile would trust the planes and other files stated in their headers.
"""

from __future__ import annotations

import ctypes
import io
import logging
import math
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import tifffile
from defusedxml import ElementTree
from PIL import Image as Pillow
from PIL import _imaging

MOST_TAGS = 1 << 19  # maximum tags in all directories; each takes tifffile some microseconds
MOST_OF_ONE = 4096  # maximum tags of one directory, as in tifffile
LEAST_OF_ONE = 32  # minimum count per directory, since tifffile compares each with all others
SUB_IFDS = 330  # the tag with the offsets of further directories
OFFSETS = {4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of its values
MOST_PLANES = 1 << 16  # maximum planes of an OME-TIFF; tifffile allocates an entry for each
LONGEST_OME = 1 << 24  # maximum characters of its XML
KINDS = "eer", "fluoview", "lsm", "mdgel", "mmstack", "ndtiff", "nih", "scanimage", "scn", "sis", "stk"
NO_STACK: dict[str, Any] = {f"is_{kind}": False for kind in KINDS}
NEW_JPEG = 7  # the usual JPEG in a TIFF; 6 is an older way
# exceptions that tifffile raises on damaged files
DAMAGED = (
    tifffile.TiffFileError,
    ValueError,
    OSError,
    KeyError,
    IndexError,
    RuntimeError,
    TypeError,
    AttributeError,
    struct.error,
    ZeroDivisionError,
    OverflowError,
    MemoryError,
)
# exceptions that Pillow raises on damaged images of any format
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    AttributeError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    Pillow.DecompressionBombError,
)


@cache
def quiet() -> None:
    """Silence libtiff, if it is accessible, and Pillow's log.

    Pillow has no public option for this: it keeps libtiff's own error handler, which writes to stderr.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):  # another build of Pillow: libtiff stays audible
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.restype, handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            handler(None)


def open_tiff(file: Path | io.BytesIO, omexml: str | None = None) -> tifffile.TiffFile:
    """Open a TIFF with tifffile. omexml: OME-XML to use instead of its own.

    Raises:
        One of DAMAGED: the file cannot be read, or its chain of directories is circular.
    """
    if isinstance(file, io.BytesIO):
        _check_directories(file, ndpi=False)
    else:
        with file.open("rb") as opened:
            _check_directories(opened, ndpi=file.suffix.lower() == ".ndpi")
    return tifffile.TiffFile(file, omexml=omexml, **NO_STACK)


def has_sizes(page: object) -> TypeGuard[tifffile.TiffPage]:
    """Whether a page is a complete page of tifffile and its sizes are numbers.

    Tags may contain anything, and a list times a number is a longer list: gigabytes from a file of a few bytes.
    """
    return isinstance(page, tifffile.TiffPage) and all(
        isinstance(size, int) for size in (page.imagewidth, page.imagelength, *page.shape)
    )


def tile_pixels(image: Pillow.Image) -> int:
    """Return the pixels of a tile of a TIFF, which libtiff holds in memory; 0 if there are no tiles."""
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag) for tag in (322, 323)]
    return math.prod(side for side in sides if isinstance(side, int)) if None not in sides else 0


def check_xml(tiff: tifffile.TiffFile) -> None:
    """Check the XML of a Philips TIFF or OME-TIFF before tifffile uses it.

    Raises:
        One of DAMAGED: the XML defines entities, or OME-XML states more than MOST_PLANES planes or names a file that is
            in another folder or cannot be read.
    """
    if tiff.is_philips and "<!DOCTYPE" in tiff.pages.first.description:
        raise ValueError("XML that defines entities")
    if not tiff.is_ome:
        return
    text = tiff.ome_metadata or ""
    if len(text) > LONGEST_OME:
        raise ValueError(f"OME-XML of {len(text)} characters")
    try:
        elements = ElementTree.fromstring(text, forbid_dtd=True).iter()
    except ElementTree.ParseError:  # tifffile does not treat it as an OME-TIFF then
        return
    planes = sum(abs(_planes(element, len(tiff.pages))) for element in elements)
    if planes > MOST_PLANES:
        raise ValueError(f"OME-XML that states {planes} planes")
    for other in set(re.findall(r"""FileName\s*=\s*["']([^"']*)""", text)) - {tiff.filename}:
        if Path(other).name != other:
            raise ValueError(f"OME-XML that names a file elsewhere, {other[:80]!r}")
        if tiff.filehandle.is_file and (beside := Path(tiff.filehandle.dirname) / other).is_file():
            open_tiff(beside).close()


def _planes(element: Any, pages: int) -> int:
    """Return the number of planes that tifffile allocates for an element of OME-XML."""
    of, kind = element.attrib, element.tag.rpartition("}")[2]
    if kind == "Pixels":
        return math.prod(int(of.get(f"Size{axis}", 1)) for axis in "ZCT")
    if kind == "TiffData":
        return int(of.get("PlaneCount", of.get("NumPlanes", 1 if "IFD" in of else 0))) or pages
    if kind.startswith("ModuloAlong") and "Start" in of:
        return int((float(of["End"]) - float(of["Start"])) / float(of.get("Step", 1))) + 1
    return 0


def _check_directories(file: BinaryIO, *, ndpi: bool) -> None:
    """Follow the chain of directories to its end. ndpi: 64-bit offsets in a 32-bit TIFF, as Hamamatsu writes them."""
    head = file.read(4)
    order = ">" if head[:2] == b"MM" else "<"
    big = head[2:] in (b"+\0", b"\0+")
    count_of, tag_of, offset_of = (
        f"{order}{'Q' if big else 'H'}",
        f"{order}HH{'QQ' if big else 'II'}",
        f"{order}{'QI'[not big]}",
    )
    if ndpi:
        offset_of = "<Q"
    seen: set[int] = set()
    tags = 0
    try:
        (at,) = _unpacked(offset_of, file, 8 if big else 4)
        while at:
            (count,) = _unpacked(count_of, file, at)
            if at in seen:
                raise ValueError("circular or excessively long chain of TIFF directories")
            seen.add(at)
            if count > MOST_OF_ONE:  # tifffile stops here too
                break
            room = count * struct.calcsize(tag_of)
            listed = file.read(room + struct.calcsize(offset_of))
            tags = _counted(tags, count)
            for offset in _sub_directories(file, listed[:room], at + struct.calcsize(count_of), tag_of):
                tags = _counted(tags, _count_at(count_of, file, offset))
            (at,) = struct.unpack(
                offset_of, listed[-struct.calcsize(offset_of) :]
            )  # as tifffile does, even if it is truncated
    except struct.error:  # truncated: left to tifffile
        pass
    finally:
        file.seek(0)


def _count_at(count_of: str, file: BinaryIO, at: int) -> int:
    """Return the number of tags of a directory; 0 if it lies beyond the end of the file, which tifffile ignores."""
    try:
        return int(_unpacked(count_of, file, at)[0])
    except struct.error:
        return 0


def _counted(tags: int, count: int) -> int:
    """Add `count` tags to the total; tifffile ignores a directory of more than MOST_OF_ONE."""
    tags += max(count, LEAST_OF_ONE) if count <= MOST_OF_ONE else LEAST_OF_ONE
    if tags > MOST_TAGS:
        raise ValueError("circular or excessively long chain of TIFF directories")
    return tags


def _sub_directories(file: BinaryIO, tags: bytes, at: int, tag_of: str) -> Iterator[int]:
    """Return the offsets of sub-directories in the tags at `at`; lists beyond the limit are not read."""
    size = struct.calcsize(tag_of)
    for number, (code, kind, count, value) in enumerate(struct.iter_unpack(tag_of, tags[: len(tags) // size * size])):
        if code != SUB_IFDS or kind not in OFFSETS:
            continue
        many = f"{tag_of[0]}{min(count, MOST_TAGS)}{OFFSETS[kind]}"
        inside = struct.calcsize(many) <= struct.calcsize(tag_of[0] + tag_of[-1])
        with suppress(struct.error):  # tifffile ignores a truncated list
            yield from _unpacked(
                many, file, at + (number + 1) * size - struct.calcsize(tag_of[0] + tag_of[-1]) if inside else value
            )


def _unpacked(format: str, file: BinaryIO, at: int) -> tuple[int, ...]:
    try:
        file.seek(at)
    except (OverflowError, OSError) as error:
        raise struct.error(str(error)) from None
    return struct.unpack(format, file.read(struct.calcsize(format)))
