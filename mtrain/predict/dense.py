"""Masks and points of a slide: <name>.mask.tif, <name>.masks.geojson and <name>.points.geojson."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dpconvert.image import Image
from dpconvert.runtime.progress import Reporter
from mtrain.data.rows import DenseTargets
from mtrain.errors import UsageError
from mtrain.predict.dense_files import point_features, polygon_features, write_classes, write_features
from mtrain.predict.heatmap import TILE
from mtrain.predict.patch_reading import Patches, read_patches
from mtrain.predict.segmenter import Segmenter
from mtrain.predict.slide import Patch, open_slide, report_skipped
from mtrain.predict.tile_places import TileLayout, layout
from mtrain.predict.tiling import class_map
from mtrain.scoring.peaks import found_points

BATCH = 16


@dataclass(frozen=True)
class Segmented:
    """The result for a slide: its files, the share of each class in what was predicted, the number of points by class,
    and of the patches that were predicted, and skipped because they hold no tissue.

    pitch: number of level-0 pixels in one pixel of the mask, along x and y; the corners of mask and slide coincide.
    """

    file: str
    mask: str | None
    polygons: str | None
    points: str | None
    shares: dict[str, float]
    found: dict[str, int]
    patches: int
    skipped: int
    pitch: tuple[float, float]


@dataclass(frozen=True)
class _Found:
    """What the tiles of a slide give: a map of classes (None without masks), and points of well-separated places.

    points: (n, 4), x and y in pixels of the map, class, score.
    """

    classes: NDArray[np.uint8] | None
    points: NDArray[np.float64]


def segment_slide(
    segmenter: Segmenter, path: Path, patch: Patch, out: Path, report: Reporter, workers: int = 0
) -> Segmented:
    """Find masks and points in the tissue of a slide. `out` is the path of the output files without their endings.

    The map of classes lies in a temporary file beside them while it is made, so that memory does not grow with it.

    Raises:
        ReadError: the slide cannot be read, or its resolution is unknown.
        UsageError: the slide holds no tissue, is smaller than a patch, or the radius of points is unknown.
    """
    task = segmenter.of
    out.parent.mkdir(parents=True, exist_ok=True)
    with open_slide(path, patch, report) as image, tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        tiles = layout(image, patch, segmenter.size, path)
        why = "no tissue" if patch.least is None else f"less than {patch.least:.0%} tissue"
        report_skipped(report, path.name, tiles.skipped, len(tiles.at), why)
        found = _find(segmenter, image, path, patch, tiles, Path(scratch) / "map", report, workers)
        mask = polygons = points = None
        shares: dict[str, float] = {}
        if found.classes is not None:
            mask, polygons = (out.with_name(f"{out.name}.{ending}") for ending in ("mask.tif", "masks.geojson"))
            write_classes(mask, found.classes, len(task.seg), _mpp(image, patch, tiles))
            write_features(polygons, polygon_features(found.classes, task.seg, tiles))
            shares = _shares(found.classes, task.seg)
        if task.points:
            points = out.with_name(f"{out.name}.points.geojson")
            write_features(points, point_features(found.points, task.points, tiles))
        counts = {name: int((found.points[:, 2] == label).sum()) for label, name in enumerate(task.points)}
        del found  # closes the temporary file
    files = [None if file is None else str(file) for file in (mask, polygons, points)]
    return Segmented(str(path), files[0], files[1], files[2], shares, counts, len(tiles.at), tiles.skipped, tiles.pitch)


def _find(
    segmenter: Segmenter,
    image: Image,
    path: Path,
    patch: Patch,
    tiles: TileLayout,
    scratch: Path,
    report: Reporter,
    workers: int,
) -> _Found:
    """Run the decoder on every tile. The map of classes is a file at `scratch`."""
    task, size = segmenter.of, segmenter.size
    radius = _radius(task, patch, image, path) * size / patch.side if task.points else 0.0
    points: list[NDArray[np.float64]] = []
    classes = np.memmap(scratch, np.uint8, "w+", shape=tiles.shape) if task.seg else None
    with report.bar(path.name, len(tiles.at), unit="patches") as advance:
        opener = partial(open_slide, path, patch, Reporter(quiet=True))
        patches = read_patches(opener, tiles.boxes(), patch.side, batch=BATCH, workers=workers)
        logits = _tiles(segmenter, patches, tiles, radius, points, advance)
        if classes is not None:
            class_map(logits, len(task.seg), size, classes)
        else:
            deque(logits, maxlen=0)  # for the points only
    return _Found(classes, separated(np.concatenate([np.zeros((0, 4)), *points]), radius))


def _mpp(image: Image, patch: Patch, tiles: TileLayout) -> tuple[float, float] | None:
    """Micrometres per pixel of the map along x and y; None if the slide states none and none was given."""
    axes = image.spacing.axes or (None if patch.given_mpp is None else (patch.given_mpp, patch.given_mpp))
    return None if axes is None else (axes[0] * tiles.pitch[0], axes[1] * tiles.pitch[1])


def _tiles(
    segmenter: Segmenter,
    patches: Iterable[tuple[slice, Patches]],
    tiles: TileLayout,
    radius: float,
    points: list[NDArray[np.float64]],
    advance: Any,
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Each tile's place and logits of masks; what is found of points is added to `points`."""
    size = segmenter.size
    centres = cKDTree(tiles.at + size / 2)
    for block, some in patches:
        seg, discs = segmenter.logits(some)
        for number, at in enumerate(tiles.at[block]):
            if discs is not None:
                found = found_points(discs[number], size, radius)
                rows = [
                    np.column_stack([of.places + at, np.full(len(of.scores), label), of.scores])
                    for label, of in enumerate(found)
                ]
                points.append(most_central(np.concatenate(rows), at + size / 2, centres, radius))
            yield int(at[0]), int(at[1]), np.zeros(0, np.float32) if seg is None else seg[number].numpy()
        advance(len(some))


def most_central(
    found: NDArray[np.float64], centre: NDArray[np.float64], centres: cKDTree, radius: float
) -> NDArray[np.float64]:
    """The points (n, 4), x, y, class and score, of the tile around `centre` that no other tile sees more centrally.

    A point that two tiles place on either side of their border is kept by both, to be merged by `separated`.
    """
    if not len(found):
        return found
    nearest, _ = centres.query(found[:, :2], p=np.inf)
    kept: NDArray[np.float64] = found[np.abs(found[:, :2] - centre).max(axis=1) <= nearest + radius]
    return kept


def separated(points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """The surest points (n, 4), x, y, class and score, of each class that are more than `radius` apart."""
    kept = np.zeros(len(points), np.bool_)
    for label in np.unique(points[:, 2]):
        of = np.flatnonzero(points[:, 2] == label)
        tree, free = cKDTree(points[of, :2]), np.ones(len(of), np.bool_)
        for number in np.argsort(-points[of, 3], kind="stable"):
            if free[number]:
                kept[of[number]] = True
                free[tree.query_ball_point(points[of[number], :2], radius)] = False
    return points[kept]


def _shares(classes: NDArray[np.uint8], names: Sequence[str]) -> dict[str, float]:
    counts = np.zeros(256, np.int64)
    for top, bottom in pairwise([*range(0, len(classes), TILE), len(classes)]):
        counts += np.bincount(classes[top:bottom].ravel(), minlength=256)
    known = counts[: len(names)]
    return {name: round(float(count / known.sum()), 6) for name, count in zip(names, known, strict=True)}


def _radius(of: DenseTargets, patch: Patch, image: Image, path: Path) -> float:
    """The radius of points in pixels of a patch."""
    if of.radius_px is not None:
        return of.radius_px
    mpp = patch.mpp or image.mpp or patch.given_mpp
    if mpp is None or of.radius_um is None:
        raise UsageError("the radius of points in pixels is unknown", where=path, remedy="give --mpp UM")
    return of.radius_um / mpp


def lines(result: Segmented) -> str:
    """What to say of a slide."""
    parts = [f"{share:.1%} {name}" for name, share in result.shares.items()]
    parts += [f"{count} {name}" for name, count in result.found.items()]
    files = [file for file in (result.mask, result.polygons, result.points) if file]
    return f"{result.file}: {', '.join(parts)} -> {', '.join(files)}"
