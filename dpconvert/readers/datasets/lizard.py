"""Lizard: regions of the colon, MATLAB files that number their nuclei and state their kinds, a table of folds."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from dpconvert.annotations import LabelMask, point_arrays
from dpconvert.errors import ReadError, SourceError
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.image_rows import RowsByImage
from dpconvert.readers.layout_keys import SplitNames, layout_of
from dpconvert.readers.layouts.table import cell
from dpconvert.readers.pairing import paired
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

KINDS = ("neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective")  # 1 to 6 in the files
SCANNED = re.compile(r"_(?=\d{4}-\d\d-\d\d )")  # between a slide's name and the time of its scan
ACCESSION = re.compile(r"(\d{4}[-_]\d{4,5})[-_]")


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, SplitNames)
    table = RowsByImage(source, lambda row, where: cell(row, "Filename", where), ("Filename", "Source", "Split"))
    for found, labels in paired(source, "images", "labels", missing="error"):
        row = table.get(found["name"])
        if row is None:
            raise SourceError("the table has no row for this image", where=found.name)
        origin, fold = row["Source"], row["Split"]
        assert labels is not None
        yield SourceImage(
            found["name"],
            (found.name,),
            group=_slide(origin) if found["part"] == "dpath" else found["name"],
            split=layout.set_of(fold, found.name),
            annotations=(labels.name,),
            attributes={"part": found["part"], "origin": origin},
        )
    table.count_unused()


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> LabelMask:
    """The nuclei of a region, each a separate object. `id` numbers them, `class` states their kinds in that order."""
    name = source_image.annotations[0]
    data = source.read(name)
    values = point_arrays.read_numbers(data, name, "inst_map").astype(np.int64)
    numbers = point_arrays.read_numbers(data, name, "id").reshape(-1).astype(np.int64).tolist()
    kinds = point_arrays.read_numbers(data, name, "class").reshape(-1).astype(np.int64).tolist()
    if values.shape != (image.height, image.width):
        found = " x ".join(map(str, values.shape[::-1]))
        raise ReadError(
            "the size of `inst_map` differs from that of its image",
            where=name,
            expected=f"{image.width} x {image.height}",
            found=found,
        )
    if len(numbers) != len(kinds) or not set(kinds) <= set(range(1, len(KINDS) + 1)):
        raise ReadError("`class` does not give each nucleus of `id` one of the kinds 1 to 6", where=name)
    labels = {0: "background", **{number: KINDS[kind - 1] for number, kind in zip(numbers, kinds, strict=True)}}
    if unknown := sorted(set(np.unique(values).tolist()) - set(labels)):
        raise ReadError("`inst_map` holds a nucleus that `id` does not list", where=name, found=unknown[0])
    return LabelMask(values, labels, image.width, image.height, instances=True)


def _slide(origin: str) -> str:
    """The accession number or the slide that a region of DigestPath is named after."""
    slide = origin.partition("-lv1-")[0]
    name = SCANNED.split(slide)[0]
    accession = ACCESSION.match(name)
    return accession[1] if accession and name != slide else name


def fake(tree: FakeTree) -> None:
    origins = {
        "consep_1": ("test_14", 3),
        "pannuke_2": ("None", 3),
        "glas_6": ("testA_56", 1),
        "crag_64": ("train_30", 2),
        "dpath_4": ("2019-07501-1-1-1_2019-05-29 08_22_25-lv1-9661-18329-4972-6041", 1),
        "dpath_34": ("2019-07501-1-3-3_2019-05-29 07_53_41-lv1-28802-27730-4306-8351", 1),
        "dpath_6": ("2019-06-10 23_05_58-lv1-17691-13669-5093-7479", 2),
        "dpath_48": ("18-13347A_2019-05-08 01_31_58-lv1-14057-17758-5693-6244", 3),
        "dpath_58": ("18-13347A_2019-05-08 01_31_58-lv1-14057-17758-5693-6244_1", 2),
    }
    rows = ["Filename,Source,Split"]
    for at, (name, (origin, fold)) in enumerate(origins.items()):
        part = 1 if name.startswith("c") else 2
        pixels, arrays = _region(tree, at)
        tree.save(f"lizard_images{part}/Lizard_Images{part}/{name}.png", pixels)
        tree.save_matlab(f"lizard_labels/Lizard_Labels/Labels/{name}.mat", arrays)
        rows.append(f"{name},{origin},{fold}")
    tree.write("lizard_labels/Lizard_Labels/info.csv", "\n".join(rows) + "\n")
    for folder in ("lizard_images1", "lizard_images2", "lizard_labels"):
        tree.pack(folder)


def _region(tree: FakeTree, at: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A region with nuclei at the centres of patches, and its truth; their numbers have gaps and are not in order."""
    pixels, values = tree.coarse(256, 256), np.zeros((256, 256), np.int32)
    places = [(64.0 + 32 * column, 64.0 + 32 * row) for row in range(5) for column in range(5)]
    kinds = [1 + (at + place) % len(KINDS) for place in range(len(places))]
    numbers = [3 + 2 * place for place in range(len(places))]
    for (x, y), kind, number in zip(places, kinds, numbers, strict=True):
        tree.spots(pixels, [(x, y)], 9, (40 + 30 * kind, 50, 200 - 25 * kind))
        values[int(y) - 9 : int(y) + 10, int(x) - 9 : int(x) + 10] = number
    order = np.arange(len(places))[::-1]
    return pixels, {
        "inst_map": values,
        "id": np.array(numbers, np.int32)[order, None],
        "class": np.array(kinds, np.uint8)[order, None],
        "centroid": np.array(places)[order],
    }
