"""Images that are whole slides by their content, although their names do not say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from statistics import median

import tifffile

from dpconvert.image.guards.libtiff import DAMAGED, open_tiff
from dpconvert.image.header import complete_size
from dpconvert.readers.draft.masks.words import FOLDER, bare
from dpconvert.source.files import Source

SAMPLED = 10  # files that are opened
LARGE = 1 << 24  # pixels, 4096 x 4096: no patch that somebody has cut
VERY_LARGE = 1 << 27  # pixels: a slide even without reduced levels


def slides_of(source: Source, tiffs: Sequence[str]) -> list[str]:
    """The TIFFs that no name tells to be masks, if they are large, tiled, and with smaller levels; none otherwise.

    tiffs: in name order.
    """
    found = [name for name in tiffs if not _named_as_mask(PurePosixPath(name))]
    return found if all(_is_slide(source.file(name)) for name in _spread(found)) else []


def whole_slides(source: Source, images: Sequence[str]) -> Iterator[str]:
    """What to ask where each image is one sample, and images are as large as slides."""
    sizes = [size for name in _spread(images) if (size := complete_size(source.file(name))) is not None]
    if sizes and median(width * height for width, height in sizes) >= LARGE:
        width, height = max(sizes, key=lambda size: size[0] * size[1])
        yield (
            f"Images are as large as slides ({width} x {height} px), and each is one sample. To cut patches from them, "
            "choose the shape slides and a [rule] of the type tiles or area; if they are to be stored whole, nothing "
            "need change"
        )


def _named_as_mask(path: PurePosixPath) -> bool:
    return bare(path.stem) != path.stem or any(map(FOLDER.fullmatch, path.parent.parts))


def _spread(names: Sequence[str]) -> Iterable[str]:
    return names[:: -(-len(names) // SAMPLED)] if names else ()


def _is_slide(file: Path | BytesIO) -> bool:
    try:
        with open_tiff(file) as tiff:
            first, *others = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
            area = first.imagewidth * first.imagelength
            smaller = any(page.is_tiled and page.imagewidth * page.imagelength < area for page in others)
            return bool(first.is_tiled) and area >= (LARGE if smaller else VERY_LARGE)
    except DAMAGED:
        return False
