"""AML-Cytomorphology_LMU: one folder per class, TIFFs with an alpha channel."""

from __future__ import annotations

import numpy as np

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look, label in enumerate(tree.manifest.classes):
        for number in range(1, 5):
            opaque = np.full((400, 400, 1), 255, np.uint8)
            pixels = np.concatenate([tree.coarse(400, 400, look, block=8), opaque], 2)
            tree.save(f"AML-Cytomorphology_LMU/{label}/{label}_{number:04}.tiff", pixels, compression="tiff_lzw")
