"""IGNITE: regions of H&E slides and their masks; a table states their sets, origins, and patients of TCGA."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from dpconvert import names
from dpconvert.annotations.parsing.table import TableRow
from dpconvert.errors import SourceError
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.image_rows import RowsByImage
from dpconvert.readers.layout_keys import as_split
from dpconvert.readers.layouts import masks
from dpconvert.readers.layouts.masks import read_annotations
from dpconvert.readers.layouts.table import cell
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

__all__ = ["fake", "images", "read_annotations"]

PATIENT = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")
ABOUT = ("organ", "specimen_type", "histological_subtype", "source", "scanner")  # columns
CELL = 256  # px of a fake tissue
HEAD = "image_path,annotation_path,task,split,stain,patient_id,organ,source,scanner,original_tcga_id"


def images(source: Source) -> Iterator[SourceImage]:
    rows = RowsByImage(source, _region, ("image_path", "split"), ("original_tcga_id", *ABOUT))
    for image in masks.images(source):
        cells = rows.get(image.name)
        if cells is None:
            raise SourceError("data_overview.csv states no set for this region", where=image.files[0])
        patient = PATIENT.search(cells["original_tcga_id"])
        attributes = {name: cells[name] for name in ABOUT if cells[name]}
        split = as_split(cells["split"], image.files[0])
        yield replace(image, group=patient[0] if patient else image.group, split=split, attributes=attributes)
    rows.count_unused()


def _region(row: TableRow, where: str) -> str | None:
    """The name of a region in H&E; the table lists those of other stains too."""
    name = PurePosixPath(names.file_name(cell(row, "image_path", where))).stem
    return name if "_he_" in name else None


def fake(tree: FakeTree) -> None:
    lines = [HEAD]
    regions = [f"patient{patient}_he_roi{1 + patient % 2}" for patient in range(1, 8)]
    for name in regions:
        patient = int(name.split("_")[0].removeprefix("patient"))
        pixels, mask = np.zeros((4 * CELL, 4 * CELL, 3), np.uint8), np.zeros((4 * CELL, 4 * CELL), np.uint8)
        for value in range(1, 17):
            at = np.s_[CELL * ((value - 1) // 4) :, CELL * ((value - 1) % 4) :]
            pixels[at][:CELL, :CELL], mask[at][:CELL, :CELL] = tree.texture(CELL, CELL, value), value
        mask[:20] = 0
        for folder, array in (("images/images/he", pixels), ("annotations/annotations/he", mask)):
            tree.save(f"{folder}/{name}.png", array)
            tree.write(f"{folder}/{name}_with_context.png", (tree.root / folder / f"{name}.png").read_bytes())
        of_tcga = f"TCGA-55-000{patient}-01Z-00-DX1" if patient % 2 else ""
        lines.append(
            f"./images/he/{name}.png,./annotations/he/{name}.png,he_tissue_segmentation,"
            f"{'test' if patient > 5 else 'train'},H&E,{patient},lung,{'tcga' if of_tcga else 'rumc'},P1000,{of_tcga}"
        )
    lines.append("./images/pdl1/nuclei/patient9_pdl1_roi1.png,./x.json,nuclei_detection,test,PD-L1,9,lung,rumc,P1000,")
    tree.save("images/images/pdl1/nuclei/patient9_pdl1_roi1.png", tree.coarse(64, 64))
    tree.write("annotations/annotations/pdl1/nuclei/nuclei_test_set_all_readers.json", "{}")
    tree.write("data_overview.csv", "\n".join(lines) + "\n")
    tree.pack("images")
    tree.pack("annotations")
