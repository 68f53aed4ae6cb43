"""NuInsSeg: a folder for each organ, in it folders of images, of masks, and of what is not read here."""

from __future__ import annotations

import numpy as np

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.masks import images, read_annotations

__all__ = ["fake", "images", "read_annotations"]


def fake(tree: FakeTree) -> None:
    for organ in ("human bladder", "mouse liver"):
        for number in range(1, 6):
            name = f"{organ.replace(' ', '_')}_{number:02}"
            pixels, mask = tree.coarse(256, 256), np.zeros((256, 256), np.uint8)
            places = [(float(x), float(y)) for x, y in tree.points(256, 256, 40)]
            tree.spots(pixels, places, 12, (70, 40, 120))
            tree.spots(mask, places, 12, 255)
            tree.save(f"NuInsSeg/{organ}/tissue images/{name}.png", pixels)
            tree.save(f"NuInsSeg/{organ}/mask binary/{name}.png", mask)
            tree.save(f"NuInsSeg/{organ}/label masks modify/{name}.tif", (mask > 0).astype(np.uint16))
            tree.save(f"NuInsSeg/{organ}/vague areas/mask binary_vague/{name}.png", np.zeros((256, 256), np.uint8))
    tree.pack("NuInsSeg")
