"""LyNSeC 3: nuclei of the tumour and others, in the layout of LyNSeC."""

from __future__ import annotations

from dpconvert.readers.datasets import lynsec
from dpconvert.readers.datasets.lynsec import images, read_annotations
from dpconvert.readers.fakes import FakeTree

__all__ = ["fake", "images", "read_annotations"]


def fake(tree: FakeTree) -> None:
    lynsec.draw(tree, "lynsec 3", tree.spread((f"{n}_l3" for n in range(40)), each=2), kinds=True)
    lynsec.draw(tree, "lynsec 2", ["35_l2"], kinds=False)
    tree.pack("lynsec")
