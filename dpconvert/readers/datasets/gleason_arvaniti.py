"""Gleason grades of Arvaniti: cores in an archive each, and palette masks of their grades in others."""

from __future__ import annotations

import numpy as np

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.masks import images, read_annotations

__all__ = ["fake", "images", "read_annotations"]

PALETTE = (0, 255, 0, 0, 0, 255, 255, 255, 0, 255, 0, 0, 255, 255, 255)


def fake(tree: FakeTree) -> None:
    for array in ("ZT111_4_A", "ZT199_1_A", "ZT76_39_A", "ZT80_38_A"):
        for number in (1, 2):
            name = f"{array}_1_{number}"
            mask = np.full((1500, 1500), 4, np.uint8)
            for quarter, grade in enumerate((0, 1) if number == 1 else (2, 3)):
                mask[:750, 750 * quarter : 750 * (quarter + 1)] = grade
            pixels = tree.coarse(1500, 1500, number, block=10)
            tree.save(f"{array}/{name}.jpg", pixels, quality=70)
            test = array.startswith("ZT80")
            folder = "Gleason_masks_test_pathologist1/mask1" if test else "Gleason_masks_train/mask"
            tree.save_palette(f"{folder}_{name}.png", mask, PALETTE)
    tree.save("ZT76_39_A/ZT76_39_A_9_9.jpg", tree.coarse(1500, 1500, block=10), quality=70)  # without a mask
    tree.write("ZT76_39_A/._ZT76_39_A_9_9.jpg", b"\0")
