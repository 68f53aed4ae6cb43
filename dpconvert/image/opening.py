"""Choose the reader of an image file by its name and its first bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpconvert.errors import ReadError
from dpconvert.image.base import Image
from dpconvert.image.flat import TIFF_MAGIC, UNPACK, Flat, Mosaic, head
from dpconvert.image.ome.ome_metadata import Opened
from dpconvert.image.pyramid import Pages, by_openslide
from dpconvert.image.rgb import Range
from dpconvert.image.tiff.tiff_layout import layout, name
from dpconvert.image.tiff.tiff_pages import TiffPages
from dpconvert.image.tiff.tiff_rgb import orientation_of_page
from dpconvert.image.turned import Turned, upright_spacing
from dpconvert.image.unread import EXTRAS, FORMATS, remedy, unread

SLIDE_SUFFIXES = {
    ".svs",
    ".tif",
    ".tiff",
    ".ndpi",
    ".vms",
    ".vmu",
    ".scn",
    ".mrxs",
    ".svslide",
    ".bif",
    ".dcm",
    *EXTRAS,
}
LARGE = 1 << 26  # pixels; larger TIFFs are read piece by piece


def is_slide(file: str) -> bool:
    """Whether the suffix of a file is one that only slides have: a JPEG of such a name is the preview of a slide."""
    return Path(file).suffix.lower() in {*SLIDE_SUFFIXES, *FORMATS} - {".tif", ".tiff"}


def open_image(files: Sequence[Opened], columns: int = 1, scale: Range | None = None) -> Image:
    """Open one file, or a row-major mosaic of several.

    scale: for images of more than 8 bits, the sample values that become black and white.

    Raises:
        ReadError: the file is missing, damaged, or of an unsupported format.
    """
    if len(files) > 1:
        return Mosaic([open_image([file], scale=scale) for file in files], columns, name(files[0]))
    file = files[0]
    if (format := unread(name(file))) is not None:
        raise ReadError(f"a slide in a format that is not read ({format})", where=name(file), remedy=remedy(name(file)))
    if isinstance(file, Path) and file.suffix.lower() == ".mrxs" and not file.with_suffix("").is_dir():
        raise ReadError("a slide without the folder of its data", where=file, expected=f"{file.stem}/ beside it")
    if not isinstance(file, Path) and is_slide(name(file)):
        raise ReadError("a slide inside an archive", where=name(file), remedy=UNPACK)
    if isinstance(file, Path) and file.suffix.lower() in EXTRAS and file.exists():
        return _extra(file, scale)
    if isinstance(file, Path) and file.suffix.lower() in SLIDE_SUFFIXES and file.is_file():
        opened = by_openslide(file)
        if opened is not None:
            return opened
    if (not isinstance(file, Path) or file.is_file()) and head(file) in TIFF_MAGIC:
        return _tiff(file, scale)
    if isinstance(file, Path) and is_slide(file.name) and file.is_file() and file.stat().st_size:
        raise _not_a_slide(file)
    return Flat(file, scale)


def _not_a_slide(file: Path) -> ReadError:
    """Return the error for a file with the suffix of a slide that OpenSlide does not recognize.

    It may be an image nonetheless: a .mrxs file is only the preview of a slide, in JPEG.
    """
    if file.suffix.lower() != ".mrxs":
        remedy = "fetch it again; if it is an image of another kind, save it as TIFF or PNG"
        return ReadError("not a slide that OpenSlide recognizes", where=file, remedy=remedy)
    if file.suffix != ".mrxs":
        remedy = f"rename it to {file.stem}.mrxs: OpenSlide knows the format by this suffix"
        return ReadError("a slide whose suffix is in capitals", where=file, remedy=remedy)
    expected = f"{file.stem}/Slidedat.ini with the files that it names"
    return ReadError("a slide without its data", where=file, expected=expected, remedy="fetch its folder again")


def _extra(file: Path, scale: Range | None) -> Image:
    """Open a slide of a format that an optional library reads."""
    if file.suffix.lower() == ".czi":
        from dpconvert.image.czi import CziPages

        return Pages(CziPages(file, scale))
    if file.suffix.lower() == ".vsi":
        from dpconvert.image.vsi.vsi_pages import VsiPages

        return Pages(VsiPages(file, scale))
    from dpconvert.image.ome.ome_zarr import ZarrPages

    return Pages(ZarrPages(file, scale))


def _tiff(file: Opened, scale: Range | None) -> Image:
    """Open a TIFF: piece by piece if it is large or its image is not just the first page, else as a whole."""
    found = layout(file)
    if found is None:
        return Flat(file, scale)
    if found.is_ome or not found.on_first_page or found.levels[0].width * found.levels[0].height > LARGE:
        try:
            return _in_pages(TiffPages(file, scale))
        except ReadError:
            if not found.on_first_page:
                raise  # otherwise it is read as a flat image, or refused with the reason
    orientation = orientation_of_page(found.levels[0].pages[0])
    return Flat(file, scale, upright_spacing(found.spacing, orientation), found.notes)


def _in_pages(pages: TiffPages) -> Image:
    try:
        pages.check_bits()
    except ReadError:
        pages.close()
        raise
    return Pages(pages) if pages.orientation == 1 else Turned(Pages(pages), pages.orientation)
