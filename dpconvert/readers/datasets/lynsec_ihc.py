"""LyNSeC 1: nuclei with and without a marker, in the layout of LyNSeC."""

from __future__ import annotations

from dpconvert.readers.datasets import lynsec
from dpconvert.readers.datasets.lynsec import images, read_annotations
from dpconvert.readers.fakes import FakeTree

__all__ = ["fake", "images", "read_annotations"]


def fake(tree: FakeTree) -> None:
    lynsec.draw(tree, "lynsec 1", [f"{n}_l1" for n in range(6)], kinds=True)
    lynsec.draw(tree, "lynsec 3", ["0_l3"], kinds=True)
    tree.pack("lynsec")
