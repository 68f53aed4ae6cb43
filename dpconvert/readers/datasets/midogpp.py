"""MIDOG++: large images, a COCO file of cells with boxes of its own form, and a table of the images' sets."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile

from dpconvert.annotations import Annotations
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.formats import coco
from dpconvert.annotations.parsing.table import TableRow
from dpconvert.errors import SourceError
from dpconvert.image import Image
from dpconvert.plural import counted
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.image_rows import RowsByImage
from dpconvert.readers.layout_keys import SplitNames, layout_of
from dpconvert.readers.layouts.table import cell
from dpconvert.readers.named_images import Mentions
from dpconvert.readers.pairing import only_file
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

COLUMNS = {"tumour": "Tumor", "scanner": "Scanner", "origin": "Origin"}
SPELLED = {"Hamammatsu XR": "Hamamatsu XR"}
LABELS = "not mitotic figure", "mitotic figure"


def images(source: Source) -> Iterator[SourceImage]:
    cells = only_file(source, source.need("cells"), "lists of cells")
    file = annotation_files.coco_file(source.read(cells.name), cells.name)
    Mentions({cells.name: file.named}, (found.name for found in source.need("images"))).check(source)
    layout, alone = layout_of(source.manifest, SplitNames), list[str]()
    table = RowsByImage(source, _number, ("Dataset", *COLUMNS.values()))
    for found in source.need("images"):
        row = table.get(str(int(found["name"])))
        if row is None:
            alone.append(found.name)
            continue
        yield SourceImage(
            found["name"],
            (found.name,),
            found["name"],
            split=layout.set_of(row["Dataset"], found.name),
            annotations=(cells.name,),
            attributes={name: SPELLED.get(row[column], row[column]) for name, column in COLUMNS.items()},
        )
    table.count_unused()
    if alone:
        source.notes.append(
            f"left out: {counted(len(alone), 'image')} without a row in the table, the first {alone[0]}"
        )


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    name, size = source_image.annotations[0], (image.width, image.height)
    file = annotation_files.coco_file(source.read(name), name)
    return coco.shapes(file, name, source_image.files[0], size, LABELS, "xyxy")


def _number(row: TableRow, where: str) -> str:
    number = cell(row, "Slide", where)
    if not number.isdecimal():
        raise SourceError("not the number of an image", where=where, found=repr(number)[:40])
    return str(int(number))


def fake(tree: FakeTree) -> None:
    sets = {1: "train", 2: "train", 3: "train", 6: "test", 7: "test", 151: "", 201: "train", 405: "train", 505: "train"}
    listed, cells, rows = [], list[dict[str, object]](), ["Slide;Dataset;Tumor;Scanner;Origin;Species"]
    for number, of in sets.items():
        width, height = 260 + number % 7, 200
        listed.append(
            {
                "license": 1,
                "file_name": f"{number:03}.tiff",
                "id": number,
                "width": width,
                "height": height,
                "tumor_type": "human breast cancer",
            }
        )
        pixels, alpha = tree.coarse(width, height), np.full((height, width), 255, np.uint8)
        if of:
            scanner = "Hamammatsu XR" if number < 100 else "Hamamatsu XR"
            rows.append(f"{number};{of};human breast cancer;{scanner};UMC Utrecht;Human")
            for x, y, category in ((60, 50, 1), (150.5, 99.5, 2), (width - 10, 150, 1), (40, 180, 2)):
                tree.spots(pixels, [(x, y)], 8, (50, 20, 80) if category == 1 else (120, 80, 140))
                cells.append(
                    {
                        "bbox": [x - 25, y - 25, x + 25, y + 25],
                        "category_id": category,
                        "image_id": number,
                        "labels": [category, category],
                        "id": len(cells) + 1,
                    }
                )
        tree.write(
            f"images/{number:03}.tiff",
            _tiff(pixels if number == 2 else np.dstack([pixels, alpha]), inches=number < 500),
        )
    kinds = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}]
    content = {"info": {"version": "1.0"}, "images": listed, "categories": kinds, "annotations": cells}
    tree.write("databases/MIDOG++.json", json.dumps(content))
    tree.write("datasets_xvalidation.csv", "\n".join(rows) + "\n")


def _tiff(pixels: np.ndarray, *, inches: bool) -> bytes:
    """A file of one page that states 0.25 um in pixels per inch, or a pyramid that states 0.23 um in pixels per cm."""
    buffer = io.BytesIO()
    alpha = pixels.shape[2] == 4
    options: dict[str, Any] = {
        "photometric": "rgb",
        "extrasamples": ["unassalpha"] if alpha else None,
        "metadata": None,
    }
    if inches:
        tifffile.imwrite(buffer, pixels, resolution=(25400 / 0.25,) * 2, resolutionunit="INCH", **options)
        return buffer.getvalue()
    with tifffile.TiffWriter(buffer) as tiff:
        for step in (1, 2):
            per_cm = 1e4 / 0.23 / step
            tiff.write(
                np.ascontiguousarray(pixels[::step, ::step]),
                tile=(64, 64),
                compression="lzw",
                predictor=True,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(step > 1),
                **options,
            )
    return buffer.getvalue()
