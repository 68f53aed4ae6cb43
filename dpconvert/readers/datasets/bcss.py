"""BCSS: regions of breast cancer from TCGA, and masks of their tissue with 22 values."""

from __future__ import annotations

import numpy as np

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.masks import images, read_annotations

__all__ = ["fake", "images", "read_annotations"]

REGIONS = (
    "TCGA-A2-A0SX-DX1_xmin53791_ymin56683",
    "TCGA-BH-A0BG-DX1_xmin64019_ymin24975",
    "TCGA-AR-A1AI-DX1_xmin38671_ymin10616",
    "TCGA-E2-A574-DX1_xmin54962_ymin47475",
    "TCGA-GM-A3XL-DX1_xmin29910_ymin15820",
)
VALUES = ((1, 2, 3, 4, 9, 0), (20, 2, 10, 4, 21, 15), (19, 2, 11, 4, 13, 7))  # of the six parts of a region


def fake(tree: FakeTree) -> None:
    folder = "0_Public-data-Amgad2019_0.25MPP"
    for number, region in enumerate(REGIONS):
        pixels, mask = np.zeros((896, 1350, 3), np.uint8), np.zeros((896, 1350), np.uint8)
        for part, value in enumerate(VALUES[number % len(VALUES)]):
            place = np.s_[448 * (part // 3) : 448 * (part // 3 + 1), 448 * (part % 3) : 448 * (part % 3 + 1)]
            pixels[place] = tree.coarse(448, 448, part, block=8)
            mask[place] = value
        mask[:448, 300:448] = 7  # a third of the tumour
        if number == 4:
            mask[448:, 200:448] = 6  # more than half of the necrosis
        name = f"{region}_MPP-0.2500.png"
        tree.save(f"{folder}/rgbs_colorNormalized/{name}", pixels)
        tree.save(f"{folder}/masks/{name}", mask)
    tree.write(f"{folder}/meta/gtruth_codes.tsv", "label\tGT_code\noutside_roi\t0\ntumor\t1\n")
    tree.write(f"{folder}/logs/2021-05-14.log", "")
