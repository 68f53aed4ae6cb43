"""The pixels of a mask as numbers: grey values, indexes of a palette, or colours; what would be lost is refused.

Colours count as 0xrrggbb where the manifest names them, "#ff0000" = "tumour". Elsewhere the channels of a mask must be
equal. A mask has one page (smaller copies of it aside), and its transparency alone carries no information. A grey TIFF
whose zero is white (PhotometricInterpretation 0) has two readings, and programs differ: the values as `stored`
(tifffile, GDAL), or as `shown` (Pillow, libtiff's RGBA and so OpenCV and OpenSlide, Bio-Formats): 255 minus those.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import BeforeValidator

from dpconvert.errors import ReadError
from dpconvert.image import pnm
from dpconvert.image.decode import decode_jpeg2000
from dpconvert.image.guards.allowed_formats import open_image
from dpconvert.image.guards.libtiff import DAMAGED, UNREADABLE, has_sizes, open_tiff, quiet, tile_pixels
from dpconvert.image.guards.tiff_segments import pixels
from dpconvert.image.rgb import KindError, check_palette, orientation_of, upright
from dpconvert.image.tiff.tiff_rgb import GREY_INVERTED, orientation_of_page

MOST_CELLS = 1 << 28
MOST_BYTES = 2 * MOST_CELLS  # of a level of a mask, whatever a cell takes
COLOUR = re.compile(r"#[0-9a-f]{6}")
SHOWN = 5  # colours, in a message
Pixels = NDArray[Any]
Reading = Literal["shown", "stored"]


class ColourError(ReadError):
    """A mask in colours where one number per pixel is needed."""


def _value(key: object) -> object:
    """A number, or a colour '#rrggbb' in small letters.

    Raises:
        ValueError: neither.
    """
    if isinstance(key, str) and key.startswith("#"):
        if not COLOUR.fullmatch(key.lower()):
            raise ValueError("a colour of a mask is '#' and six hexadecimal digits, as in '#ff0000'")
        return key.lower()
    return int(key) if isinstance(key, str) else key


Value = Annotated[int | str, BeforeValidator(_value)]


def numbered(labels: Mapping[int | str, str], name: str) -> tuple[dict[int, str], bool]:
    """Values and colours as numbers -> labels, and whether they are colours.

    Raises:
        ReadError: there are both.
    """
    colours = {int(key[1:], 16): label for key, label in labels.items() if isinstance(key, str)}
    if colours and len(colours) < len(labels):
        raise ReadError("`values` names both numbers and colours of masks", where=name, remedy="name either")
    return (
        (colours, True) if colours else ({key: label for key, label in labels.items() if isinstance(key, int)}, False)
    )


def read(
    data: bytes, name: str, *, colours: bool, threshold: int | None = None, reading: Reading = "shown"
) -> NDArray[np.integer]:
    """(rows, columns) of numbers: 0xrrggbb with `colours`; 0 and 1 (above it) with `threshold`.

    reading: of a TIFF whose zero is white.

    Raises:
        ColourError: one in colours without `colours`.
        ReadError: no readable image, or one whose numbers are not distinct.
    """
    quiet()
    if zero_is_white(data):
        values = _of_white_zero(data, name, reading)
    else:
        values = _without_alpha(_decoded(data, name, colours=colours), name)
    if not values.size:  # what some versions of tifffile give for a damaged file
        raise ReadError("not a readable mask: it has no pixels", where=name)
    if values.dtype == bool:
        values = values.astype(np.uint8) * (255 if colours else 1)
    if values.ndim not in (2, 3) or not np.issubdtype(values.dtype, np.integer):
        raise ReadError(
            "mask of an unknown kind",
            where=name,
            found=f"{values.dtype} {values.shape}",
            remedy="save it with whole numbers",
        )
    if threshold is not None:
        _check_above(values, threshold, name)
        values = (values > threshold).astype(np.uint8)
    elif colours:
        return _packed(values, name)
    return values if values.ndim == 2 else _grey(values, name)


def _check_above(values: Pixels, threshold: int, name: str) -> None:
    """Refuse a mask of 0 and 1 whose ones are below the threshold, as one among masks of 0 and 255 would be.

    Raises:
        ReadError: it is one.
    """
    if threshold >= 1 and values.size and values.max() == 1:
        raise ReadError(
            f"a mask of 0 and 1, of which nothing is above the threshold of {threshold}",
            where=name,
            remedy="save it with 0 and 255; or state `threshold = 0` in [layout], if every value above 0 counts in all "
            "masks",
        )


def zero_is_white(data: bytes) -> bool:
    """Whether the content is a grey TIFF whose zero is white, so that it has two readings."""
    if not data.startswith((b"II", b"MM")):
        return False
    with suppress(*DAMAGED), open_tiff(io.BytesIO(data)) as tiff:
        return int(tiff.pages.first.photometric) == GREY_INVERTED
    return False


def shown(value: int, *, colours: bool) -> str:
    """Format a value as the manifest writes it."""
    return f"#{value:06x}" if colours else str(value)


def palette(data: bytes) -> dict[int, int]:
    """Return the colours 0xrrggbb of a palette by their indexes; nothing if the content has no palette, or none that
    can be read.
    """
    with suppress(*UNREADABLE, Pillow.DecompressionBombError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_image(io.BytesIO(data)) as image:
            found = (image.getpalette("RGB") or []) if image.mode in ("P", "PA") else []
            triples = zip(found[::3], found[1::3], found[2::3], strict=False)
            return {index: red << 16 | green << 8 | blue for index, (red, green, blue) in enumerate(triples)}
    return {}


def _grey(values: Pixels, name: str) -> Pixels:
    first = values[:, :, 0]
    if (values == first[:, :, None]).all():
        return first
    is_colour = values.shape[2] == 3 and values.dtype == np.uint8
    found = np.unique(_packed(values, name)).tolist() if is_colour else []
    more = f", ... ({len(found)})" if len(found) > SHOWN else ""
    raise ColourError(
        "a mask in colours, whose channels differ",
        where=name,
        expected="one number per pixel",
        found=", ".join(f"#{colour:06x}" for colour in found[:SHOWN]) + more if len(found) else None,
        remedy='name its colours in the manifest\'s `values`, as in "#ff0000" = "tumour"',
    )


def _packed(values: Pixels, name: str) -> NDArray[np.integer]:
    if values.dtype != np.uint8:
        grey = 'if its values number objects, say `objects = "values"` in [layout]' if values.ndim == 2 else None
        raise ReadError("a mask in colours of more than 8 bits", where=name, found=values.dtype, remedy=grey)
    if values.ndim == 2 or values.shape[2] == 1:
        values = np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
    if values.shape[2] != 3:
        raise ReadError("mask of an unknown kind", where=name, found=f"{values.shape[2]} channels")
    red, green, blue = (values[:, :, channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _without_alpha(values: Pixels, name: str) -> Pixels:
    """Colours, or grey, without the alpha channel; which may say nothing that they do not."""
    if values.ndim != 3 or values.shape[2] not in (2, 4) or values.dtype != np.uint8:
        return values
    colours, alpha = values[:, :, :-1], values[:, :, -1]
    if alpha.min(initial=255) != alpha.max(initial=0):
        kinds = _packed(colours, name)
        if len(np.unique(kinds.astype(np.int64) << 8 | alpha)) > len(np.unique(kinds)):
            raise ReadError(
                "a mask that distinguishes areas only by their transparency",
                where=name,
                remedy="save it without transparency, every class in a colour of its own",
            )
    return colours if colours.shape[2] > 1 else colours[:, :, 0]


def _decoded(data: bytes, name: str, *, colours: bool) -> Pixels:
    """(rows, columns) or (rows, columns, channels), as stored; palettes looked up with `colours`."""
    if data.startswith(b"\x89PNG") and data[24:25] == b"\x10" and data[25:26] != b"\0":
        raise ReadError("a mask in colours of more than 8 bits", where=name, remedy="save it in grey, or in 8 bits")
    if not _first_is_whole(data, name):
        return _coarser(data, name)
    try:
        if pnm.is_netpbm(data[:3]):
            return _of_netpbm(pnm.read(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of, a large or a corrupt file, is judged here
            with open_image(io.BytesIO(data)) as image:
                if tile_pixels(image) > MOST_CELLS:
                    raise ReadError(f"a mask with tiles of {tile_pixels(image)} pixels", where=name)
                if image.format != "TIFF" and getattr(image, "is_animated", False):
                    raise _several(name, "an animation")
                deep = decode_jpeg2000(data) if image.format == "JPEG2000" else None
                if colours and deep is None:
                    _check_palette(image, name)
                values = np.asarray(_as_stored(image, colours=colours)) if deep is None else deep[0]
                return upright(values, 1 if image.format == "TIFF" else orientation_of(data))  # Pillow turns TIFFs
    except Pillow.DecompressionBombError:
        return _coarser(data, name)
    except UNREADABLE as error:
        raise ReadError(f"not a readable mask: {error}", where=name) from None


def _of_white_zero(data: bytes, name: str, reading: Reading) -> Pixels:
    _first_is_whole(data, name)
    values = _coarser(data, name)
    if reading == "stored" or values.dtype.kind not in "bu":
        return values
    if values.dtype == bool:
        return ~values
    with open_tiff(io.BytesIO(data)) as tiff:
        bits = int(tiff.pages.first.bitspersample)
    return ((1 << bits) - 1 - values.astype(np.int64)).astype(values.dtype)


def _of_netpbm(image: pnm.Netpbm) -> Pixels:
    samples = image.samples.astype(bool) if image.white == 1 else image.samples
    return samples[:, :, 0] if samples.shape[2] == 1 else samples


def _check_palette(image: Pillow.Image, name: str) -> None:
    """Refuse indexes beyond the palette.

    Raises:
        ReadError: there is one.
    """
    try:
        check_palette(image)
    except KindError as error:
        raise ReadError(
            f"a mask with {error}",
            where=name,
            remedy="name the indexes in the manifest's `values` instead of colours, or save the mask again",
        ) from None


def _as_stored(image: Pillow.Image, *, colours: bool) -> Pillow.Image:
    if image.mode in ("P", "PA") and colours:
        return image.convert("RGBA")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return image.convert("RGB")
    return image


def _first_is_whole(data: bytes, name: str) -> bool:
    """Whether the first page is the one to be read: of a TIFF the largest, of which the others are smaller copies.

    Raises:
        ReadError: The TIFF has several pages that are not copies of one image.
    """
    if not data.startswith((b"II", b"MM")):
        return True
    with suppress(*DAMAGED), open_tiff(io.BytesIO(data)) as tiff:
        pages = [page for page in tiff.pages if has_sizes(page)]
        if len(pages) < 2:
            return True
        largest = max(pages, key=lambda page: page.imagewidth * page.imagelength)
        if any(not _is_copy(page, largest) for page in pages if page is not largest):
            raise _several(name, f"{len(pages)} pages")
        return largest is pages[0]
    return True


def _coarser(data: bytes, name: str) -> Pixels:
    """The finest level that fits of a mask that is a pyramid, as Camelyon's are."""
    try:
        with open_tiff(io.BytesIO(data)) as tiff:
            pages = [
                page
                for page in tiff.pages
                if has_sizes(page) and page.imagewidth * page.imagelength <= MOST_CELLS and page.nbytes <= MOST_BYTES
            ]
            if pages:
                finest = max(pages, key=lambda page: page.imagewidth)
                values: Pixels = upright(pixels(finest, MOST_BYTES), orientation_of_page(finest))
                return values
    except DAMAGED as error:
        raise ReadError(f"not a readable mask: {error}", where=name) from None
    raise ReadError("mask too large to be read", where=name, remedy="save it as a TIFF pyramid, or smaller")


def _is_copy(page: tifffile.TiffPage, whole: tifffile.TiffPage) -> bool:
    """Whether a page is, by its size or its own words, a smaller copy of another."""
    width, height = whole.imagewidth, whole.imagelength
    if page.imagewidth >= width or page.imagelength >= height:
        return False
    return page.is_reduced or abs(page.imagewidth * height - page.imagelength * width) <= width + height


def _several(name: str, found: str) -> ReadError:
    return ReadError(
        "a mask of several pages",
        where=name,
        expected="one page, besides smaller copies of it",
        found=found,
        remedy="save each page as a file of its own",
    )
