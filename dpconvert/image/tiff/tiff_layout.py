"""The layout of a TIFF: the pages of the image and its coarser copies, its spacing, and the pages that are not read.

The image is the first of the largest images that are neither reduced copies nor masks, nor by their name in OME-XML the
label or the macro image of a slide; it may consist of three pages,
one per colour. Of an OME-TIFF only images with a plane in the file itself count. All readers of TIFFs use this module.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

from dpconvert.errors import ReadError
from dpconvert.image.guards.libtiff import DAMAGED, check_xml, has_sizes, open_tiff
from dpconvert.image.ome.ome_channels import ChannelError, colour_order, order_of
from dpconvert.image.ome.ome_metadata import OmeImages, Opened, ome_images
from dpconvert.image.spacing import (
    CONTRADICTION,
    MAGNIFICATION,
    Spacing,
    contradicts,
    magnification_of,
    of_aperio,
    of_ome,
    of_tags,
)
from dpconvert.image.tiff.tiff_channels import stated_channels

LISTED = 4096  # maximum number of pages to inspect
PLAIN = ("generic", "uniform", "shaped", "imagej")  # tifffile's names of the kinds of TIFF that no vendor defines
REDUCED, MASK = 1, 4  # bits of NewSubfileType
BESIDE = re.compile(r"(.*[^a-z])?(label|macro|thumbnail|overview|barcode)([^a-z]?image)?\W*")  # not the slide
PAGES = (
    "the largest page is read; further ones, which are not marked as reduced copies of it (thumbnails, say), are not"
)
PLANES = "of several planes (depth or time) the first is read"


class DamagedError(ReadError):
    """The structure of a TIFF is damaged."""


@dataclass(frozen=True)
class TiffLevel:
    """One resolution: its page, or a page for each colour channel."""

    pages: tuple[tifffile.TiffPage, ...]
    width: int
    height: int


@dataclass(frozen=True)
class TiffLayout:
    """The image of a TIFF.

    levels: finest first. spacing: that of the finest level. notes: parts of the file that are not read. on_first_page:
    whether the first page is the whole image, so that readers of only one page show the same. files: names of the files
    that contain its planes.
    """

    levels: list[TiffLevel]
    spacing: Spacing
    notes: tuple[str, ...]
    is_ome: bool
    on_first_page: bool
    files: frozenset[str]


def opened(file: Opened) -> tuple[tifffile.TiffFile, TiffLayout]:
    """Open a TIFF; return it with its layout.

    Raises:
        DamagedError: the file is damaged.
        ReadError: its channels are not colours, or files with some of its planes are missing.
    """
    try:
        tiff = open_tiff(file)
    except DAMAGED as error:
        raise _unreadable(file, error) from None
    try:
        ome = ome_images(tiff, file)
        if ome is not None:
            tiff.close()
            tiff = open_tiff(file, ome.text)
        check_xml(tiff)
        return tiff, _layout(tiff, ome, file)
    except DAMAGED as error:
        tiff.close()
        raise _unreadable(file, error) from None
    except ReadError:
        tiff.close()
        raise


def layout(file: Opened) -> TiffLayout | None:
    """Return the layout of a TIFF; None if it is damaged, which reading its pixels will report.

    Raises:
        ReadError: its channels are not colours, or files with some of its planes are missing.
    """
    try:
        tiff, found = opened(file)
    except DamagedError:
        return None
    tiff.close()
    return found


def _layout(tiff: tifffile.TiffFile, ome: OmeImages | None, file: Opened) -> TiffLayout:
    first = tiff.pages.first
    series = [one for one in tiff.series if _first_page(one) is not None]
    if not series or not has_sizes(first):
        raise ValueError("width or height is not a positive number")
    if series[0].kind in PLAIN:  # tifffile treats an image of half the size as a copy, whatever the file states
        series = [one for each in series for one in each.levels]
    images = [one for one in series if _is_image(_first_page(one), tiff)] or series
    slides = [one for one in images if not BESIDE.fullmatch(_called(one, ome))] or images
    chosen = max(slides, key=lambda one: _area(_first_page(one)))  # the first of equal ones
    pixels = _pixels_of(chosen, ome)
    pages, planes = _channels(tiff, chosen, file, pixels)
    copies = (
        _copies(tiff, series, pages[0])
        if chosen.kind in PLAIN
        else [_channels(tiff, level, file, pixels)[0] for level in chosen.levels[1:]]
    )
    levels = sorted(map(_level, [pages, *copies]), key=lambda level: -level.width)
    described, tags = _described(chosen, pages[0], ome), _of_tags(tiff, pages[0])
    told = {
        PAGES: len(images) > 1 or planes == PAGES,
        PLANES: planes == PLANES,
        CONTRADICTION: described.differs(tags),
        MAGNIFICATION: contradicts(magnification_of(pages[0].description), described),
    }
    return TiffLayout(
        levels,
        described if described.stated else tags,
        tuple(note for note, is_told in told.items() if is_told),
        bool(tiff.is_ome),
        on_first_page=len(pages) == 1 and pages[0].parent is tiff and pages[0].offset == first.offset,
        files=frozenset(page.parent.filehandle.name for page in chosen.pages if page is not None),
    )


def _described(chosen: Any, page: tifffile.TiffPage, ome: OmeImages | None) -> Spacing:
    """Return the spacing that OME-XML, or the description of Aperio, states."""
    if ome is not None and ome.pixels:
        size = str(page.imagewidth), str(page.imagelength)
        alike = [one for one in ome.pixels if (one.get("SizeX"), one.get("SizeY")) == size]
        named = chosen.kind == "ome" and str(chosen.name).isdecimal()
        found = of_ome(ome.pixels[int(chosen.name)] if named else next(iter(alike), {}))
        if found.stated:
            return found
    return of_aperio(page.description)


def _of_tags(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> Spacing:
    return of_tags(page, tiff.imagej_metadata if tiff.is_imagej else None)


def _called(series: Any, ome: OmeImages | None) -> str:
    """Return the name that OME-XML gives an image, in lower case; '' if none."""
    named = ome is not None and series.kind == "ome" and str(series.name).isdecimal()
    return ome.names[int(series.name)].strip().casefold() if ome is not None and named else ""


def _first_page(series: Any) -> Any:
    return next((_whole(page) for page in series.pages if page is not None), None)


def _whole(page: Any) -> Any:
    return page.aspage() if hasattr(page, "aspage") else page


def _area(page: Any) -> int:
    return page.imagewidth * page.imagelength if has_sizes(page) else 0


def _pixels_of(series: Any, ome: OmeImages | None) -> Any:
    """Return the `Pixels` element of a series; empty for a series without OME-XML."""
    return ome.pixels[int(series.name)] if ome and series.kind == "ome" and str(series.name).isdecimal() else ()


def _channels(
    tiff: tifffile.TiffFile, series: Any, file: Opened, pixels: Any = ()
) -> tuple[tuple[tifffile.TiffPage, ...], str]:
    """Return the page of an image, or its three pages of one channel each (red first), and a note on other pages.

    pixels: the `Pixels` element of OME-XML.

    Raises:
        ReadError: the channels are not colours, or the file with one of them is missing.
    """
    found = list(series.pages)
    page = _first_page(series)
    count = len(series.axes) - len(page.axes)
    lead = dict(zip(series.axes[:count], series.shape[:count], strict=True))
    channels = lead.get("C", 1)
    if channels == 1:
        rest = math.prod(lead.values()) > 1
        return (page,), PLANES if rest and set(lead) & set("ZT") else PAGES if rest else ""
    if channels != 3 or page.samplesperpixel != 1:
        raise ReadError(
            f"{channels} channels of {page.samplesperpixel} samples in pages of their own",
            where=name(file),
            expected="RGB, or one or three channels",
            remedy="export it as RGB",
        )
    step = math.prod(series.shape[series.axes.index("C") + 1 : count])
    chosen = found[: 2 * step + 1 : step]
    if len(chosen) < 3 or None in chosen:
        raise ReadError("a channel is missing", where=name(file), remedy="put all files of this OME-TIFF side by side")
    try:
        if isinstance(pixels, tuple):  # no OME-XML
            order = order_of(*stated_channels(tiff, series, range(0, 2 * step + 1, step)))
        else:
            order = colour_order(pixels)
    except ChannelError as error:
        raise ReadError(
            "the three channels are not colours",
            where=name(file),
            expected="red, green and blue",
            found=str(error),
            remedy="export it as RGB",
        ) from None
    return tuple(_whole(chosen[place]) for place in order), PLANES if math.prod(lead.values()) > 3 else ""


def _is_image(page: Any, tiff: tifffile.TiffFile) -> bool:
    """Whether a page is neither a copy nor a mask; a sub-image is not a copy if it is larger than its page."""
    if page.subfiletype & (REDUCED | MASK):
        return False
    return not page.is_subifd or _area(page) > _area(_whole(tiff.pages[page.treeindex[0]]))


def _copies(
    tiff: tifffile.TiffFile, series: list[Any], first: tifffile.TiffPage
) -> list[tuple[tifffile.TiffPage, ...]]:
    """Return the pages that are coarser copies of a page, by their flag or as its sub-images."""
    below = [page for one in series if (page := _first_page(one)).is_subifd and page.treeindex[0] == first.treeindex[0]]
    flagged = [page for page in tiff.pages[:LISTED] if isinstance(page, tifffile.TiffPage) and page.is_reduced]
    return [(page,) for page in below or flagged if has_sizes(page) and _same_shape(page, first)]


def _level(pages: tuple[tifffile.TiffPage, ...]) -> TiffLevel:
    if not has_sizes(pages[0]):
        raise ValueError("width or height is not a positive number")
    return TiffLevel(pages, pages[0].imagewidth, pages[0].imagelength)


def _same_shape(page: tifffile.TiffPage, first: tifffile.TiffPage) -> bool:
    off = abs(page.imagewidth * first.imagelength - page.imagelength * first.imagewidth)
    return page.imagewidth < first.imagewidth and off <= max(first.imagewidth, first.imagelength)


def name(file: Opened) -> str:
    """Return the name of a file, or of a member of an archive, for messages."""
    return str(file) if isinstance(file, Path) else getattr(file, "name", "archive member")


def _unreadable(file: Opened, error: BaseException) -> DamagedError:
    return DamagedError(f"not a readable TIFF: {error}", where=name(file), remedy="fetch it again")
