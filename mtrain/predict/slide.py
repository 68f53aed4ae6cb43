"""A slide in, a map over it and its patches out: <name>.heatmap.tif and <name>.geojson."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.image import Image, open_image, scales, tissue
from dpconvert.image.rgb import Range
from dpconvert.manifest.model import TissueRule
from dpconvert.plan.patches import grid
from dpconvert.runtime.progress import Reporter
from mtrain.errors import UsageError
from mtrain.model.heads import About
from mtrain.predict.classifier import BATCH, Classifier
from mtrain.predict.geojson import write_geojson
from mtrain.predict.heatmap import write_heatmap

TISSUE = 0.10  # least share of tissue in a patch that is looked at, where the training states none


@dataclass(frozen=True)
class Patch:
    """What a picture of the task is: `side` pixels of `mpp` micrometres; None: of the slide's own pixels.

    told: micrometres per pixel of slides that state none. override: of all slides, whatever they state. tissue_rule,
    tissue, range: as the training's patches were told from background, and its samples became pixels.
    """

    side: int
    mpp: float | None
    told: float | None = None
    override: float | None = None
    tissue_rule: TissueRule = "glass"
    tissue: float = TISSUE
    range: Range | None = None

    @classmethod
    def of(cls, about: About, side: int | None, told: float | None, override: float | None = None) -> Patch:
        """As the task's training samples were, or with another side.

        Raises:
            UsageError: the samples do not say.
        """
        if not (side or about.side):
            raise UsageError(f"{about.task} does not say how large its pictures are", remedy="give --patch PX")
        least = TISSUE if about.tissue is None else about.tissue
        return cls(side or about.side, about.mpp, told, override, about.tissue_rule, least, about.range)


@dataclass(frozen=True)
class Answered:
    """What was made of a slide: files, patches looked at, and of each class how many."""

    file: str
    heatmap: str
    geojson: str
    patches: int
    classes: dict[str, int]


def predict_slide(
    classifier: Classifier, path: Path, patch: Patch, out: Path, report: Reporter, shown: int | None
) -> Answered:
    """Answer every patch of the slide that holds tissue; `out` is the files' path without their endings.

    Raises:
        ReadError: it cannot be read, or nobody knows its resolution.
        UsageError: there is no tissue.
    """
    with open_image([path], scale=patch.range) as image:
        if patch.override is not None:
            image.restate(patch.override)
        elif patch.told is not None and image.mpp is not None:
            used = f"--mpp {patch.told:g} is not used: the file states {image.mpp:.4g} um per pixel"
            report.note(f"{path.name}: {used}; --mpp-override replaces that")
        boxes = patches_of(image, patch, path)
        if not len(boxes):
            raise UsageError("no tissue here, or less than a patch", where=path)
        answers = np.zeros((len(boxes), len(classifier.classes)), np.float32)
        with report.bar(path.name, len(boxes), unit="patches") as advance:
            for where, pictures in _read(image, boxes, patch.side):
                answers[where] = classifier.answer(pictures)
                advance(len(pictures))
        heatmap, geojson = out.with_name(f"{out.name}.heatmap.tif"), out.with_name(f"{out.name}.geojson")
        write_heatmap(heatmap, image, boxes, answers, shown, _axes(image, patch.told))
    write_geojson(geojson, boxes, answers, classifier.classes)
    counts = Counter(answers.argmax(axis=1).tolist())
    of_class = {name: counts[label] for label, name in enumerate(classifier.classes)}
    return Answered(str(path), str(heatmap), str(geojson), len(boxes), of_class)


def patches_of(image: Image, patch: Patch, path: Path) -> NDArray[np.int64]:
    """Frames with tissue, side by side from the bounds' corner: (N, 4) of x, y, width, height in level-0 pixels."""
    scale = scales(image, patch.mpp, patch.told, str(path))
    left, top, width, height = image.bounds
    boxes = grid(width, height, patch.side, scale=scale) + np.array([left, top, 0, 0])
    held = tissue(image, rule=patch.tissue_rule, mpp=patch.told).share(boxes) >= patch.tissue
    kept: NDArray[np.int64] = boxes[held]
    return kept


def _axes(image: Image, told: float | None) -> tuple[float, float] | None:
    return image.spacing.axes or (None if told is None else (told, told))


def _read(image: Image, boxes: NDArray[np.int64], side: int) -> Iterator[tuple[slice, list[NDArray[np.uint8]]]]:
    for start in range(0, len(boxes), BATCH):
        some = boxes[start : start + BATCH].tolist()
        yield slice(start, start + len(some)), [image.read(x, y, w, h, (side, side)) for x, y, w, h in some]
