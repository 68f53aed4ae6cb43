"""Predicts a slide: a heat map and its patches, <name>.heatmap.tif, <name>.heatmap.png and <name>.geojson."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.image import Image, open_image, scales, tissue
from dpconvert.image.rgb import Range
from dpconvert.manifest.rules import TissueRule
from dpconvert.plan.grid import grid
from dpconvert.plan.placement import ENLARGED
from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.errors import UsageError
from mtrain.model.heads import About
from mtrain.predict.classifier import BATCH, Classifier
from mtrain.predict.feature_file import write_features
from mtrain.predict.geojson import write_geojson
from mtrain.predict.heatmap import write_heatmap, write_picture
from mtrain.predict.patch_reading import read_patches

GIVE_MPP = "give it with --mpp"
TISSUE = 0.10  # minimum share of tissue in a patch, where the training data state none


@dataclass(frozen=True)
class Patch:
    """The patches of a task: `side` pixels at `mpp` micrometres per pixel; None: at the resolution of the slide.

    given_mpp: micrometres per pixel for slides whose files do not state it. override: the same for all slides, whatever
    they state. mpps: the finest and the coarsest of the training images, where they differ.
    tissue_rule, tissue, range: how the training data separated tissue from background, and converted values to RGB.
    least: minimum share of tissue that the user gives instead; 0: every patch.
    """

    side: int
    mpp: float | None
    given_mpp: float | None = None
    override: float | None = None
    tissue_rule: TissueRule = "glass"
    tissue: float = TISSUE
    range: Range | None = None
    least: float | None = None
    mpps: tuple[float, float] | None = None

    @property
    def share(self) -> float:
        """Minimum share of tissue in a patch with one class."""
        return self.tissue if self.least is None else self.least

    @classmethod
    def of(
        cls,
        about: About,
        side: int | None,
        given_mpp: float | None,
        override: float | None = None,
        least: float | None = None,
    ) -> Patch:
        """The patches that the task was trained on, optionally with another side, or another share of tissue.

        Raises:
            UsageError: the task does not state its side, and none is given.
        """
        if not (side or about.side):
            raise UsageError(f"{about.task} does not state the size of its images", remedy="give --patch PX")
        trained = TISSUE if about.tissue is None else about.tissue
        return cls(
            side or about.side,
            about.mpp,
            given_mpp,
            override,
            about.tissue_rule,
            trained,
            about.range,
            least,
            about.mpps,
        )


@dataclass(frozen=True)
class Answered:
    """The result for a slide: its files, the number of patches, of those skipped for too little tissue, and of the
    patches of each class.
    """

    file: str
    heatmap: str
    image: str
    geojson: str
    features: str | None
    patches: int
    skipped: int
    classes: dict[str, int]


def predict_slide(
    classifier: Classifier,
    path: Path,
    patch: Patch,
    out: Path,
    report: Reporter,
    shown: int | None,
    *,
    features: bool = False,
    workers: int = 0,
) -> Answered:
    """Predict every patch of the slide that holds tissue. `out` is the path of the output files without their endings.

    features: also write those of the patches, to <out>.h5. workers: processes that read patches; 0: this one.

    Raises:
        ReadError: the slide cannot be read, or its resolution is unknown.
        UsageError: the slide holds no tissue, or is smaller than a patch.
    """
    with open_slide(path, patch, report) as image:
        boxes, skipped = patches_of(image, patch, path)
        if not len(boxes):
            raise no_tissue(path) if skipped else UsageError("this slide is smaller than a patch", where=path)
        report_skipped(report, path.name, skipped, len(boxes), f"less than {patch.share:.0%} tissue")
        answers = np.zeros((len(boxes), len(classifier.classes)), np.float32)
        found = np.zeros((len(boxes), classifier.network.num_features if features else 0), np.float32)
        with report.bar(path.name, len(boxes), unit="patches") as advance:
            opener = partial(open_slide, path, patch, Reporter(quiet=True))
            for rows, patches in read_patches(opener, boxes, patch.side, batch=BATCH, workers=workers):
                if features:
                    found[rows] = classifier.features(patches)
                    answers[rows] = classifier.probabilities(found[rows])
                else:
                    answers[rows] = classifier.answer(patches)
                advance(len(patches))
        endings = ("heatmap.tif", "heatmap.png", "geojson")
        heatmap, picture, geojson = (out.with_name(f"{out.name}.{ending}") for ending in endings)
        table = out.with_name(f"{out.name}.h5") if features else None
        if table is not None:
            resolution = patch.given_mpp if image.mpp is None else image.mpp
            write_features(table, found, boxes, image, patch.side, resolution, out.name)
        origin = image.bounds[:2]
        pixels = write_heatmap(heatmap, image, boxes, answers, shown, _axes(image, patch.given_mpp))
    write_picture(picture, pixels, path.name, classifier.classes, shown)
    write_geojson(geojson, boxes, answers, classifier.classes, origin)
    counts = Counter(answers.argmax(axis=1).tolist())
    by_class = {name: counts[label] for label, name in enumerate(classifier.classes)}
    return Answered(
        str(path),
        str(heatmap),
        str(picture),
        str(geojson),
        str(table) if table else None,
        len(boxes),
        skipped,
        by_class,
    )


@contextmanager
def open_slide(path: Path, patch: Patch, report: Reporter) -> Iterator[Image]:
    """Open a slide at the resolution that `patch` overrides; what is not read or used of it is noted, and a resolution
    coarser than that of the training.

    Raises:
        ReadError: the slide cannot be read.
    """
    image: Image
    with open_image([path], scale=patch.range) as image:
        if patch.override is not None:
            image.restate(patch.override)
        elif patch.given_mpp is not None and image.mpp is not None:
            used = f"--mpp {patch.given_mpp:g} is not used: the file states {image.mpp:.4g} um per pixel"
            report.note(f"{path.name}: {used}; use --mpp-override to replace it")
        for note in (*image.notes, *_on_resolution(image, patch)):
            report.note(f"{path.name}: {note}")
        yield image


def _on_resolution(image: Image, patch: Patch) -> Iterator[str]:
    """What to say of training images of several resolutions, and of a slide that is coarser than all of them."""
    axes = _axes(image, patch.given_mpp)
    if patch.mpp is None or axes is None:
        return
    finest, coarsest = patch.mpps or (patch.mpp, patch.mpp)
    if patch.mpps is not None:
        yield (
            f"the training images have {finest:.4g} to {coarsest:.4g} um per pixel; the patches of this slide, which "
            f"has {max(axes):.4g}, are read at {patch.mpp:.4g}"
        )
    if max(axes) > ENLARGED * coarsest:
        yield (
            f"its {max(axes):.4g} um per pixel are coarser than the {coarsest:.4g} of the training images: its "
            "patches are enlarged, and the network has seen none like them"
        )


def patches_of(image: Image, patch: Patch, path: Path) -> tuple[NDArray[np.int64], int]:
    """The patches with tissue on a grid from the corner of the bounds: (N, 4), x, y, width, height at level 0; and the
    number of those with too little tissue.

    Where a patch does not fit any more at the right or the bottom, another one ends at the edge.
    """
    scale = scales(image, patch.mpp, patch.given_mpp, str(path), GIVE_MPP)
    left, top, width, height = image.bounds
    boxes = _to_the_edges(grid(width, height, patch.side, scale=scale), width, height) + np.array([left, top, 0, 0])
    enough = enough_tissue(image, patch, boxes)
    kept: NDArray[np.int64] = boxes[enough]
    return kept, len(boxes) - len(kept)


def enough_tissue(image: Image, patch: Patch, boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which boxes (N, 4), x, y, width, height at level 0, hold the required share of tissue."""
    if patch.share <= 0:
        return np.ones(len(boxes), np.bool_)
    enough: NDArray[np.bool_] = tissue(image, rule=patch.tissue_rule, mpp=patch.given_mpp).share(boxes) >= patch.share
    return enough


def no_tissue(path: Path) -> UsageError:
    """The error for a slide of which nothing would be predicted."""
    return UsageError(
        "no patch of this slide holds enough tissue", where=path, remedy="--tissue 0 predicts every patch"
    )


def report_skipped(report: Reporter, name: str, skipped: int, kept: int, why: str) -> None:
    """Note the patches of a slide that are not predicted."""
    if skipped:
        report.note(
            f"{name}: {skipped} of {counted(skipped + kept, 'patch')} not predicted: {why} (--tissue 0 "
            "predicts every patch)"
        )


def _to_the_edges(boxes: NDArray[np.int64], width: int, height: int) -> NDArray[np.int64]:
    """The boxes of a grid over `width` x `height`, with a last column and row that end at its edges, row by row."""
    if not len(boxes):
        return boxes
    side_x, side_y = boxes[0, 2:]
    xs, ys = (
        np.unique(np.append(boxes[:, axis], length - side))
        for axis, length, side in ((0, width, side_x), (1, height, side_y))
    )
    corners = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    return np.concatenate([corners, np.broadcast_to(boxes[0, 2:], corners.shape)], axis=1).astype(np.int64)


def _axes(image: Image, given_mpp: float | None) -> tuple[float, float] | None:
    return image.spacing.axes or (None if given_mpp is None else (given_mpp, given_mpp))
