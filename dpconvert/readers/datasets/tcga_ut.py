"""TCGA-UT: one archive per type of tumour, in it one folder per resolution, in it one folder per slide."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look, label in enumerate(tree.manifest.classes):
        for patient in tree.spread(f"TCGA-{look:02}-{n:04}" for n in range(1000)):
            slide = f"{label}/{{resolution}}/{patient}-01Z-00-DX1"
            patch = tree.coarse(256, 256, look)
            tree.save(f"{slide.format(resolution=0)}/0.jpg", patch, quality=80)
        tree.save(f"{slide.format(resolution=5)}/0.jpg", patch, quality=80)  # the same place, coarser
        tree.pack(label)
