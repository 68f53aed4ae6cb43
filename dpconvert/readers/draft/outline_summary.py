"""What is drawn on the images of a source: labels, sizes of objects, and files that cannot be read."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field

from dpconvert.annotations import Annotations
from dpconvert.errors import ReadError
from dpconvert.readers.layouts import slides as layout
from dpconvert.source import unused
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

CELL = 1024  # pixels: what is larger is no object to be cut out
MPP = 0.5


@dataclass
class OutlineSummary:
    """What is drawn on all images: labels, sides of the objects' boxes, and what could not be read.

    mpp: of each image that states it. bare: those without annotations.
    """

    labels: Counter[str] = field(default_factory=Counter)
    sides: list[float] = field(default_factory=list)
    points: int = 0
    mpp: list[float] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    number: int = 0

    @property
    def small(self) -> bool:
        return bool(self.sides) and statistics.median(self.sides) <= CELL

    @property
    def scaled(self) -> bool:
        """Whether all images can be read at MPP."""
        return len(self.mpp) == self.number > 0 and max(self.mpp) <= MPP * 1.05

    def add(self, source: Source, source_image: SourceImage) -> None:
        """Count what is drawn on an image, read by the shape slides."""
        self.number += 1
        try:
            image = source.open_image(source_image.files, source_image.columns)
            self.mpp += [image.mpp] if image.mpp else []
            if not source_image.annotations:
                self.bare.append(source_image.files[0])
                return
            if unused.READ.search(unused.suffix(source_image.annotations[0])):
                self.masks.append(source_image.annotations[0])
                return
            found = layout.read_annotations(source, source_image, image)
        except ReadError as error:
            self.faults.append(source.reason(error))
            return
        assert isinstance(found, Annotations)
        for item in found.items:
            self.labels[item.label] += 1
            left, top, right, bottom = item.geometry.bounds
            self.sides.append(max(right - left, bottom - top))
            self.points += item.geometry.area == 0
