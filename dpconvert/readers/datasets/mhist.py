"""MHIST: images in one archive, labels and sets in a table beside it."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.table import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    rows = ["Image Name,Majority Vote Label,Number of Annotators who Selected SSA (Out of 7),Partition"]
    for number in range(24):
        name, votes = f"MHIST_{chr(97 + number // 26)}{chr(97 + number % 26)}a.png", (number * 3) % 8
        label = "SSA" if votes > 3 else "HP"
        tree.save(f"images/images/{name}", tree.coarse(224, 224, 3 * (label == "SSA")))
        rows.append(f"{name},{label},{votes},{'test' if number % 4 == 3 else 'train'}")
    tree.pack("images")
    tree.write("annotations.csv", "\n".join(rows) + "\n")
