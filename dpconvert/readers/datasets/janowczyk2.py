"""Janowczyk 2: images, some of them planar PackBits TIFFs, with masks of epithelium."""

from __future__ import annotations

import numpy as np

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.masks import images, read_annotations

__all__ = ["fake", "images", "read_annotations"]


def fake(tree: FakeTree) -> None:
    for number, patient in enumerate(("9382", "9290", "12890", "8864", "10259")):
        name = f"{patient}_{number:05}"
        pixels, mask = tree.image(1000, 1000), np.zeros((1000, 1000), np.uint8)
        left, top = 80 * number, 70 * number
        pixels[top : top + 450, left : left + 500] = tree.image(500, 450, look=3)
        mask[top : top + 450, left : left + 500] = 255
        if number % 2:
            tree.save_planar(f"epi/{name}.tif", pixels)
        else:
            tree.save(f"epi/{name}.tif", pixels)
        tree.save(f"epi/masks/{name}_mask.png", mask)
