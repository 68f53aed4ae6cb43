"""Show an image upright that its file stores rotated or mirrored."""

from __future__ import annotations

from dpconvert.image.base import Image, Pixels
from dpconvert.image.rgb import FLIPPED, TURNED, upright
from dpconvert.image.spacing import Spacing


def upright_spacing(spacing: Spacing, orientation: int) -> Spacing:
    """Return the spacing of an image shown upright; orientations 5 to 8 swap the axes."""
    return Spacing(spacing.y, spacing.x, spacing.stated) if orientation in TURNED else spacing


class Turned(Image):
    """An image shown upright, by the orientation (2 to 8) that its file states."""

    def __init__(self, stored: Image, orientation: int) -> None:
        self.stored, self.orientation = stored, orientation
        self.spacing, self.notes = upright_spacing(stored.spacing, orientation), stored.notes
        self.properties = stored.properties
        self.width, self.height = self._exchanged(stored.width, stored.height)
        self.in_strips = stored.in_strips and orientation not in TURNED

    def downsample(self, w: int, h: int, out: tuple[int, int]) -> float:
        return self.stored.downsample(*self._exchanged(w, h), self._exchanged(*out))

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Pixels:
        down, across = FLIPPED.get(self.orientation, (1, 1))
        left, top = x if across > 0 else self.width - x - w, y if down > 0 else self.height - y - h
        corner, size = self._exchanged(left, top), self._exchanged(w, h)
        return upright(self.stored.read(*corner, *size, out=self._exchanged(*out)), self.orientation)

    def _exchanged(self, x: int, y: int) -> tuple[int, int]:
        return (y, x) if self.orientation in TURNED else (x, y)

    def close(self) -> None:
        self.stored.close()
