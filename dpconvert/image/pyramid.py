"""Images that are read piece by piece: slides that OpenSlide reads, and TIFFs that it refuses."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import ImageColor

from dpconvert.errors import ReadError
from dpconvert.image.base import WHITE, Image, Pixels, over, resample
from dpconvert.image.dicom_jpeg import check_colours
from dpconvert.image.spacing import MAGNIFICATION, Spacing, contradicts, of_texts
from dpconvert.image.tiff.jpeg_tiles import EIGHTH, JpegTiles
from dpconvert.image.tiff.tiff_checks import SEGMENT_LIMIT, UnknownKindError, more_planes
from dpconvert.image.tiff.tiff_layout import layout
from dpconvert.image.tiff.tiff_pages import TiffPages
from dpconvert.plural import counted

OPTICAL_PATHS = "of several optical paths the first is read"


class Slide(Image):
    """A pyramid that OpenSlide reads piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slide = openslide.OpenSlide(path)
        self.width, self.height = self.slide.dimensions
        self.downsamples, self.sizes = self.slide.level_downsamples, self.slide.level_dimensions
        self.properties = MappingProxyType(dict(self.slide.properties))
        self.spacing = of_texts(*(self.properties.get(f"openslide.mpp-{axis}") for axis in "xy"))
        if int(self.properties.get("dicom.NumberOfOpticalPaths", 1)) > 1:
            self.notes = (OPTICAL_PATHS,)
        if contradicts(self.properties.get("aperio.AppMag"), self.spacing):
            self.notes = (*self.notes, MAGNIFICATION)
        self.background = _colour(self.slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR))
        self.tiles = _own_tiles(path, self.slide)

    def stored_jpeg(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> bytes | None:
        if self.tiles is None or out not in self.tiles.sizes:
            return None
        level = self._level(w, h, out)
        factor = self.downsamples[level]
        frame = [value / factor for value in (x, y, w, h)]
        if frame[2:] != [*out] or not all(value.is_integer() for value in frame):
            return None
        left, top, width, height = map(int, frame)
        return self.tiles.stored(level, left, top, width, height)

    def own_grid(self, factor: float) -> tuple[NDArray[np.int64], tuple[int, int]] | None:
        usable = [i for i, f in enumerate(self.downsamples) if float(f).is_integer()]
        if self.tiles is None or not usable:
            return None
        level = min(usable, key=lambda i: abs(self.downsamples[i] - factor))
        wide, tall = self.tiles.levels[level].tile
        across, down = self.sizes[level]
        columns, rows = np.meshgrid(np.arange(across // wide), np.arange(down // tall))
        corners = np.stack([columns * wide, rows * tall], axis=-1).reshape(-1, 2)
        frames = np.concatenate([corners, np.broadcast_to([wide, tall], corners.shape)], axis=1)
        return (frames * int(self.downsamples[level])).astype(np.int64), (wide, tall)

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        level = self._level(w, h, out)
        factor = self.downsamples[level]
        extent = w / factor, h / factor
        left, top = int(x / factor + 1e-6), int(y / factor + 1e-6)  # OpenSlide blurs regions at fractional positions
        at = max(x / factor - left, 0.0), max(y / factor - top, 0.0)
        size = math.ceil(at[0] + extent[0] - 1e-6), math.ceil(at[1] + extent[1] - 1e-6)
        across, down = self.sizes[level]
        if self.tiles is not None and left + size[0] <= across and top + size[1] <= down:
            return resample(self.tiles.region(level, left, top, *size), extent, out, at)
        try:
            region = self.slide.read_region((round(left * factor), round(top * factor)), level, size)
        except openslide.OpenSlideError as error:
            raise ReadError(f"cannot be read at {(x, y, w, h)}: {error}", where=self.path) from None
        return resample(over(np.asarray(region), self.background), extent, out, at)

    def reduction(self, w: int, h: int, out: tuple[int, int]) -> int:
        alone = self.tiles is not None and len(self.sizes) == 1
        return EIGHTH if alone and w >= EIGHTH * out[0] else 1  # all bands of an overview agree

    def overview(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        if self.tiles is None or self.reduction(w, h, out) == 1:
            return self.read(x, y, w, h, out)
        left, top = x // EIGHTH, y // EIGHTH
        right, bottom = -(-(x + w) // EIGHTH), -(-(y + h) // EIGHTH)
        whole = max(min(right, self.width // EIGHTH), left + 1), max(min(bottom, self.height // EIGHTH), top + 1)
        found = self.tiles.eighth(left, top, whole[0] - left, whole[1] - top)
        beyond = (0, bottom - whole[1]), (0, right - whole[0]), (0, 0)  # means at the edge include padding
        found = np.pad(found, beyond, "edge")
        return resample(found, (w / EIGHTH, h / EIGHTH), out, (x / EIGHTH - left, y / EIGHTH - top))

    def downsample(self, w: int, h: int, out: tuple[int, int]) -> float:
        return float(self.downsamples[self._level(w, h, out)])

    def _level(self, w: int, h: int, out: tuple[int, int]) -> int:
        wanted = min(w / out[0], h / out[1]) * (1 + 1e-6)
        return max((i for i, factor in enumerate(self.downsamples) if factor <= wanted), default=0)

    def close(self) -> None:
        self.slide.close()
        if self.tiles is not None:
            self.tiles.close()


class Sized(Protocol):
    """A level of an image, with its size in pixels."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


class Levels(Protocol):
    """An image in one or several resolutions, finest first, of which frames can be read."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def levels(self) -> Sequence[Sized]: ...
    @property
    def spacing(self) -> Spacing: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def in_strips(self) -> bool: ...
    def region(self, level: int, x: int, y: int, w: int, h: int) -> Pixels: ...
    def close(self) -> None: ...


class Pages(Image):
    """An image that OpenSlide does not read, or reads only in part, read piece by piece: TIFF, CZI or OME-Zarr."""

    def __init__(self, pages: Levels) -> None:
        self.pages = pages
        self.width, self.height = pages.width, pages.height
        self.spacing, self.notes = pages.spacing, pages.notes
        self.in_strips = pages.in_strips

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        number = self._level(w, h, out)
        level = self.pages.levels[number]
        fx, fy = self.width / level.width, self.height / level.height
        left, top = min(int(x / fx), level.width - 1), min(int(y / fy), level.height - 1)
        right, bottom = min(math.ceil((x + w) / fx), level.width), min(math.ceil((y + h) / fy), level.height)
        found = self.pages.region(number, left, top, right - left, bottom - top)
        at = x / fx - left, y / fy - top
        extent = min(w / fx, found.shape[1] - at[0]), min(h / fy, found.shape[0] - at[1])
        return resample(found, extent, out, at)

    def downsample(self, w: int, h: int, out: tuple[int, int]) -> float:
        return self.width / self.pages.levels[self._level(w, h, out)].width

    def _level(self, w: int, h: int, out: tuple[int, int]) -> int:
        wanted = min(w / out[0], h / out[1]) * (1 + 1e-6)
        fine = [i for i, level in enumerate(self.pages.levels) if self.width / level.width <= wanted]
        return fine[-1] if fine else 0

    def close(self) -> None:
        self.pages.close()


def by_openslide(file: Path) -> Slide | None:
    """Open a slide with OpenSlide; return None for a file that it does not read completely.

    OpenSlide reads only the first page of an OME-TIFF, and of a plain TIFF the first page and pages flagged as its
    reduced copies.
    """
    try:
        if openslide.OpenSlide.detect_format(file) is None:
            return None
        opened = Slide(file)
    except openslide.OpenSlideError as error:
        if file.suffix.lower() in (".tif", ".tiff"):
            return None
        raise ReadError(f"not a readable slide: {error}", where=file) from None
    if (largest := _largest_tile(opened)) > SEGMENT_LIMIT:
        opened.close()
        raise ReadError(f"a tile of {largest >> 20} MiB", where=file, remedy="save it in smaller tiles")
    vendor = opened.properties.get(openslide.PROPERTY_NAME_VENDOR)
    if vendor == "dicom":
        try:
            check_colours(file, opened.properties)
        except ReadError:
            opened.close()
            raise
    if vendor == "hamamatsu" and (more := more_planes(file)):
        opened.notes = (*opened.notes, f"{counted(more, 'more focal plane')} not read")
    return _plain(opened, file) if vendor == "generic-tiff" else opened


def _same_pixels(file: Path, slide: Slide) -> bool:
    """Whether OpenSlide reads the pixels of a plain TIFF by our rule; vendor formats are left to OpenSlide."""
    try:
        pages = TiffPages(file)
    except UnknownKindError:
        return False
    except ReadError:
        return True
    with contextlib.closing(pages):
        return pages.is_plain or (slide.tiles is not None and pages.orientation == 1)


def _plain(slide: Slide, file: Path) -> Slide | None:
    """Return a plain TIFF with the data of its pages; None if OpenSlide does not read its image by our rule."""
    found = layout(file)
    if found is None:
        return slide
    same_size = (found.levels[0].width, found.levels[0].height) == (slide.width, slide.height)
    if found.is_ome or not same_size or not _same_pixels(file, slide):
        slide.close()
        return None
    slide.spacing, slide.notes = found.spacing, found.notes
    return slide


def openslide_version() -> str:
    """Return the version of the OpenSlide library."""
    return str(openslide.__library_version__)


def _own_tiles(path: Path, slide: openslide.OpenSlide) -> JpegTiles | None:
    """Return the file's tiles if OpenSlide would only decode them; its drawing takes as long as the decoding."""
    properties = slide.properties
    if properties.get(openslide.PROPERTY_NAME_VENDOR) not in ("generic-tiff", "aperio"):
        return None
    if _colour(properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)) != WHITE:
        return None
    return JpegTiles.of(path, list(slide.level_dimensions))


def _largest_tile(slide: Slide) -> int:
    """Return the bytes of a tile that OpenSlide decodes; 0 for Hamamatsu slides, which it splits itself."""
    if slide.properties.get(openslide.PROPERTY_NAME_VENDOR) == "hamamatsu":
        return 0
    names = [f"openslide.level[{level}].tile-" for level in range(len(slide.sizes))]
    sides = [[int(slide.properties.get(name + side, 0)) for side in ("width", "height")] for name in names]
    return max((4 * wide * tall for wide, tall in sides), default=0)


def _colour(text: str | None) -> tuple[int, int, int]:
    try:
        red, green, blue = ImageColor.getrgb(f"#{text}")[:3]
    except ValueError:
        return WHITE
    return red, green, blue
