"""WSSS4LUAD: the training set, whose file names state for each patch which of three tissues it shows."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import TARGETS, images

__all__ = ["TARGETS", "fake", "images"]

TISSUES = ("[1, 0, 0]", "[0, 1, 0]", "[1, 1, 0]", "[0, 0, 1]", "[0, 1, 1]")


def fake(tree: FakeTree) -> None:
    for slide in range(10):
        for number in range(6):
            kind = (slide + number) % len(TISSUES)
            name = f"{436401 + slide}-{7113 + 200 * number}-{25985 + 100 * slide}-{TISSUES[kind]}"
            tree.save(f"1.training/{name}.png", tree.coarse(200 + 10 * kind, 200, kind))
