"""NCT-CRC-HE-100K, with normalized colours or without: one folder per set, in it one folder per class."""

from __future__ import annotations

from pathlib import PurePosixPath

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def fake(tree: FakeTree) -> None:
    training = PurePosixPath(tree.manifest.files["images"].example).parts[0]
    for look, label in enumerate(tree.manifest.classes):
        names = (f"{label}-AAAMH{a}{b}K" for a in LETTERS for b in LETTERS)
        for name in tree.spread(names, each=2):
            tree.save(f"{training}/{label}/{name}.tif", tree.coarse(224, 224, look))
        for number in range(2):
            tile = tree.coarse(224, 224, look)
            tree.save(f"CRC-VAL-HE-7K/{label}/{label}-TCGA-AAI{chr(65 + number)}{label}.tif", tile)
    tree.pack("CRC-VAL-HE-7K")
