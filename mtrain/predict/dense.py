"""Masks and points of a slide: <name>.mask.tif, <name>.masks.geojson and <name>.points.geojson."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dpconvert.image import Image, scales, tissue
from dpconvert.runtime.progress import Reporter
from mtrain.atomic import replacing
from mtrain.data.task import Dense
from mtrain.errors import UsageError
from mtrain.predict.heatmap import TILE, colours
from mtrain.predict.outlines import in_level0, outlines
from mtrain.predict.segmenter import Segmenter
from mtrain.predict.slide import Patch, open_slide
from mtrain.predict.tiling import UNKNOWN, class_map, starts
from mtrain.scoring.peaks import found_points

BATCH = 16


@dataclass(frozen=True)
class Segmented:
    """The result for a slide: its files, the share of each class in the tissue, and the number of points by class."""

    file: str
    mask: str | None
    polygons: str | None
    points: str | None
    shares: dict[str, float]
    found: dict[str, int]


@dataclass(frozen=True)
class Layout:
    """The tiles of a slide. at: (N, 2), x and y in pixels of the map, row by row. pitch: level-0 pixels in one of the
    map, by axis. corner: of the map at level 0. shape: height and width of the map. frame: of a tile at level 0.
    """

    at: NDArray[np.int64]
    pitch: tuple[float, float]
    corner: tuple[int, int]
    shape: tuple[int, int]
    frame: tuple[int, int]

    def boxes(self) -> NDArray[np.int64]:
        """The tiles as x, y, width, height in level-0 pixels: (N, 4)."""
        corners = np.rint(self.at * self.pitch).astype(np.int64) + self.corner
        return np.concatenate([corners, np.broadcast_to(self.frame, corners.shape)], axis=1)


def layout(image: Image, patch: Patch, size: int, path: Path) -> Layout:
    """Tiles of `size` pixels with enough tissue, which overlap by half.

    Raises:
        UsageError: the slide is smaller than a tile, or holds no tissue.
    """
    left, top, width, height = image.bounds
    scale = scales(image, patch.mpp, patch.told, str(path))
    frame_x, frame_y = (max(1, round(patch.side * axis)) for axis in scale)
    pitch = frame_x / size, frame_y / size
    across, down = int(width / pitch[0] + 1e-6), int(height / pitch[1] + 1e-6)
    if min(across, down) < size:
        raise UsageError("this slide is smaller than a patch", where=path)
    at = np.array([(x, y) for y in starts(down, size) for x in starts(across, size)], np.int64)
    every = Layout(at, pitch, (left, top), (down, across), (frame_x, frame_y))
    enough = tissue(image, rule=patch.tissue_rule, mpp=patch.told).share(every.boxes()) >= patch.tissue
    if not enough.any():
        raise UsageError("no patch of this slide holds enough tissue", where=path)
    return Layout(at[enough], pitch, (left, top), (down, across), (frame_x, frame_y))


def segment_slide(segmenter: Segmenter, path: Path, patch: Patch, out: Path, report: Reporter) -> Segmented:
    """Find masks and points in the tissue of a slide. `out` is the path of the output files without their endings.

    The map of classes lies in a temporary file beside them while it is made, so that memory does not grow with it.

    Raises:
        ReadError: the slide cannot be read, or its resolution is unknown.
        UsageError: the slide holds no tissue, is smaller than a patch, or the radius of points is unknown.
    """
    of, size = segmenter.of, segmenter.size
    out.parent.mkdir(parents=True, exist_ok=True)
    with open_slide(path, patch, report) as image, tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        lying = layout(image, patch, size, path)
        radius = _radius(of, patch, image, path) * size / patch.side if of.points else 0.0
        points: list[NDArray[np.float64]] = []
        axes = image.spacing.axes or (None if patch.told is None else (patch.told, patch.told))
        mpp = None if axes is None else (axes[0] * lying.pitch[0], axes[1] * lying.pitch[1])
        with report.bar(path.name, len(lying.at), unit="patches") as advance:
            tiles = _tiles(segmenter, image, lying, patch.side, radius, points, advance)
            if of.seg:
                classes = np.memmap(Path(scratch) / "map", np.uint8, "w+", shape=lying.shape)
                class_map(tiles, len(of.seg), size, classes)
            else:
                for _ in tiles:
                    pass
        mask = polygons = found = None
        shares: dict[str, float] = {}
        numbers: dict[str, int] = {}
        if of.seg:
            mask, polygons = (out.with_name(f"{out.name}.{ending}") for ending in ("mask.tif", "masks.geojson"))
            write_classes(mask, classes, len(of.seg), mpp)
            write_features(polygons, _polygons(classes, of.seg, lying))
            shares = _shares(classes, of.seg)
            del classes
        if of.points:
            found = out.with_name(f"{out.name}.points.geojson")
            merged = apart(np.concatenate([np.zeros((0, 4)), *points]), radius)
            write_features(found, _points(merged, of.points, lying))
            numbers = {name: int((merged[:, 2] == label).sum()) for label, name in enumerate(of.points)}
    names = [None if file is None else str(file) for file in (mask, polygons, found)]
    return Segmented(str(path), names[0], names[1], names[2], shares, numbers)


def _tiles(
    segmenter: Segmenter, image: Image, lying: Layout, side: int, radius: float, points: list[NDArray[np.float64]],
    advance: Any,
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:  # fmt: skip
    """Each tile's place and logits of masks; what is found of points is added to `points`."""
    size, boxes = segmenter.size, lying.boxes()
    centres = cKDTree(lying.at + size / 2)
    for start in range(0, len(boxes), BATCH):
        some = boxes[start : start + BATCH].tolist()
        seg, discs = segmenter.logits([image.read(x, y, w, h, (side, side)) for x, y, w, h in some])
        for number in range(len(some)):
            at = lying.at[start + number]
            if discs is not None:
                found = found_points(discs[number], size, radius)
                rows = [np.column_stack([of.places + at, np.full(len(of.scores), label), of.scores])
                        for label, of in enumerate(found)]  # fmt: skip
                points.append(own(np.concatenate(rows), at + size / 2, centres, radius))
            yield int(at[0]), int(at[1]), np.zeros(0, np.float32) if seg is None else seg[number].numpy()
        advance(len(some))


def own(
    found: NDArray[np.float64], centre: NDArray[np.float64], centres: cKDTree, radius: float
) -> NDArray[np.float64]:
    """The points (n, 4), x, y, class and score, of the tile around `centre` that no other tile sees more centrally.

    A point that two tiles place on either side of their border is kept by both, to be merged by `apart`.
    """
    if not len(found):
        return found
    nearest, _ = centres.query(found[:, :2], p=np.inf)
    kept: NDArray[np.float64] = found[np.abs(found[:, :2] - centre).max(axis=1) <= nearest + radius]
    return kept


def apart(points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
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


def write_classes(path: Path, classes: NDArray[np.uint8], number: int, mpp: tuple[float, float] | None) -> None:
    """Write a map of classes (height, width) as a pyramid of palette colours, whose values are the classes' numbers;
    255, outside the tissue, is white. mpp: micrometres per pixel along x and y, None if unknown.
    """
    table = np.full((256, 3), 255, np.uint16)
    table[:number] = colours(number)
    factor = 1
    with replacing(path) as partial, tifffile.TiffWriter(partial, bigtiff=classes.nbytes > 1 << 31) as tiff:
        while True:
            level = classes[::factor, ::factor]
            per_cm = [1e4 / (axis * factor) for axis in mpp or (1e4, 1e4)]
            tiff.write(
                _cut(level), shape=level.shape, dtype=np.uint8, photometric="palette", colormap=table.T * 257,
                tile=(TILE, TILE), compression="adobe_deflate", metadata=None, subfiletype=int(factor > 1),
                resolution=(per_cm[0], per_cm[1]), resolutionunit="CENTIMETER" if mpp else "NONE", software="mtrain",
            )  # fmt: skip
            if max(level.shape) <= TILE:
                return
            factor *= 2


def _cut(level: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """The tiles of a level, row by row; those at its ends are filled up."""
    for y in range(0, level.shape[0], TILE):
        for x in range(0, level.shape[1], TILE):
            tile = np.full((TILE, TILE), UNKNOWN, np.uint8)
            part = level[y : y + TILE, x : x + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def write_features(path: Path, features: Iterator[dict[str, Any]]) -> None:
    """Write these features as a GeoJSON collection, one at a time."""
    with replacing(path) as partial, partial.open("w", encoding="ascii") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        for number, feature in enumerate(features):
            file.write(",\n" * bool(number) + json.dumps(feature))
        file.write("\n]}\n")


def _polygons(classes: NDArray[np.uint8], names: Sequence[str], lying: Layout) -> Iterator[dict[str, Any]]:
    for label in range(len(names)):
        for polygon in outlines(classes, label):
            rings = list(in_level0(polygon, lying.corner, lying.pitch))
            yield _feature("annotation", {"type": "Polygon", "coordinates": rings}, names, label)


def _points(points: NDArray[np.float64], names: Sequence[str], lying: Layout) -> Iterator[dict[str, Any]]:
    for x, y, label, score in points.tolist():
        place = (np.array([x, y]) * lying.pitch + lying.corner).round(2).tolist()
        feature = _feature("detection", {"type": "Point", "coordinates": place}, names, int(label))
        feature["properties"]["measurements"] = {"score": round(score, 6)}
        yield feature


def _feature(kind: str, geometry: dict[str, Any], names: Sequence[str], label: int) -> dict[str, Any]:
    colour = colours(len(names))[label].tolist()
    properties = {"objectType": kind, "classification": {"name": names[label], "color": colour}}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _shares(classes: NDArray[np.uint8], names: Sequence[str]) -> dict[str, float]:
    counts = np.zeros(256, np.int64)
    for top, bottom in pairwise([*range(0, len(classes), TILE), len(classes)]):
        counts += np.bincount(classes[top:bottom].ravel(), minlength=256)
    known = counts[: len(names)]
    return {name: round(float(count / known.sum()), 6) for name, count in zip(names, known, strict=True)}


def _radius(of: Dense, patch: Patch, image: Image, path: Path) -> float:
    """The radius of points in pixels of a patch."""
    if of.radius_px is not None:
        return of.radius_px
    mpp = patch.mpp or image.mpp or patch.told
    if mpp is None or of.radius_um is None:
        raise UsageError("the radius of points in pixels is unknown", where=path, remedy="give --mpp UM")
    return of.radius_um / mpp


def lines(result: Segmented) -> str:
    """What to say of a slide."""
    parts = [f"{share:.1%} {name}" for name, share in result.shares.items()]
    parts += [f"{count} {name}" for name, count in result.found.items()]
    files = [file for file in (result.mask, result.polygons, result.points) if file]
    return f"{result.file}: {', '.join(parts)} -> {', '.join(files)}"


def segment(
    segmenter: Segmenter, slides: dict[Path, str], patch: Patch, out: Path, report: Reporter
) -> list[dict[str, Any]]:
    """Find masks and points in each slide; a dictionary for each (the fields of `Segmented`, and `line`)."""
    found = [segment_slide(segmenter, slide, patch, out / name, report) for slide, name in slides.items()]
    return [asdict(one) | {"line": lines(one)} for one in found]
