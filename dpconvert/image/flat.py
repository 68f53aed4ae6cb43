"""Pictures that are held in memory as a whole: decoded when their pixels are first asked for where that is safe."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from dpconvert.errors import ReadError, cut
from dpconvert.image.base import WHITE, Image, Pixels, over, resample
from dpconvert.image.guards.allowed_formats import open_picture
from dpconvert.image.guards.libtiff import DAMAGED, UNREADABLE, has_sizes, open_tiff, quiet, tile_pixels
from dpconvert.image.guards.tiff_segments import pixels as tiff_pixels
from dpconvert.image.header import complete_size
from dpconvert.image.spacing import Spacing
from dpconvert.plural import counted

Opened = Path | io.BytesIO
UNPACK = "unpack the archive: slides are read piece by piece, from files of their own"
FREE, RATIO = 1 << 26, 1500  # decoded bytes that need no proof; how many a stored byte may stand for beyond them
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Flat(Image):
    """A picture that is held in memory as a whole, decoded when its pixels are first asked for where that is safe."""

    def __init__(self, picture: Pixels | Opened, spacing: Spacing | None = None, notes: tuple[str, ...] = ()) -> None:
        self._picture, self.spacing, self.notes = picture, spacing or Spacing(), notes
        size = None if isinstance(picture, np.ndarray) else complete_size(picture)
        if size is not None and not isinstance(picture, np.ndarray):
            _check_claim(picture, *size)
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
                "of another size than its head says", where=name(self._picture), found=f"{width} x {height}"
            )
        return pixels

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        return resample(self.pixels[y : y + h, x : x + w], (w, h), out)


class Mosaic(Image):
    """Equally large pictures laid out row by row in `columns` columns."""

    def __init__(self, parts: Sequence[Image], columns: int, where: str) -> None:
        sizes = {(part.width, part.height) for part in parts}
        if len(sizes) != 1 or len(parts) % columns:
            raise ReadError(f"{counted(len(parts), 'frame')} of sizes {sorted(sizes)} make no mosaic", where=where)
        self.parts, self.columns = parts, columns
        spacings = {part.spacing for part in parts}
        self.spacing = parts[0].spacing if len(spacings) == 1 else Spacing(stated="several of the mosaic's parts")
        self.notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        self.width, self.height = parts[0].width * columns, parts[0].height * (len(parts) // columns)

    @cached_property
    def whole(self) -> Flat:
        """All parts as one picture."""
        starts = range(0, len(self.parts), self.columns)
        every = [part.read(0, 0, part.width, part.height) for part in self.parts]
        rows = [np.concatenate(every[i : i + self.columns], 1) for i in starts]
        return Flat(np.concatenate(rows, 0))

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        return self.whole.read(x, y, w, h, out)


def flat(file: Opened) -> Pixels:
    """A whole picture as uint8 RGB (height, width, 3); see `as_rgb` for how other kinds of pixels become that.

    Raises:
        ReadError: absent, damaged, or too large to be held in memory.
    """
    quiet()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of, a large or a corrupt file, is judged here
            if _is_planar_tiff(file):
                return _by_tifffile(file)
            with open_picture(file) as picture:
                _check_claim(file, *picture.size)
                _check_claim(file, tile_pixels(picture), 1)
                return as_rgb(picture)
    except Pillow.DecompressionBombError:
        raise _too_large(file) from None
    except UnidentifiedImageError:
        if head(file) in TIFF_MAGIC:
            return _by_tifffile(file)
        if not head(file):
            raise ReadError("empty: no byte in it", where=name(file), remedy="fetch it again") from None
        raise ReadError("not a picture of a known format", where=name(file)) from None
    except UNREADABLE as error:
        raise ReadError(f"damaged or missing: {error}", where=name(file), remedy="fetch it again") from None


def as_rgb(picture: Pillow.Image) -> Pixels:
    """RGB by rule: grey repeated, a palette looked up, transparency laid over white, of 16 bits the high byte kept."""
    if picture.mode.startswith(("I;16", "I")):
        high = (np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(high[:, :, None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        return over(np.asarray(picture.convert("RGBA")), WHITE)
    return np.asarray(picture.convert("RGB"))


def _by_tifffile(file: Opened) -> Pixels:
    """The first picture of a TIFF that Pillow does not read: planar, OME, odd compressions."""
    try:
        with open_tiff(file) as tiff:
            page = tiff.pages.first
            if not has_sizes(page):
                raise ReadError("a TIFF with sizes that are none", where=name(file), found=cut(f"{page.shape}", 80))
            most = 3 * 2 * (Pillow.MAX_IMAGE_PIXELS or 1)
            if page.nbytes > most:
                raise _too_large(file)
            _check_claim(file, page.imagewidth, page.imagelength)
            pixels = tiff_pixels(page, most)
    except (KeyError, IndexError, ZeroDivisionError):
        raise ReadError("a TIFF that is cut or damaged", where=name(file), remedy="fetch it again") from None
    except DAMAGED as error:
        raise ReadError(f"not a readable TIFF: {error}", where=name(file), remedy="fetch it again") from None
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ReadError("pixels of an unknown kind", where=name(file), found=f"{pixels.dtype} {pixels.shape}")
    return over(pixels, WHITE) if pixels.shape[2] == 4 else np.ascontiguousarray(pixels)


def _too_large(file: Opened) -> ReadError:
    remedy = "save it as a tiled TIFF" if isinstance(file, Path) else UNPACK
    return ReadError("too large for a flat picture", where=name(file), remedy=remedy)


def _check_claim(file: Opened, width: int, height: int) -> None:
    """Refuse a file of a few bytes that claims gigabytes of pixels: no format packs pictures so well."""
    stored = len(file.getvalue()) if isinstance(file, io.BytesIO) else file.stat().st_size
    if width * height * 3 > max(FREE, RATIO * stored):
        raise ReadError(
            f"claims {width} x {height} pixels in {stored} bytes", where=name(file),
            remedy="it is damaged or made to harm: fetch it again",
        )  # fmt: skip


def _is_planar_tiff(file: Opened) -> bool:
    if head(file) not in TIFF_MAGIC:
        return False
    try:
        with open_tiff(file) as tiff:
            return tiff.pages.first.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    except DAMAGED:
        return False
    finally:
        if isinstance(file, io.BytesIO):
            file.seek(0)


def head(file: Opened) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:4]
    with file.open("rb") as opened:
        return opened.read(4)


def name(file: Opened) -> str:
    return str(file) if isinstance(file, Path) else getattr(file, "name", "archive member")
