"""Files in, pixels of a slide or picture out: the only importer of openslide.

Coordinates are level-0 pixels, x to the right, y down. What a file leaves transparent becomes its background colour.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
import openslide
import tifffile
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow
from PIL import ImageColor, UnidentifiedImageError

from dpconvert.errors import ReadError
from dpconvert.heads import complete_size
from dpconvert.manifest import SANE_MPP
from dpconvert.raster import Coverage
from dpconvert.tiffpages import TiffPages

Pixels = NDArray[np.uint8]
Opened = Path | io.BytesIO
WHITE = (255, 255, 255)
SLIDE_SUFFIXES = {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm"}
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BAND = 1 << 23  # pixels read at once for an overview
LARGE = 1 << 26  # pixels; TIFFs of more are read piece by piece
TISSUE_MPP, TISSUE_SIDE = 8.0, 2048
SATURATION = 0.05, 0.15  # Otsu's threshold is kept between these: a picture may be all background or all tissue
DARK = 20  # below this in every channel: scanner background or padding, whatever its hue
logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it would print is raised here


class Image:
    """A picture of `width` x `height` level-0 pixels.

    mpp: micrometres per pixel, None where the file states none, or an absurd one: then `stated` says which.
    properties: what else the file says of itself, by OpenSlide's names.
    """

    width: int
    height: int
    mpp: float | None = None
    stated: str = ""
    properties: Mapping[str, str] = MappingProxyType({})

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """The frame (x, y, width, height) that holds pixels at all; the whole picture where the file does not say."""
        return _bounds(self.properties, self.width, self.height)

    def downsample(self, w: int, h: int, out: tuple[int, int]) -> float:
        """How much coarser than level 0 the level is that `read` would take for this."""
        return 1.0

    def stored_jpeg(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> bytes | None:
        """The file's own JPEG tile where it is exactly what `read` would give, before it was decoded."""
        return None

    def own_grid(self, factor: float) -> tuple[NDArray[np.int64], tuple[int, int]] | None:
        """Frames (N, 4) of all whole JPEG tiles of the level nearest to `factor`, and a tile's size; None for none."""
        return None

    def read(self, x: int, y: int, w: int, h: int, out: tuple[int, int] | None = None) -> Pixels:
        """The level-0 frame (x, y, w, h) as uint8 RGB (height, width, 3), resampled to `out` (width, height).

        Reads the coarsest level that is at least as fine as asked for; whole factors are averaged, others filtered.

        Raises:
            ReadError: the file is damaged there.
            ValueError: the frame is not inside the picture.
        """
        if min(x, y) < 0 or min(w, h) < 1 or x + w > self.width or y + h > self.height:
            raise ValueError(f"frame {(x, y, w, h)} is not inside {self.width} x {self.height}")
        return self._read(x, y, w, h, out or (w, h))

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        raise NotImplementedError

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


class Flat(Image):
    """A picture that is held in memory as a whole, decoded when its pixels are first asked for where that is safe."""

    def __init__(self, picture: Pixels | Opened) -> None:
        self._picture = picture
        size = None if isinstance(picture, np.ndarray) else complete_size(picture)
        self.width, self.height = size or self.pixels.shape[1::-1]

    @cached_property
    def pixels(self) -> Pixels:
        """uint8 RGB (height, width, 3)."""
        if isinstance(self._picture, np.ndarray):
            return self._picture
        pixels = flat(self._picture)
        height, width = pixels.shape[:2]
        if getattr(self, "width", width) != width or getattr(self, "height", height) != height:
            raise ReadError(
                "of another size than its head says", where=_name(self._picture), found=f"{width} x {height}"
            )
        return pixels

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        return resample(self.pixels[y : y + h, x : x + w], (w, h), out)


class Slide(Image):
    """A pyramid that OpenSlide reads piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slide = openslide.OpenSlide(path)
        self.width, self.height = self.slide.dimensions
        self.downsamples, self.sizes = self.slide.level_downsamples, self.slide.level_dimensions
        self.properties = MappingProxyType(dict(self.slide.properties))
        self.stated = self.properties.get(openslide.PROPERTY_NAME_MPP_X, "")
        self.mpp = sane(self.stated)
        self.background = _colour(self.slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR))
        self.tiles = _own_tiles(path, self.slide)

    def stored_jpeg(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> bytes | None:
        level = self._level(w, h, out)
        factor = self.downsamples[level]
        frame = [value / factor for value in (x, y, w, h)]
        if self.tiles is None or frame[2:] != [*out] or not all(value.is_integer() for value in frame):
            return None
        left, top, width, height = map(int, frame)
        return self.tiles.jpeg_tile(level, left, top, width, height)

    def own_grid(self, factor: float) -> tuple[NDArray[np.int64], tuple[int, int]] | None:
        usable = [i for i, f in enumerate(self.downsamples) if float(f).is_integer()]
        if self.tiles is None or not usable:
            return None
        level = min(usable, key=lambda i: abs(self.downsamples[i] - factor))
        wide, tall = self.tiles.tile_size(level)
        across, down = self.sizes[level]
        columns, rows = np.meshgrid(np.arange(across // wide), np.arange(down // tall))
        corners = np.stack([columns * wide, rows * tall], axis=-1).reshape(-1, 2)
        frames = np.concatenate([corners, np.broadcast_to([wide, tall], corners.shape)], axis=1)
        return (frames * int(self.downsamples[level])).astype(np.int64), (wide, tall)

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        level = self._level(w, h, out)
        factor = self.downsamples[level]
        extent = w / factor, h / factor
        left, top = int(x / factor + 1e-6), int(y / factor + 1e-6)  # OpenSlide blurs what it reads between pixels
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

    def downsample(self, w: int, h: int, out: tuple[int, int]) -> float:
        return float(self.downsamples[self._level(w, h, out)])

    def _level(self, w: int, h: int, out: tuple[int, int]) -> int:
        wanted = min(w / out[0], h / out[1]) * (1 + 1e-6)
        return max((i for i, factor in enumerate(self.downsamples) if factor <= wanted), default=0)

    def close(self) -> None:
        self.slide.close()
        if self.tiles is not None:
            self.tiles.close()


def _own_tiles(path: Path, slide: openslide.OpenSlide) -> TiffPages | None:
    """The file's tiles, where decoding them is all that OpenSlide would do; its way of drawing costs as much again."""
    properties = slide.properties
    if properties.get(openslide.PROPERTY_NAME_VENDOR) not in ("generic-tiff", "aperio"):
        return None
    if _colour(properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)) != WHITE:
        return None
    try:
        pages = TiffPages(path)
    except ReadError:
        return None
    sizes = [(level.width, level.height) for level in pages.levels]
    if sizes == list(slide.level_dimensions) and pages.is_plain_jpeg:
        return pages
    pages.close()
    return None


class Pages(Image):
    """A TIFF that OpenSlide refuses, read piece by piece."""

    def __init__(self, pages: TiffPages) -> None:
        self.pages = pages
        self.width, self.height = pages.width, pages.height
        self.stated = "" if pages.mpp is None else str(pages.mpp)
        self.mpp = sane(self.stated)

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        number = self._level(w, h, out)
        level = self.pages.levels[number]
        fx, fy = self.width / level.width, self.height / level.height
        left, top = min(int(x / fx), level.width - 1), min(int(y / fy), level.height - 1)
        right, bottom = min(math.ceil((x + w) / fx), level.width), min(math.ceil((y + h) / fy), level.height)
        found = _three(self.pages.region(number, left, top, right - left, bottom - top))
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


class Mosaic(Image):
    """Equally large pictures laid out row by row in `columns` columns."""

    def __init__(self, parts: list[Flat], columns: int, where: str) -> None:
        sizes = {(part.width, part.height) for part in parts}
        if len(sizes) != 1 or len(parts) % columns:
            raise ReadError(f"{len(parts)} frames of sizes {sorted(sizes)} make no mosaic", where=where)
        self.parts, self.columns = parts, columns
        self.width, self.height = parts[0].width * columns, parts[0].height * (len(parts) // columns)

    @cached_property
    def whole(self) -> Flat:
        """All parts as one picture."""
        starts = range(0, len(self.parts), self.columns)
        rows = [np.concatenate([part.pixels for part in self.parts[i : i + self.columns]], 1) for i in starts]
        return Flat(np.concatenate(rows, 0))

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        return self.whole.read(x, y, w, h, out)


def open_image(files: Sequence[Opened], columns: int = 1) -> Image:
    """Open one file, or a row-major mosaic of several.

    Raises:
        ReadError: absent, damaged, or of a format that nothing here reads.
    """
    if len(files) > 1:
        return Mosaic([Flat(file) for file in files], columns, _name(files[0]))
    file = files[0]
    if isinstance(file, Path) and file.suffix.lower() in SLIDE_SUFFIXES and file.is_file():
        opened = _by_openslide(file)
        if opened is not None:
            return opened
    if isinstance(file, Path) and file.is_file() and _head(file) in TIFF_MAGIC:
        pages = _in_pages(file)
        if pages is not None:
            return Pages(pages)
    return Flat(file)


def _by_openslide(file: Path) -> Slide | None:
    """A slide, or None for a file that OpenSlide does not read, or not whole: of OME-TIFFs it sees the first page."""
    try:
        if openslide.OpenSlide.detect_format(file) is None:
            return None
        opened = Slide(file)
    except openslide.OpenSlideError as error:
        if file.suffix.lower() in (".tif", ".tiff"):
            return None
        raise ReadError(f"not a readable slide: {error}", where=file) from None
    if "<OME" not in opened.properties.get("tiff.ImageDescription", ""):
        return opened
    opened.close()
    return None


def _in_pages(file: Path) -> TiffPages | None:
    """A TIFF to be read piece by piece: one that is large, or an OME-TIFF, whose resolution is wanted too."""
    try:
        pages = TiffPages(file)
    except ReadError:
        return None  # as a flat picture it is read, or refused with the reason
    if pages.is_ome or pages.width * pages.height > LARGE:
        return pages
    pages.close()
    return None


def flat(file: Opened) -> Pixels:
    """A whole picture as uint8 RGB (height, width, 3); see `as_rgb` for how other kinds of pixels become that.

    Raises:
        ReadError: absent, damaged, or too large to be held in memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of, a large or a corrupt file, is judged here
            if _is_planar_tiff(file):
                return _by_tifffile(file)
            with Pillow.open(file) as picture:
                return as_rgb(picture)
    except Pillow.DecompressionBombError:
        raise ReadError("too large for a flat picture", where=_name(file), remedy="save it as a tiled TIFF") from None
    except UnidentifiedImageError:
        if _head(file) in TIFF_MAGIC:
            return _by_tifffile(file)
        raise ReadError("not a picture of a known format", where=_name(file)) from None
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, EOFError) as error:
        raise ReadError(f"damaged or missing: {error}", where=_name(file), remedy="fetch it again") from None


def as_rgb(picture: Pillow.Image) -> Pixels:
    """RGB by rule: grey repeated, a palette looked up, transparency laid over white, of 16 bits the high byte kept."""
    if picture.mode.startswith(("I;16", "I")):
        high = (np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(high[:, :, None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        return over(np.asarray(picture.convert("RGBA")), WHITE)
    return np.asarray(picture.convert("RGB"))


def over(rgba: NDArray[np.uint8], background: tuple[int, int, int]) -> Pixels:
    """RGBA laid over a colour."""
    alpha = rgba[:, :, 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[:, :, :3])
    weight = alpha.astype(np.uint16)
    mixed = rgba[:, :, :3] * weight + np.array(background, np.uint16) * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


def resample(
    pixels: Pixels, extent: tuple[float, float], out: tuple[int, int], at: tuple[float, float] = (0.0, 0.0)
) -> Pixels:
    """The `extent` (width, height) of an array from `at` on, at the size `out`.

    Whole factors are averaged, others filtered by Lanczos.
    """
    left, top = at
    if extent == (float(out[0]), float(out[1])) and left % 1 == top % 1 == 0:
        return np.ascontiguousarray(pixels[int(top) : int(top) + out[1], int(left) : int(left) + out[0]])
    whole = extent[0] % out[0] == extent[1] % out[1] == 0
    method = Pillow.Resampling.BOX if whole else Pillow.Resampling.LANCZOS
    picture = Pillow.fromarray(np.ascontiguousarray(pixels))
    right, bottom = min(left + extent[0], picture.width), min(top + extent[1], picture.height)
    return np.asarray(picture.resize(out, method, box=(left, top, right, bottom)))


def thumbnail(image: Image, side: int) -> Pixels:
    """The whole picture with its longer side `side` px (never enlarged), read in bands of bounded memory."""
    scale = min(1.0, side / max(image.width, image.height))
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    coarser = image.downsample(image.width, image.height, (width, height))
    rows = max(1, int(BAND * coarser**2 / image.width * height / image.height))
    bands = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        y0, y1 = (edge * image.height // height for edge in (top, bottom))
        bands.append(image.read(0, y0, image.width, y1 - y0, out=(width, bottom - top)))
    return np.concatenate(bands)


@dataclass(frozen=True)
class TissueMask:
    """Where tissue is: `mask` over the whole picture at low resolution, and the saturation that decided it."""

    mask: NDArray[np.bool_]
    threshold: float
    coverage: Coverage

    def share(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Share of tissue in boxes (N, 4) of x, y, width, height in level-0 pixels."""
        return self.coverage.share(boxes)


def tissue(image: Image) -> TissueMask:
    """Tissue by Otsu's threshold on the saturation at about 8 um/px; black is background, as white is.

    Camelyon16's normal_144 is padded with black; other scanners leave dark borders.
    """
    side = max(image.width, image.height)
    wanted = side * image.mpp / TISSUE_MPP if image.mpp else TISSUE_SIDE
    small = thumbnail(image, int(min(max(wanted, TISSUE_SIDE / 2), 2 * TISSUE_SIDE)))
    high, low = small.max(axis=2), small.min(axis=2)
    saturation = (high - low) / np.maximum(high, 1)
    lit = high >= DARK
    threshold = float(np.clip(otsu(saturation[lit]), *SATURATION))
    mask = lit & (saturation > threshold)
    return TissueMask(mask, threshold, Coverage(mask, image.width, image.height))


def otsu(values: NDArray[np.float64], bins: int = 256) -> float:
    """Otsu's threshold of values in [0, 1]: the cut with the largest variance between the two sides (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    between = below * above * (sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)) ** 2
    return float(edges[int(np.argmax(between)) + 1])


def resolution(image: Image, told: float | None, where: str) -> float:
    """Micrometres per pixel at level 0: the file's own, else what the user or the manifest told.

    Raises:
        ReadError: nobody knows.
    """
    found = image.mpp or told
    if found is None:
        raise ReadError(
            "states an absurd resolution" if image.stated else "states no resolution",
            where=where,
            expected=f"{SANE_MPP[0]} to {SANE_MPP[1]} um per pixel",
            found=image.stated or None,
            remedy="give it with --mpp, or as `mpp` in the manifest",
        )
    return found


def openslide_version() -> str:
    """The version of the OpenSlide library."""
    return str(openslide.__library_version__)


def _by_tifffile(file: Opened) -> Pixels:
    """The first picture of a TIFF that Pillow does not read: planar, OME, odd compressions."""
    try:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            if math.prod(page.shape) > 3 * 2 * (Pillow.MAX_IMAGE_PIXELS or 1):
                raise ReadError("too large for a flat picture", where=_name(file), remedy="save it as a tiled TIFF")
            pixels = page.asarray()
    except (KeyError, IndexError):
        raise ReadError("a TIFF that is cut or damaged", where=_name(file), remedy="fetch it again") from None
    except (tifffile.TiffFileError, ValueError, OSError, RuntimeError, TypeError) as error:
        raise ReadError(f"not a readable TIFF: {error}", where=_name(file), remedy="fetch it again") from None
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ReadError("pixels of an unknown kind", where=_name(file), found=f"{pixels.dtype} {pixels.shape}")
    return over(pixels, WHITE) if pixels.shape[2] == 4 else np.ascontiguousarray(pixels)


def _is_planar_tiff(file: Opened) -> bool:
    if _head(file) not in TIFF_MAGIC:
        return False
    try:
        with tifffile.TiffFile(file) as tiff:
            return tiff.pages.first.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    except (tifffile.TiffFileError, ValueError, OSError, KeyError, IndexError, RuntimeError, TypeError, AttributeError):
        return False
    finally:
        if isinstance(file, io.BytesIO):
            file.seek(0)


def _head(file: Opened) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:4]
    with file.open("rb") as opened:
        return opened.read(4)


def _name(file: Opened) -> str:
    return str(file) if isinstance(file, Path) else getattr(file, "name", "archive member")


def sane(text: str | None) -> float | None:
    """Micrometres per pixel as a file states them; None for what cannot be."""
    try:
        mpp = float(text or "")
    except ValueError:
        return None
    return mpp if SANE_MPP[0] <= mpp <= SANE_MPP[1] else None


def _bounds(properties: Mapping[str, str], width: int, height: int) -> tuple[int, int, int, int]:
    names = (
        openslide.PROPERTY_NAME_BOUNDS_X, openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH, openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )  # fmt: skip
    try:
        x, y, w, h = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return 0, 0, width, height
    x, y = min(max(x, 0), width), min(max(y, 0), height)
    w, h = min(w, width - x), min(h, height - y)
    return (x, y, w, h) if w > 0 and h > 0 else (0, 0, width, height)


def _three(pixels: NDArray[np.uint8]) -> Pixels:
    if pixels.shape[2] == 4:
        return over(pixels, WHITE)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _colour(text: str | None) -> tuple[int, int, int]:
    try:
        red, green, blue = ImageColor.getrgb(f"#{text}")[:3]
    except ValueError:
        return WHITE
    return red, green, blue
