"""UMCM colorectal: one folder per class, the patient in the file name."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look, label in enumerate(tree.manifest.classes):
        for patient in range(1, 11):
            for k in range(3):
                name = f"{look * 4096 + patient * 16 + k:X}_CRC-Prim-HE-{patient:02}_{k:03}.tif_Row_{150 * k + 1}_Col_1"
                tree.save(
                    f"Kather_texture_2016_image_tiles_5000/{label}/{name}.tif",
                    tree.image(150, 150, look),
                    compression="tiff_lzw",
                )
