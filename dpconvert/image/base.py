"""The interface of all images, whatever their format, and the resampling and compositing of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.image.spacing import CONTRADICTION, MAGNIFICATION, Spacing

Pixels = NDArray[np.uint8]
WHITE = (255, 255, 255)
BLOCK = 4096  # level-0 pixels; samples are ordered by squares of this side, so that readers cache little
CELL = 512  # within a block by squares of this side, about a stored tile: it is used up while in the processor's cache
BOUNDS = tuple(f"openslide.bounds-{side}" for side in ("x", "y", "width", "height"))


class Image:
    """An image of `width` x `height` level-0 pixels.

    spacing: micrometres per pixel, as the file states them. stated: the same, where a user states another. notes: parts
    of the file that are not read. properties: other metadata of the file, by OpenSlide's names. in_strips: whether the
    file stores rows over the whole width, so that frames side by side are best read together.
    """

    width: int
    height: int
    spacing: Spacing = Spacing()
    stated: Spacing | None = None
    notes: tuple[str, ...] = ()
    properties: Mapping[str, str] = MappingProxyType({})
    in_strips: bool = False

    @property
    def mpp(self) -> float | None:
        """Micrometres per pixel along x; None if the file states none or an absurd one."""
        return self.spacing.x

    def restate(self, mpp: float) -> None:
        """Treat pixels as squares of `mpp` micrometres, whatever the file states."""
        self.stated, self.spacing = self.spacing, Spacing(mpp, mpp, f"{mpp:g}")
        self.notes = tuple(note for note in self.notes if note not in (CONTRADICTION, MAGNIFICATION))

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """The frame (x, y, width, height) that contains pixels; the whole image if the file does not state it."""
        try:
            x, y, w, h = (int(self.properties[name]) for name in BOUNDS)
        except (KeyError, ValueError):
            return 0, 0, self.width, self.height
        x, y = min(max(x, 0), self.width), min(max(y, 0), self.height)
        w, h = min(w, self.width - x), min(h, self.height - y)
        return (x, y, w, h) if w > 0 and h > 0 else (0, 0, self.width, self.height)

    def downsample(self, w: int, h: int, out: tuple[int, int]) -> float:
        """Return how much coarser than level 0 the level is that `read` would use for this frame."""
        return 1.0

    def reduction(self, w: int, h: int, out: tuple[int, int]) -> int:
        """Return the number of stored pixels per side that `overview` decodes as one."""
        return 1

    def overview(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        """Read like `read`, up to invisible differences, but faster if nothing coarser than level 0 is stored."""
        return self.read(x, y, w, h, out)

    def stored_jpeg(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> bytes | None:
        """Return the file's own JPEG tile if decoding it gives exactly what `read` returns; else None."""
        return None

    def own_grid(self, factor: float) -> tuple[NDArray[np.int64], tuple[int, int]] | None:
        """Return the frames (N, 4) of all whole JPEG tiles of the level nearest to `factor`, and the tile size."""
        return None

    def read(self, x: int, y: int, w: int, h: int, out: tuple[int, int] | None = None) -> Pixels:
        """Return the level-0 frame (x, y, w, h) as uint8 RGB (height, width, 3), resampled to `out` (width, height).

        The coarsest level that is at least as fine as requested is read. Integer factors are averaged, others filtered.

        Raises:
            ReadError: the file is damaged in this frame.
            ValueError: the frame is not inside the image.
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


def over(rgba: NDArray[np.uint8], background: tuple[int, int, int]) -> Pixels:
    """Composite RGBA over a background colour."""
    alpha = rgba[:, :, 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[:, :, :3])
    weight = alpha.astype(np.uint16)
    mixed = rgba[:, :, :3] * weight + np.array(background, np.uint16) * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


def resample(
    pixels: Pixels, extent: tuple[float, float], out: tuple[int, int], at: tuple[float, float] = (0.0, 0.0)
) -> Pixels:
    """Resample the part of an array at `at` with size `extent` (width, height) to the size `out`.

    Integer factors are averaged; others use a Lanczos filter.
    """
    left, top = at
    if extent == (float(out[0]), float(out[1])) and left % 1 == top % 1 == 0:
        return np.ascontiguousarray(pixels[int(top) : int(top) + out[1], int(left) : int(left) + out[0]])
    whole = extent[0] % out[0] == extent[1] % out[1] == 0
    method = Pillow.Resampling.BOX if whole else Pillow.Resampling.LANCZOS
    image = Pillow.fromarray(np.ascontiguousarray(pixels))
    right, bottom = min(left + extent[0], image.width), min(top + extent[1], image.height)
    return np.asarray(image.resize(out, method, box=(left, top, right, bottom)))
