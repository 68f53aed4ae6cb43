"""An Olympus slide, read piece by piece: of the images that its head describes, the largest is the slide."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpconvert.errors import ReadError
from dpconvert.image.base import Pixels
from dpconvert.image.rgb import KindError, Range, check_bits, to_rgb
from dpconvert.image.unread import UNREAD
from dpconvert.image.vsi.ets import FETCH, PIXEL_FILE, Place, TileFile
from dpconvert.image.vsi.head import HeadImage, read_head
from dpconvert.plural import counted

TILES_HELD = 1 << 26  # bytes of decoded tiles, which neighbouring frames share
TILES_CHECKED = 64
COLOURS = 3  # components of a pixel


class VsiLevel(NamedTuple):
    """The size of a level in pixels."""

    width: int
    height: int


class VsiPages:
    """The image of an Olympus slide.

    Raises:
        ReadError: the slide is incomplete or damaged, has several channels, or pixels of another kind.
    """

    in_strips = False

    def __init__(self, path: Path, scale: Range | None = None) -> None:
        self.path, self.scale = path, scale
        files = _tile_files(path)
        try:
            images = read_head(path)
            image = _slide(images, path)
            self._tiles = _tiles_of(image, images, files, path)
            more = _further(image, self._tiles, path)
            self._tiles.check()
            held = max(TILES_HELD // (3 * 2 * self._tiles.tile[0] * self._tiles.tile[1]), 1)
            self._tile = lru_cache(held)(self._tiles.samples)
            self._check_bits()
        except ReadError:
            _close(files)
            raise
        _close([one for one in files if one is not self._tiles])
        self.width, self.height, self.spacing = image.width, image.height, image.spacing
        self.levels: Sequence[VsiLevel] = [
            VsiLevel(-(-self.width // 2**level), -(-self.height // 2**level))
            for level in range(len(self._tiles.levels))
        ]
        others = sum(not one.is_auxiliary for one in images) - 1
        self.notes = (*more, *([f"{counted(others, 'more image')} in the file not read"] if others else []))

    def region(self, level: int, x: int, y: int, w: int, h: int) -> Pixels:
        """Return a frame of a level, in pixels of that level: uint8 RGB (h, w, 3); white where there is no tile.

        Raises:
            ReadError: the file is damaged in this frame.
        """
        try:
            return to_rgb(self._samples(level, x, y, w, h), scale=self.scale)
        except KindError as error:
            raise ReadError(str(error), where=self.path, remedy=error.remedy) from None

    def close(self) -> None:
        """Release the file."""
        self._tiles.close()

    def _samples(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[Any]:
        wide, tall = self._tiles.tile
        kind = self._tiles.kind or np.uint8
        found = np.full((h, w, 3), np.iinfo(kind).max, kind)
        for row in range(y // tall, -(-(y + h) // tall)):
            for column in range(x // wide, -(-(x + w) // wide)):
                tile = self._tile(level, (column, row))
                if tile is None:
                    continue
                left, top = max(x, column * wide), max(y, row * tall)
                right, bottom = min(x + w, (column + 1) * wide), min(y + h, (row + 1) * tall)
                part = tile[top - row * tall : bottom - row * tall, left - column * wide : right - column * wide]
                found[top - y : bottom - y, left - x : right - x] = part
        return found

    def _check_bits(self) -> None:
        """Check tiles spread over the coarsest level."""
        if self._tiles.kind == np.uint8:
            return
        places: list[Place] = sorted(self._tiles.levels[-1])
        some = places[:: -(-len(places) // TILES_CHECKED)]
        tiles = (self._tiles.samples(len(self._tiles.levels) - 1, place) for place in some)
        try:
            check_bits(np.concatenate([tile.reshape(-1) for tile in tiles if tile is not None]), scale=self.scale)
        except KindError as error:
            raise ReadError(str(error), where=self.path, remedy=error.remedy) from None


def _tile_files(path: Path) -> list[TileFile]:
    """Open the files of tiles beside a head, in the order of their numbers.

    Raises:
        ReadError: there are none, or one is damaged.
    """
    folder = path.with_name(f"_{path.stem}_")
    if not folder.is_dir():
        raise ReadError("a slide without the folder of its pixels", where=path, expected=f"{folder.name}/ beside it")
    every = [file for file in folder.rglob("*") if PIXEL_FILE.search(file.relative_to(folder).as_posix())]
    tiled = [file for file in every if file.suffix.lower() == ".ets"]
    if not tiled and every:
        what = "a slide whose pixels are in TIFFs, not in tiles, which is not read"
        raise ReadError(what, where=path, found=f"{folder.name}/{every[0].relative_to(folder)}", remedy=UNREAD)
    if not tiled:
        expected = f"{folder.name}/stack1/frame_t.ets, or the like"
        raise ReadError(
            "a slide without the files of its pixels", where=path, expected=expected, remedy="fetch it again"
        )
    found: list[TileFile] = []
    try:
        found.extend(TileFile(file) for file in sorted(tiled, key=_number))
    except ReadError:
        _close(found)
        raise
    return found


def _number(file: Path) -> tuple[int, str]:
    return int(file.parent.name[len("stack") :]), str(file)


def _close(files: Sequence[TileFile]) -> None:
    for file in files:
        with suppress(OSError):
            file.close()


def _slide(images: Sequence[HeadImage], path: Path) -> HeadImage:
    """Return the largest image that does not show the glass as a whole.

    Raises:
        ReadError: there is none.
    """
    found = [image for image in images if not image.is_auxiliary]
    if not found:
        raise ReadError("a slide without an image", where=path, remedy=FETCH)
    return max(found, key=lambda image: image.pixels)


def _tiles_of(slide: HeadImage, images: Sequence[HeadImage], files: Sequence[TileFile], path: Path) -> TileFile:
    """Return the file of tiles of an image; of several images of one size and resolution, the first in colour.

    The head does not name it: the sizes tell.

    Raises:
        ReadError: no file fits the size of the image, or several do.
    """
    fit = [file for file in files if file.fits(slide.width, slide.height)]
    if not fit:  # tiles of empty glass at the edges may not be stored
        free = [file for file in files if not any(file.fits(image.width, image.height) for image in images)]
        fit = [file for file in free if file.lies_in(slide.width, slide.height)]
        if len(fit) == 1:
            return fit[0]
    own = [file for file in fit if file.components == COLOURS] or fit
    alike = [image for image in images if any(file.fits(image.width, image.height) for file in fit)]
    is_known = len({image[1:4] for image in alike}) == 1 and len(alike) == len(fit)
    if is_known and (len(own) == 1 or not any(image.is_auxiliary for image in alike)):
        return own[0]
    size = f"{slide.name or 'without a name'}, {slide.width} x {slide.height}"
    if not fit:
        raise ReadError(
            f"the pixels of the largest image ({size}) are missing",
            where=path,
            expected=f"a file of its tiles, _{path.stem}_/stack.../frame_t.ets",
            remedy="fetch the slide again with all its files",
        )
    raise ReadError(
        f"which tiles are those of the largest image ({size}) cannot be told",
        where=path,
        found=f"{counted(len(alike), 'image')} and {counted(len(fit), 'file')} of tiles of about this size",
        remedy="fetch the slide again with all its files, or save this image as a slide of its own",
    )


def _further(image: HeadImage, tiles: TileFile, path: Path) -> list[str]:
    """Return notes on further focal planes and time points, which are not read.

    Raises:
        ReadError: the image has several channels, or axes in grey of which the head does not say what they are.
    """
    if tiles.components not in (1, COLOURS):
        raise _of_channels(tiles.components, path)
    notes = []
    for number, count in enumerate(tiles.axes):
        what = image.axes.get(number, "plane")
        if count > 1 and (what == "channel" or (what == "plane" and tiles.components == 1)):
            raise _of_channels(count, path)
        if count > 1:
            notes.append(f"{counted(count - 1, f'more {what}')} not read")
    return notes


def _of_channels(count: int, path: Path) -> ReadError:
    what = "an image of several channels (fluorescence), not RGB"
    return ReadError(what, where=path, found=counted(count, "channel"))
