"""Writes patches and their probabilities as GeoJSON for QuPath (File, Import objects): detections, level-0 pixels.

QuPath shows a slide from the corner of its bounds on, so its coordinates start there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtrain.disk.atomic import replacing
from mtrain.predict.heatmap import colours


def write_geojson(
    path: Path, boxes: NDArray[np.int64], answers: NDArray[np.float32], classes: Sequence[str], origin: tuple[int, int]
) -> None:
    """Write one feature per patch: its most probable class, and the probability of each class as a measurement.

    boxes: (N, 4), x, y, width and height in level-0 pixels. answers: (N, classes), probabilities. origin: the level-0
    pixel at which coordinates for QuPath start, the corner of the slide's bounds.
    """
    palette = colours(len(classes))
    with replacing(path) as partial, partial.open("w", encoding="ascii") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        for number, (box, answer) in enumerate(zip((boxes - [*origin, 0, 0]).tolist(), answers, strict=True)):
            file.write(",\n" * bool(number) + json.dumps(_feature(box, answer, classes, palette)))
        file.write("\n]}\n")


def _feature(
    box: list[int], answer: NDArray[np.float32], classes: Sequence[str], palette: NDArray[np.uint8]
) -> dict[str, Any]:
    x, y, w, h = box
    label = int(answer.argmax())
    ring = [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]
    measurements = {f"p {name}": round(float(p), 6) for name, p in zip(classes, answer, strict=True)}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "detection",
            "classification": {"name": classes[label], "color": palette[label].tolist()},
            "measurements": measurements,
        },
    }
