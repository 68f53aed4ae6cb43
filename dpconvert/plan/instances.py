"""Instances of one image: which pixels of a stored sample belong to which object, as runs of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from dpconvert.annotations import raster
from dpconvert.annotations.geometry import Geometry
from dpconvert.annotations.raster import Frame, Size
from dpconvert.pixel_runs import Numbers, Runs, runs_of


class Instances:
    """Areas of objects and the index of their class, from the bottom up: of overlapping areas, the later one is seen.

    apart: the areas do not overlap.
    """

    def __init__(self, areas: Sequence[tuple[Geometry, int]], *, apart: bool = False) -> None:
        self.classes = [label for _, label in areas]
        self.visible = [area for area, _ in areas] if apart else _visible([area for area, _ in areas])
        self.tree = shapely.STRtree(self.visible)

    def runs(self, frame: Frame, size: Size) -> list[Runs]:
        """Return runs and class of each object that has pixels in a sample, in the order of their first pixels."""
        numbers = self.numbers(frame, size)
        found = [(runs_of(numbers == number), number) for number in np.unique(numbers[numbers > 0]).tolist()]
        return [[*runs, self.classes[number - 1]] for runs, number in sorted(found)]

    def numbers(self, frame: Frame, size: Size) -> Numbers:
        """Return the object of each pixel: of those that cover at least half of it together, the one that covers most;
        of equal parts, that of the later object.
        """
        x, y, width, height = frame
        box = shapely.box(x, y, x + width, y + height)
        covered, most = np.zeros((size[1], size[0])), np.zeros((size[1], size[0]))
        numbers = np.zeros((size[1], size[0]), np.int32)
        for index in sorted(self.tree.query(box, predicate="intersects").tolist()):
            share = raster.shares(self.visible[index], frame, size).round(raster.DECIMALS)
            covered += share
            wins = (share > 0) & (share >= most)
            numbers[wins], most[wins] = index + 1, share[wins]
        numbers[covered.round(raster.DECIMALS) < 0.5] = 0
        return numbers


def _visible(areas: Sequence[Geometry]) -> list[Geometry]:
    """Return what no later area covers of each area."""
    tree = shapely.STRtree(areas)
    visible = []
    for number, area in enumerate(areas):
        above = [areas[other] for other in tree.query(area, predicate="intersects").tolist() if other > number]
        visible.append(shapely.difference(area, shapely.union_all(above)) if above else area)
    return visible
