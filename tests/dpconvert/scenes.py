"""Toy images, annotations and manifests for the tests of the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely

from dpconvert.annotations import Annotation, Annotations, LabelMask
from dpconvert.image import Flat, Image, TissueMask, tissue
from dpconvert.manifest.model import Manifest
from dpconvert.plan import patches
from dpconvert.source.record import Record, SourceImage


@dataclass(frozen=True)
class Scene:
    """An image opened for labelling."""

    source_image: SourceImage
    image: Image
    annotations: Annotations | LabelMask
    remarks: Counter[str] = field(default_factory=Counter)

    @property
    def tissue(self) -> TissueMask:
        return tissue(self.image)

    def count(self, patches: int, background: int) -> None:
        pass


def manifest(rule: Mapping[str, Any] | None = None, **facts: Any) -> Manifest:
    """A manifest of two classes "no" and "yes"."""
    given: dict[str, Any] = {"name": "toy", "task": "Toy", "path": "toy.toml", "classes": ["no", "yes"]} | facts
    return Manifest.model_validate(given if rule is None else given | {"rule": rule})


def scene(
    width: int, height: int, items: Sequence[tuple[Any, str]] | LabelMask = (), *, label: str | None = None
) -> Scene:
    """A black image with (geometry, label) annotations; a pair of numbers is a point."""
    found = items if isinstance(items, LabelMask) else annotations(items)
    image = Flat(np.zeros((height, width, 3), np.uint8))
    return Scene(SourceImage("p", ("p.png",), "g", label=label), image, found)


def annotations(items: Sequence[tuple[Any, str]]) -> Annotations:
    shapes = [(shapely.Point(at) if isinstance(at, tuple) else at, label) for at, label in items]
    return Annotations([Annotation(shape, label, str(i)) for i, (shape, label) in enumerate(shapes)])


def records(rule: Mapping[str, Any], at: Scene, **facts: Any) -> list[Record]:
    return list(patches.records(manifest(rule, **facts), at))


def labels(found: Sequence[Record]) -> dict[tuple[int, int], str]:
    """Corner of each patch -> its label."""
    return {(r.box.x, r.box.y): r.label for r in found if r.box is not None}


def counts(found: Sequence[Record]) -> dict[str, int]:
    return dict(Counter(r.label for r in found))
