"""TCGA-CRC-DX by microsatellite instability: one folder per set, in it one per class, the patient in the name."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look, label in enumerate(tree.manifest.classes):
        for number in range(9):
            patient = f"TCGA-A{'AD'[look]}-{3489 + number}"
            for tile in range(2):
                name = f"{'TEST' if number % 3 == 2 else 'TRAIN'}/{label}/{patient}-01Z-00-DX1-{tile}.jpg"
                tree.save(name, tree.coarse(512, 512, 3 * look), quality=80)
    tree.pack("TEST")
