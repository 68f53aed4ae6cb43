"""Stroma LBP: images whose names begin with their class, and may hold the official set."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for look in (0, 1):
        for number in range(12):
            width, height = 90 + 12 * number, 88 + 9 * number
            official = ("train", "valid", "test", "test")[number % 4]
            name = f"{look}_{60570 + 2 * number + look}_Oncotex_str_{official}"
            tree.save(f"epistroma/{name}.{'jpg' if number == 7 else 'png'}", tree.image(width, height, 2 * look))
    tree.write("epistroma/Thumbs.db", b"\0")
