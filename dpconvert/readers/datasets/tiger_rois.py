"""TIGER's regions of interest: two folders of images and masks of tissue; a COCO file lists the cells of one of them.

A box of a cell has one size for all and a cell at its centre: the centres are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dpconvert.annotations import Annotations, LabelMask, masks
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.formats import coco
from dpconvert.errors import SourceError
from dpconvert.image import Image
from dpconvert.plural import counted
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layout_keys import layout_of
from dpconvert.readers.layouts.masks import Layout
from dpconvert.readers.named_images import Mentions
from dpconvert.readers.pairing import only_file, paired
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

CELLS = "lymphocytes and plasma cells"
WITH_CELLS = "tissue-cells"
UUID = re.compile(r"\.[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}(?=_)")  # keys with it would be too long


def images(source: Source) -> Iterator[SourceImage]:
    source.need("masks")
    cells, unlisted = _cells(source), list[str]()
    naming = _naming(source, cells)
    for found, mask in paired(source, "images", "masks", missing="error", key=_place):
        assert mask is not None
        listed = bool(naming.of(found.name))
        if cells is not None and found["part"] == WITH_CELLS and not listed:
            unlisted.append(found.name)
        yield SourceImage(
            f"{found['part'].removeprefix('tissue-')}/{UUID.sub('', found['region'])}",
            (found.name,),
            found["group"],
            annotations=(mask.name, cells[0]) if cells is not None and listed else (mask.name,),
            attributes={"part": found["part"]},
        )
    if cells is not None and unlisted:
        source.notes.append(f"{counted(len(unlisted), 'image')} that {cells[0]} does not list, the first {unlisted[0]}")


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations | LabelMask:
    """The tissue of a region; with dense targets its cells too, as points."""
    size, (name, *cells) = (image.width, image.height), source_image.annotations
    tissue = masks.read(source.read(name), name, layout_of(source.manifest, Layout).values, size)
    if source.manifest.dense is None:
        return tissue
    items = [replace(item, id=f"tissue-{item.id}") for item in tissue.objects().items]
    for listing in cells:
        file = annotation_files.coco_file(source.read(listing), listing)
        found = coco.shapes(file, listing, source_image.files[0], size, [CELLS], "xywh")
        items += [replace(item, geometry=item.geometry.centroid) for item in found.items]
    return Annotations(items)


def _naming(source: Source, cells: tuple[str, coco.CocoFile] | None) -> Mentions:
    """The images that the list of cells names."""
    images = [found.name for found in source.match("images") if found["part"] == WITH_CELLS]
    naming = Mentions({cells[0]: cells[1].named} if cells is not None else {}, images)
    naming.check(source)
    return naming


def _place(found: MatchedFile) -> str:
    return f"{found['part']}/{found['region']}"


def _cells(source: Source) -> tuple[str, coco.CocoFile] | None:
    """The list of cells, if dense targets need it."""
    found = source.match("cells")
    if source.manifest.dense is None:
        return None
    if not found:
        raise SourceError(
            "no list of cells",
            where=source.root,
            expected=source.manifest.files["cells"].example,
            remedy="add it, or convert without --dense",
        )
    name = only_file(source, found, "lists of cells").name
    return name, annotation_files.coco_file(source.read(name), name)


def fake(tree: FakeTree) -> None:
    folder, listed, cells = "roi-level-annotations/roi-level-annotations", [], []
    patients = tree.spread((f"TCGA-A{n % 10}-A0{n:02}" for n in range(100)), each=2)
    slides = [(f"{patient}-01Z-00-DX1.A44D70FA-4D96-43F4-9DD7-A61535786297", "tissue-bcss") for patient in patients]
    slides += [(f"{patient}-01Z-00-DX1.A44D70FA-4D96-43F4-9DD7-A61535786297", WITH_CELLS) for patient in patients[:2]]
    slides += [("100B", WITH_CELLS), ("114S", WITH_CELLS), ("TC_S01_P000003_C0001_B101", WITH_CELLS)]
    for number, (slide, part) in enumerate(slides, start=1):
        width, height = (530, 270) if number % 2 else (520, 256)
        region = f"{slide}_[{1000 * number}, 500, {1000 * number + width}, {500 + height}].png"
        pixels, mask = tree.coarse(width, height), np.zeros((height, width), np.uint8)
        for place in range(8):
            at = np.s_[128 * (place // 4) : 128 * (place // 4 + 1), 128 * (place % 4) : 128 * (place % 4 + 1)]
            pixels[at], mask[at] = tree.coarse(128, 128, place), (place + number) % 8
        mask[:100, 60:68] = 0
        if part == WITH_CELLS:
            points = [(20 + 40 * cell, 30.5) for cell in range(4)]
            tree.spots(pixels, [(x, y) for x, y in points], 6, (60, 30, 110))
            listed.append({"id": number, "file_name": f"{part}/images/{region}", "width": width, "height": height})
            cells += [_box(100 * number + cell, number, x, y) for cell, (x, y) in enumerate(points)]
        tree.save(f"{folder}/{part}/images/{region}", pixels)
        tree.save(f"{folder}/{part}/masks/{region}", mask)
    kinds = [{"id": 1, "name": CELLS, "supercategory": ""}]
    content = {"images": listed, "annotations": cells, "categories": kinds}
    tree.write(f"{folder}/{WITH_CELLS}/tiger-coco.json", json.dumps(content))
    tree.pack("roi-level-annotations")


def _box(number: int, region: int, x: float, y: float) -> dict[str, object]:
    box = {"bbox": [x - 8, y - 8, 16, 16], "area": 256, "segmentation": [], "iscrowd": 0}
    return {"id": number, "image_id": region, "category_id": 1, **box}
