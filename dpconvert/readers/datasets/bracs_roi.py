"""BRACS regions: one folder per set, in it one folder per class, the slide in the name."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for at, of in enumerate(("train", "val", "test")):
        for look, label in enumerate(tree.manifest.classes):
            for number in range(1, 3):
                name = f"{of}/{label}/BRACS_{264 + at * 10 + look % 3}_{label[2:]}_{number}.png"
                region = tree.coarse(127 + 40 * number, 160, look)
                tree.save(f"BRACS_RoI/latest_version/{name}", region)
                tree.save(f"BRACS_RoI/previous_version/{name}", region)
