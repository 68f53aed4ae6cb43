"""What every image can do, whatever file it comes from, and how pixels are resampled and laid over a background."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.image.spacing import Spacing

Pixels = NDArray[np.uint8]
WHITE = (255, 255, 255)
BLOCK = 4096  # level-0 pixels; samples follow each other square by square of it, so that readers keep little
CELL = 512  # and in it by squares of this: about a stored tile, which is cut up while the processor's cache has it
BOUNDS = tuple(f"openslide.bounds-{side}" for side in ("x", "y", "width", "height"))


class Image:
    """An image of `width` x `height` level-0 pixels.

    spacing: micrometres per pixel, as the file states them. notes: what of the file is not read.
    properties: what else the file says of itself, by OpenSlide's names.
    in_strips: whether the file stores rows over the whole width, so that what lies side by side is best read together.
    """

    width: int
    height: int
    spacing: Spacing = Spacing()
    notes: tuple[str, ...] = ()
    properties: Mapping[str, str] = MappingProxyType({})
    in_strips: bool = False

    @property
    def mpp(self) -> float | None:
        """Micrometres per pixel along x; None where the file states none, or an absurd one."""
        return self.spacing.x

    def restate(self, mpp: float) -> None:
        """Take the pixels for squares of `mpp` micrometres, whatever the file states."""
        self.spacing = Spacing(mpp, mpp, f"{mpp:g}")

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """The frame (x, y, width, height) that holds pixels at all; the whole image where the file does not say."""
        try:
            x, y, w, h = (int(self.properties[name]) for name in BOUNDS)
        except (KeyError, ValueError):
            return 0, 0, self.width, self.height
        x, y = min(max(x, 0), self.width), min(max(y, 0), self.height)
        w, h = min(w, self.width - x), min(h, self.height - y)
        return (x, y, w, h) if w > 0 and h > 0 else (0, 0, self.width, self.height)

    def downsample(self, w: int, h: int, out: tuple[int, int]) -> float:
        """How much coarser than level 0 the level is that `read` would take for this."""
        return 1.0

    def reduction(self, w: int, h: int, out: tuple[int, int]) -> int:
        """How many stored pixels, along a side, `overview` has decoded as one."""
        return 1

    def overview(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        """What `read` gives, to within what nobody sees, and sooner where nothing coarser than level 0 is stored."""
        return self.read(x, y, w, h, out)

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
    image = Pillow.fromarray(np.ascontiguousarray(pixels))
    right, bottom = min(left + extent[0], image.width), min(top + extent[1], image.height)
    return np.asarray(image.resize(out, method, box=(left, top, right, bottom)))
