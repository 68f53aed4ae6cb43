"""Janowczyk 7: one folder per class, the slide in the file name."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look, label in enumerate(tree.manifest.classes):
        for slide in ("sj-03-2810", "sj-05-6124-R3", "sj-05-6124-R4", "sj-05-1374", "sj-04-4525-R4"):
            pixels = tree.coarse(800, 400, 2 * look)  # two patches and a rest
            tree.save(f"{label}/{slide.replace('-0', f'-{look}')}_001.tif", pixels, compression="tiff_lzw")
    tree.write("FL/.DS_Store", b"\0")
