"""Files in, pixels of a slide or picture out: the only importer of openslide.

Coordinates are level-0 pixels, x to the right, y down. What a file leaves transparent becomes its background colour.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import openslide
import tifffile
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow
from PIL import ImageColor, UnidentifiedImageError

from dpconvert.errors import ReadError
from dpconvert.raster import Coverage

Pixels = NDArray[np.uint8]
Opened = Path | io.BytesIO
SANE_MPP = 0.05, 10.0  # micrometres per pixel; beyond, a file's own statement is an error
WHITE = (255, 255, 255)
SLIDE_SUFFIXES = {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm"}
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BAND = 1 << 25  # pixels read at once for an overview
TISSUE_MPP, TISSUE_SIDE = 8.0, 2048
SATURATION = 0.05, 0.15  # Otsu's threshold is kept between these: a picture may be all background or all tissue
DARK = 20  # below this in every channel: scanner background or padding, whatever its hue


class Image:
    """A picture of `width` x `height` level-0 pixels; `mpp` is None where the file states none, or an absurd one."""

    width: int
    height: int
    mpp: float | None = None

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
    """A picture that is held in memory as a whole."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        return resample(self.pixels[y : y + h, x : x + w], (w, h), out)


class Slide(Image):
    """A pyramid that OpenSlide reads piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slide = openslide.OpenSlide(path)
        self.width, self.height = self.slide.dimensions
        self.mpp = _sane(self.slide.properties.get(openslide.PROPERTY_NAME_MPP_X))
        self.background = _colour(self.slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR))

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        level = self.slide.get_best_level_for_downsample(min(w / out[0], h / out[1]) * (1 + 1e-6))
        factor = self.slide.level_downsamples[level]
        extent = w / factor, h / factor
        try:
            region = self.slide.read_region((x, y), level, (math.ceil(extent[0]), math.ceil(extent[1])))
        except openslide.OpenSlideError as error:
            raise ReadError(f"cannot be read at {(x, y, w, h)}: {error}", where=self.path) from None
        return resample(over(np.asarray(region), self.background), extent, out)

    def close(self) -> None:
        self.slide.close()


class Mosaic(Image):
    """Equally large pictures laid out row by row in `columns` columns."""

    def __init__(self, parts: list[Flat], columns: int, where: str) -> None:
        sizes = {(part.width, part.height) for part in parts}
        if len(sizes) != 1 or len(parts) % columns:
            raise ReadError(f"{len(parts)} frames of sizes {sorted(sizes)} make no mosaic", where=where)
        rows = [np.concatenate([p.pixels for p in parts[i : i + columns]], 1) for i in range(0, len(parts), columns)]
        self.whole = Flat(np.concatenate(rows, 0))
        self.width, self.height = self.whole.width, self.whole.height

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        return self.whole.read(x, y, w, h, out)


def open_image(files: Sequence[Opened], columns: int = 1) -> Image:
    """Open one file, or a row-major mosaic of several.

    Raises:
        ReadError: absent, damaged, or of a format that nothing here reads.
    """
    if len(files) > 1:
        return Mosaic([Flat(flat(file)) for file in files], columns, _name(files[0]))
    file = files[0]
    if isinstance(file, Path) and file.suffix.lower() in SLIDE_SUFFIXES and file.is_file():
        try:
            if openslide.OpenSlide.detect_format(file) is not None:
                return Slide(file)
        except openslide.OpenSlideError as error:
            if file.suffix.lower() not in (".tif", ".tiff"):
                raise ReadError(f"not a readable slide: {error}", where=file) from None
    return Flat(flat(file))


def flat(file: Opened) -> Pixels:
    """A whole picture as uint8 RGB (height, width, 3); see `as_rgb` for how other kinds of pixels become that.

    Raises:
        ReadError: absent, damaged, or too large to be held in memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
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


def resample(pixels: Pixels, extent: tuple[float, float], out: tuple[int, int]) -> Pixels:
    """The top left `extent` (width, height) of an array, at the size `out`: averaged by whole factors, else Lanczos."""
    if extent == (float(out[0]), float(out[1])):
        return np.ascontiguousarray(pixels[: out[1], : out[0]])
    whole = extent[0] % out[0] == extent[1] % out[1] == 0
    method = Pillow.Resampling.BOX if whole else Pillow.Resampling.LANCZOS
    picture = Pillow.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize(out, method, box=(0, 0, *extent)))


def thumbnail(image: Image, side: int) -> Pixels:
    """The whole picture with its longer side `side` px (never enlarged), read in bands of bounded memory."""
    scale = min(1.0, side / max(image.width, image.height))
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    rows = max(1, BAND // image.width * height // image.height)
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
    except (tifffile.TiffFileError, ValueError, OSError, KeyError, IndexError, RuntimeError, TypeError) as error:
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


def _sane(text: str | None) -> float | None:
    try:
        mpp = float(text or "")
    except ValueError:
        return None
    return mpp if SANE_MPP[0] <= mpp <= SANE_MPP[1] else None


def _colour(text: str | None) -> tuple[int, int, int]:
    try:
        red, green, blue = ImageColor.getrgb(f"#{text}")[:3]
    except ValueError:
        return WHITE
    return red, green, blue
