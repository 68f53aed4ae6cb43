"""The files of segmented slides: a pyramid of classes, and GeoJSON of polygons and points."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from mtrain.disk.atomic import replacing
from mtrain.predict.heatmap import TILE, colours
from mtrain.predict.outlines import in_level0, outlines
from mtrain.predict.tile_places import TileLayout
from mtrain.predict.tiling import UNKNOWN


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
                _cut(level),
                shape=level.shape,
                dtype=np.uint8,
                photometric="palette",
                colormap=table.T * 257,
                tile=(TILE, TILE),
                compression="adobe_deflate",
                metadata=None,
                subfiletype=int(factor > 1),
                resolution=(per_cm[0], per_cm[1]),
                resolutionunit="CENTIMETER" if mpp else "NONE",
                software="mtrain",
            )
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


def polygon_features(classes: NDArray[np.uint8], names: Sequence[str], tiles: TileLayout) -> Iterator[dict[str, Any]]:
    for label in range(len(names)):
        for polygon in outlines(classes, label):
            rings = list(in_level0(polygon, tiles.pitch, tiles.origin))
            yield _feature("annotation", {"type": "Polygon", "coordinates": rings}, names, label)


def point_features(points: NDArray[np.float64], names: Sequence[str], tiles: TileLayout) -> Iterator[dict[str, Any]]:
    for x, y, label, score in points.tolist():
        place = (np.array([x, y]) * tiles.pitch - tiles.origin).round(2).tolist()
        feature = _feature("detection", {"type": "Point", "coordinates": place}, names, int(label))
        feature["properties"]["measurements"] = {"score": round(score, 6)}
        yield feature


def _feature(kind: str, geometry: dict[str, Any], names: Sequence[str], label: int) -> dict[str, Any]:
    colour = colours(len(names))[label].tolist()
    properties = {"objectType": kind, "classification": {"name": names[label], "color": colour}}
    return {"type": "Feature", "geometry": geometry, "properties": properties}
