"""TNBC of Naylor: a folder of images and a folder of masks for each of eleven patients."""

from __future__ import annotations

import numpy as np

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.masks import images, read_annotations

__all__ = ["fake", "images", "read_annotations"]


def fake(tree: FakeTree) -> None:
    for patient in range(1, 7):
        for number in (1, 2):
            pixels, mask = tree.coarse(256, 256), np.zeros((256, 256), np.uint8)
            places = [(float(x), float(y)) for x, y in tree.points(256, 256, 40)]
            tree.spots(pixels, places, 12, (70, 40, 120))
            tree.spots(mask, places, 12, 255)
            tree.save(f"TNBC_NucleiSegmentation/Slide_{patient:02}/{patient:02}_{number}.png", pixels)
            tree.save(f"TNBC_NucleiSegmentation/GT_{patient:02}/{patient:02}_{number}.png", mask)
    tree.write("TNBC_NucleiSegmentation/Slide_01/._01_1.png", b"\0")
    tree.pack("TNBC_NucleiSegmentation")
