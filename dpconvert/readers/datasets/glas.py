"""GlaS: images of glands and masks that number them; their grades and patients in a table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dpconvert.annotations import LabelMask, mask_pixels
from dpconvert.errors import ReadError, SourceError
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.image_rows import RowsByImage
from dpconvert.readers.layout_keys import SplitNames, layout_of
from dpconvert.readers.layouts.table import cell
from dpconvert.readers.pairing import paired
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

NAME, PATIENT, LABEL = "name", "patient ID", "grade (GlaS)"
GRADE = "grade (Sirinukunwattana et al. 2015)"


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, SplitNames)
    table = RowsByImage(source, lambda row, where: cell(row, NAME, where), (NAME, PATIENT, LABEL, GRADE))
    for found, mask in paired(source, "images", "masks", missing="error"):
        row = table.get(found["name"])
        if row is None:
            raise SourceError("the table has no row for this image", where=found.name)
        assert mask is not None
        yield SourceImage(
            found["name"],
            (found.name,),
            group=row[PATIENT],
            label=row[LABEL],
            split=layout.set_of(found["split"], found.name),
            annotations=(mask.name,) if source.manifest.dense is not None else (),
            attributes={"grade": row[GRADE], "part": found["split"]},
        )
    table.count_unused()


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> LabelMask:
    """The glands of an image, each an object of its own."""
    name = source_image.annotations[0]
    values = mask_pixels.read(source.read(name), name, colours=False)
    if values.shape != (image.height, image.width):
        found, expected = (f"{width} x {height}" for height, width in (values.shape, (image.height, image.width)))
        raise ReadError("its size differs from that of its image", where=name, expected=expected, found=found)
    labels = {int(value): "gland" for value in np.unique(values) if value}
    return LabelMask(values, {0: "background", **labels}, image.width, image.height, instances=True)


def fake(tree: FakeTree) -> None:
    folder = "warwick_qu_dataset_released_2016_07_08"
    data = f"{folder}/Warwick QU Dataset (Released 2016_07_08)"
    rows = [f"{NAME},{PATIENT}, {LABEL}, {GRADE}"]
    parts = {"train": 12, "testA": 4, "testB": 2}
    names = [f"{part}_{number}" for part, count in parts.items() for number in range(1, count + 1)]
    for at, name in enumerate(names):
        patient = 1 + at % 9  # so that patients have images in several parts
        malignant = patient > 4
        width, height = (193, 130) if at % 3 else (143, 108)
        pixels, mask = tree.image(width, height, 3 * malignant), np.zeros((height, width), np.uint8)
        for gland, (x, y) in enumerate(((40, 40), (100, 60), (width - 4, 90)), start=1):
            tree.spots(pixels, [(x, y)], 18, (230, 210, 225))
            tree.spots(mask, [(x, y)], 18, gland)
        tree.save(f"{data}/{name}.bmp", pixels)
        tree.save(f"{data}/{name}_anno.bmp", mask)
        grade = "poorly differentiated" if malignant else "adenomatous"
        rows.append(f"{name},{patient}, {'malignant' if malignant else 'benign'}, {grade}")
    tree.write(f"{data}/Grade.csv", "\r\n".join(rows) + "\r\n")
    tree.pack(folder)
