"""Janowczyk 5: images `{patient}_{number}.tif` with masks or tables of mitoses, or TUPAC16's folders 01 to 12."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely

from dpconvert.annotations import Annotation, Annotations, masks, points
from dpconvert.errors import SourceError
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.pairing import note_of_no_image
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

LABEL = "Mitosis"


def images(source: Source) -> Iterator[SourceImage]:
    truth = {_name(found): found.name for kind in ("masks", "points") for found in source.match(kind)}
    images = sorted(source.need("images"), key=_name)
    if not truth.keys() & set(map(_name, images)):
        raise SourceError(
            "no tables or masks of mitoses were found", where=source.root, expected="01_01_pc.png or 01/01.csv"
        )
    if any(name.endswith(".png") for name in truth.values()):
        source.notes.append(
            "mitoses are the connected areas of masks: single tiles may differ from those of the points"
        )
    found = [
        SourceImage(name, (image.name,), image["case"], annotations=(truth[name],) if name in truth else ())
        for image in images
        for name in [_name(image)]
    ]
    note_of_no_image(source, "tables or masks of mitoses", truth.values(), found)
    yield from found


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    items: list[Annotation] = []
    for name in source_image.annotations:
        data = source.read(name)
        if name.lower().endswith(".csv"):
            items += points.read_text(data, name, ["y", "x"], delimiter=",", label=LABEL)
        else:
            mask = masks.read(data, name, {0: "", 1: LABEL}, (image.width, image.height), threshold=0)
            items += [_middle(area) for area in mask.objects([LABEL]).items]
    return Annotations(items)


def _middle(area: Annotation) -> Annotation:
    """The pixel in the middle of an area as the tables give it: by number, which is where it begins."""
    middle = area.geometry.centroid
    return Annotation(shapely.Point(middle.x - 0.5, middle.y - 0.5), area.label, area.id)


def _name(found: MatchedFile) -> str:
    return found["name"].replace("/", "_")


def fake(tree: FakeTree) -> None:
    mitoses = {"01": [(120, 130), (251, 400)], "02": [(330, 90)], "03": [(499, 250)], "04": [(60, 420)], "10": []}
    for patient, places in mitoses.items():
        for number in (1, 2):
            name, truth = f"{patient}_{number:02}", np.zeros((500, 500), np.uint8)
            pixels = tree.coarse(500, 500)
            if number == 1 and places:  # images without a mitosis have no mask
                tree.spots(pixels, places, 12, (50, 20, 80))
                tree.spots(truth, places, 6, 255)
                tree.save(f"{name}_pc.png", truth)
            tree.save(f"{name}.tif", pixels, compression="tiff_lzw")
            tree.save(f"{name}_cmask.png", truth[::4, ::4])  # of the tutorial, no truth
