"""GasHisSDB: one folder per size of pieces, in it one folder per class."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look, label in enumerate(tree.manifest.classes):
        for number in range(1, 13):
            piece = tree.image(160, 160, 3 * look)
            tree.save(f"GasHisSDB/160/{label}/{label}-{number:05}.png", piece)
            tree.save(f"GasHisSDB/80/{label}/{label}-{number:05}.png", piece[:80, :80])
