"""Which kind of picture a file is, seen from its name and its first bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpconvert.errors import ReadError
from dpconvert.image.base import Image
from dpconvert.image.flat import TIFF_MAGIC, UNPACK, Flat, Mosaic, Opened, head, name
from dpconvert.image.pyramid import Pages, by_openslide
from dpconvert.image.rgb import Range
from dpconvert.image.tiff import TiffPages
from dpconvert.image.turned import Turned

SLIDE_SUFFIXES = {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm"}
LARGE = 1 << 26  # pixels; TIFFs of more are read piece by piece


def open_image(files: Sequence[Opened], columns: int = 1, scale: Range | None = None) -> Image:
    """Open one file, or a row-major mosaic of several.

    scale: the samples that become black and white, for images of more than 8 bits.

    Raises:
        ReadError: absent, damaged, or of a format that nothing here reads.
    """
    if len(files) > 1:
        return Mosaic([Flat(file, scale) for file in files], columns, name(files[0]))
    file = files[0]
    if not isinstance(file, Path) and Path(name(file)).suffix.lower() in SLIDE_SUFFIXES - {".tif", ".tiff"}:
        raise ReadError("a slide inside an archive", where=name(file), remedy=UNPACK)
    if isinstance(file, Path) and file.suffix.lower() in SLIDE_SUFFIXES and file.is_file():
        opened = by_openslide(file)
        if opened is not None:
            return opened
    if isinstance(file, Path) and file.is_file() and head(file) in TIFF_MAGIC:
        pages = _in_pages(file, scale)
        if pages is not None:
            return Pages(pages) if pages.orientation == 1 else Turned(Pages(pages), pages.orientation)
    return Flat(file, scale)


def _in_pages(file: Path, scale: Range | None) -> TiffPages | None:
    """A TIFF to be read piece by piece: one that is large, or an OME-TIFF, whose resolution is wanted too."""
    try:
        pages = TiffPages(file, scale)
    except ReadError:
        return None  # as a flat picture it is read, or refused with the reason
    if not pages.is_ome and pages.width * pages.height <= LARGE:
        pages.close()
        return None
    try:
        pages.check_bits()
    except ReadError:
        pages.close()
        raise
    return pages
