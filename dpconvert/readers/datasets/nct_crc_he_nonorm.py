"""NCT-CRC-HE-100K-NONORM: a folder a set, in it a folder a class."""

from __future__ import annotations

from dpconvert.readers.datasets.nct_crc_he import draw
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    draw(tree, "NCT-CRC-HE-100K-NONORM")
