"""Blood cells of Acevedo: one folder per class."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look, label in enumerate(tree.manifest.classes):
        for number in range(6):
            name = f"PBC_dataset_normal_DIB/{label}/{label[:2].upper()}_{100102 + 11 * number}.jpg"
            tree.save(name, tree.coarse(360, 363, look), quality=80)
    tree.write("PBC_dataset_normal_DIB/neutrophil/.DS_169665.jpg", b"\xff\xd8")
    tree.pack("PBC_dataset_normal_DIB")
