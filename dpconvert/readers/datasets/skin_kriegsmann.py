"""Skin tissue of Kriegsmann: one folder per class; files, classes and sets in a table."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.table import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    rows = ["file,class,set"]
    for look, label in enumerate(tree.manifest.classes):
        for slide, of in enumerate(("Train", "Validation", "Test")):
            for number in range(1, 3):
                file = f"data/tiles/{label}/{label}_ws_{40 + slide}_{number}.jpg"
                tree.save(file, tree.coarse(395, 395, look), quality=80)
                rows.append(f"{file},{label},{of}")
    tree.write("data/tiles-v2.csv", "\n".join(rows) + "\n")
