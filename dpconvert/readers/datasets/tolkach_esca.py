"""Tolkach ESCA: one tar archive per centre, in it one folder per class."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for centre in ("VALSET1_UKK", "VALSET2_WNS", "VALSET3_TCGA", "VALSET4_CHA_FULL"):
        for look, label in enumerate(tree.manifest.classes):
            for number in range(2):
                tree.save(f"{centre}/{label}/{label.lower()}.{number}.jpg", tree.coarse(256, 256, look), quality=85)
    tree.write("VALSET2_WNS/SH_MAG/._sh_mag.0.jpg", b"\0\5\x16\7")  # as macOS leaves it in the real archive
    tree.pack_tar("VALSET1_UKK")
