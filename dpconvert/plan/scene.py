"""An image as the rules of the plan see it."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from dpconvert.annotations import Annotations, LabelMask
from dpconvert.image import Image, TissueMask
from dpconvert.source.record import SourceImage


class Scene(Protocol):
    """An image opened for labelling."""

    @property
    def source_image(self) -> SourceImage: ...
    @property
    def image(self) -> Image: ...
    @property
    def remarks(self) -> Counter[str]: ...
    @property
    def annotations(self) -> Annotations | LabelMask: ...
    @property
    def tissue(self) -> TissueMask: ...
    def count(self, patches: int, background: int) -> None: ...
