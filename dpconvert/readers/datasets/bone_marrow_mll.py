"""Bone marrow of the MLL: one folder per class, in most of them folders of a thousand images."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look, label in enumerate(tree.manifest.classes):
        for number in range(1, 5):
            folder = "" if label == "ABE" else "0001-1000/"
            name = f"BM_cytomorphology_data/{label}/{folder}{label}_{number:05}.jpg"
            tree.save(name, tree.coarse(250, 250, look), quality=80)
