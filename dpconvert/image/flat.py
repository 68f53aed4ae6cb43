"""Images that are held in memory as a whole; they are decoded on first access if that is safe."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from dpconvert.errors import ReadError, cut
from dpconvert.image import pnm
from dpconvert.image.base import Image, Pixels, resample
from dpconvert.image.decode import JPEG_START, PNG_START, decode, decode_jpeg2000
from dpconvert.image.guards.allowed_formats import open_image
from dpconvert.image.guards.libtiff import DAMAGED, UNREADABLE, has_sizes, open_tiff, quiet, tile_pixels
from dpconvert.image.guards.pixel_claims import ClaimError, TooLargeError, check_claim
from dpconvert.image.guards.tiff_segments import pixels as tiff_pixels
from dpconvert.image.header import complete_size
from dpconvert.image.ome.ome_metadata import Opened
from dpconvert.image.rgb import (
    ORIENTATION,
    KindError,
    Range,
    check_bits,
    check_palette,
    several,
    to_rgb,
    upright,
    valid_orientation,
)
from dpconvert.image.spacing import Spacing
from dpconvert.image.tiff.tiff_layout import name
from dpconvert.image.tiff.tiff_rgb import (
    bits_per_pixel,
    check_kind,
    check_page_bits,
    orientation_of_page,
    page_rgb,
    settle_colours,
    significant_bits,
)
from dpconvert.plural import counted
from dpconvert.runtime.limits import is_beyond

OPENJPEG_BYTES = 9  # of memory for a sample: two integers and the result
# (place, bytes) by which formats that are not read are known
UNREAD = {
    (0, b"\xff\x0a"): "JPEG XL",
    (4, b"JXL \r\n\x87\n"): "JPEG XL",
    (0, b"II\xbc\x01"): "JPEG XR",
    (4, b"ftypavif"): "AVIF",
    (4, b"ftypavis"): "AVIF",
    (4, b"ftyp"): "HEIC, or a film",  # the other formats in the container of ISO/IEC 14496-12
}
HARMFUL = "it is damaged or malicious: fetch it again"
UNPACK = "unpack the archive: slides are read piece by piece, from files of their own"
WIDTHS = {"1": 1 / 8, "I;16": 2, "I;16B": 2, "I": 4, "F": 4}  # bytes per sample, by Pillow mode; 1 for others
LEAST = 1 / 8  # minimum bytes per pixel: one bit
SEPARATE = tifffile.PLANARCONFIG.SEPARATE
CUT = KeyError, IndexError, ZeroDivisionError
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Flat(Image):
    """An image that is held in memory as a whole; it is decoded on first access if that is safe."""

    def __init__(
        self,
        image: Pixels | Opened,
        scale: Range | None = None,
        spacing: Spacing | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._image, self._scale, self.spacing, self.notes = image, scale, spacing or Spacing(), notes
        size = None if isinstance(image, np.ndarray) else complete_size(image)
        if size is not None and not isinstance(image, np.ndarray):
            _check_size(image, *size)
        self.width, self.height = size or self.pixels.shape[1::-1]

    @cached_property
    def pixels(self) -> Pixels:
        """uint8 RGB (height, width, 3)."""
        if isinstance(self._image, np.ndarray):
            return self._image
        pixels = flat(self._image, self._scale)
        height, width = pixels.shape[:2]
        if getattr(self, "width", width) != width or getattr(self, "height", height) != height:
            raise ReadError("its size differs from its header", where=name(self._image), found=f"{width} x {height}")
        return pixels

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        return resample(self.pixels[y : y + h, x : x + w], (w, h), out)


class Mosaic(Image):
    """Equally large images laid out row by row in `columns` columns."""

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
        """Return all parts as one image."""
        starts = range(0, len(self.parts), self.columns)
        every = [part.read(0, 0, part.width, part.height) for part in self.parts]
        rows = [np.concatenate(every[i : i + self.columns], 1) for i in starts]
        return Flat(np.concatenate(rows, 0))

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        return self.whole.read(x, y, w, h, out)


def flat(file: Opened, scale: Range | None = None) -> Pixels:
    """Return a whole image as upright uint8 RGB (height, width, 3), by the rule of dpconvert.image.rgb.

    scale: for images of more than 8 bits, the sample values that become black and white.

    Raises:
        ReadError: the file is missing, damaged, not covered by the rule, or too large to be held in memory.
    """
    quiet()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large and corrupt files, which are handled here
            return _decoded(file, head(file), scale)
    except (Pillow.DecompressionBombError, TooLargeError):
        raise _too_large(file) from None
    except UnidentifiedImageError:
        if not head(file):
            raise ReadError("empty file (0 bytes)", where=name(file), remedy="fetch it again") from None
        start = head(file, 16)
        if known := next((kind for (at, magic), kind in UNREAD.items() if start.startswith(magic, at)), None):
            remedy = "convert these images to PNG, which loses nothing"
            raise ReadError(
                f"an image in {known}, a format that is not read", where=name(file), remedy=remedy
            ) from None
        raise ReadError("not an image of a known format", where=name(file)) from None
    except KindError as error:
        raise ReadError(str(error), where=name(file), remedy=error.remedy) from None
    except ClaimError as error:
        raise ReadError(str(error), where=name(file), remedy=HARMFUL) from None
    except UNREADABLE as error:
        raise ReadError(f"damaged or missing: {error}", where=name(file), remedy="fetch it again") from None


def _decoded(file: Opened, start: bytes, scale: Range | None) -> Pixels:
    if start in TIFF_MAGIC:
        return _tiff(file, scale)
    if start == PNG_START[:4] or start.startswith(JPEG_START):
        return decode(content(file), scale, source=True)
    if pnm.is_netpbm(start):
        return pnm.read(content(file)).rgb(scale)
    return _by_pillow(file, scale)


def _by_pillow(file: Opened, scale: Range | None) -> Pixels:
    with open_image(file) as image:
        check_claim(*image.size, stored_bytes(file), WIDTHS.get(image.mode, 1) * len(image.getbands()))
        check_claim(tile_pixels(image), 1, stored_bytes(file))
        frames = getattr(image, "n_frames", 1)
        if image.format == "TIFF":  # Pillow applies the orientation
            return as_rgb(image, scale)
        if frames > 1:
            raise several(frames)
        if image.format == "JPEG2000":
            return _by_openjpeg(image, file, scale)
        return upright(as_rgb(image, scale), valid_orientation(image.getexif().get(ORIENTATION)))


def _by_openjpeg(image: Pillow.Image, file: Opened, scale: Range | None) -> Pixels:
    """Decode a JPEG 2000.

    Raises:
        MemoryError: it cannot be decoded, and takes more memory than the limit allows, of which OpenJPEG says nothing.
    """
    needed = OPENJPEG_BYTES * image.width * image.height * len(image.getbands())
    try:
        if (found := decode_jpeg2000(content(file))) is not None:
            return _of_jpeg2000(*found, scale)
        return upright(as_rgb(image, scale), valid_orientation(image.getexif().get(ORIENTATION)))
    except KindError:
        raise
    except (OSError, ValueError):
        if is_beyond(needed):
            raise MemoryError from None
        raise


def _of_jpeg2000(samples: NDArray[Any], bits: int, scale: Range | None) -> Pixels:
    opaque = samples.ndim == 2 or samples.shape[2] in (1, 3)
    check_bits(samples if opaque else samples[:, :, :-1], bits, scale)
    return to_rgb(samples, bits=bits, opacity="" if opaque else "unassociated", scale=scale)


def as_rgb(image: Pillow.Image, scale: Range | None = None) -> Pixels:
    """Convert an image that Pillow decodes by the rule, including 16-bit samples that it keeps in 32 bits ("I")."""
    if image.mode.startswith(("I", "F")):
        samples = np.asarray(image)
        if image.mode == "I" and samples.min(initial=0) >= 0 and samples.max(initial=0) < 1 << 16:
            samples = samples.astype(np.uint16)
        check_bits(samples, scale=scale)
        return to_rgb(samples, scale=scale)
    check_palette(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return to_rgb(np.asarray(image.convert("RGBA")), opacity="unassociated")
    return to_rgb(np.asarray(image.convert("RGB")))


def _tiff(file: Opened, scale: Range | None) -> Pixels:
    """Return the first image of a TIFF, read by tifffile, which keeps the original samples, or else by Pillow."""
    try:
        return _by_tifffile(file, scale)
    except DAMAGED as error:
        if isinstance(error, KindError | ClaimError | TooLargeError):
            raise
        why = "a truncated or damaged TIFF" if isinstance(error, CUT) else f"not a readable TIFF: {error}"
        refused = ReadError(why, where=name(file), remedy="fetch it again")
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        return _by_pillow(file, scale)
    except (*UNREADABLE, KindError):
        raise refused from None


def _by_tifffile(file: Opened, scale: Range | None) -> Pixels:
    with open_tiff(file) as tiff:
        page = tiff.pages.first
        if not has_sizes(page):
            raise ReadError(
                "invalid TIFF: width, height or tile size is not a positive integer",
                where=name(file),
                found=cut(f"{page.shape}", 80),
            )
        most = 3 * 2 * (Pillow.MAX_IMAGE_PIXELS or 1)
        if page.nbytes > most:
            raise _too_large(file)
        check_claim(page.imagewidth, page.imagelength, stored_bytes(file), bits_per_pixel(page) / 8)
        check_kind(page, scale)
        settle_colours(page)
        samples, bits = tiff_pixels(page, most), significant_bits(page)
        if samples.ndim == 3 and page.planarconfig == SEPARATE:
            samples = np.moveaxis(samples, 0, 2)
        check_page_bits(samples, page, bits, scale)
        return upright(page_rgb(samples, page, bits, scale), orientation_of_page(page))


def _check_size(file: Opened, width: int, height: int) -> None:
    try:
        check_claim(width, height, stored_bytes(file), LEAST)
    except ClaimError as error:
        raise ReadError(str(error), where=name(file), remedy=HARMFUL) from None
    except TooLargeError:
        raise _too_large(file) from None


def _too_large(file: Opened) -> ReadError:
    remedy = "save it as a tiled TIFF" if isinstance(file, Path) else UNPACK
    return ReadError("too large for a flat image", where=name(file), remedy=remedy)


def content(file: Opened) -> bytes:
    """Return all bytes of a file."""
    return file.getvalue() if isinstance(file, io.BytesIO) else file.read_bytes()


def stored_bytes(file: Opened) -> int:
    """Return the size of a file in bytes."""
    return len(file.getvalue()) if isinstance(file, io.BytesIO) else file.stat().st_size


def head(file: Opened, size: int = 4) -> bytes:
    """Return the first bytes of a file."""
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:size]
    with file.open("rb") as opened:
        return opened.read(size)
