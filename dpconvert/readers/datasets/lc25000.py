"""LC25000: one folder per organ, in it one folder per class; most images are turned copies of others."""

from __future__ import annotations

import numpy as np

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look, label in enumerate(tree.manifest.classes):
        organ, kind = label.split("_")
        for original in range(3):
            pixels = tree.coarse(768, 768, look, block=8)
            for turn in range(4):
                name = f"{organ}{kind}{original * 4 + turn + 1}"
                folder = f"lung_colon_image_set/{organ}_image_sets/{label}"
                tree.save(f"{folder}/{name}.jpeg", np.ascontiguousarray(np.rot90(pixels, turn)), quality=80)
