"""SegPath, epithelium: images and masks in one folder, and a table of sets. The other antibodies are laid out alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from dpconvert import names
from dpconvert.annotations.parsing.table import TableRow
from dpconvert.plural import counted
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.image_rows import RowsByImage
from dpconvert.readers.layout_keys import as_split
from dpconvert.readers.layouts import masks
from dpconvert.readers.layouts.masks import read_annotations
from dpconvert.readers.layouts.table import cell
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

__all__ = ["fake", "images", "read_annotations"]

PAIR = re.compile(r"_(HE|mask)\.png$")
SIDE = 512  # of the fake's images


def images(source: Source) -> Iterator[SourceImage]:
    rows, unlisted = RowsByImage(source, _pair, ("train_val_test",), ("antibody",)), list[str]()
    for image in masks.images(source):
        row = rows.get(image.name)
        if row is None:
            unlisted.append(image.files[0])
        else:
            yield replace(image, split=as_split(row["train_val_test"], image.files[0]))
    rows.count_unused()
    if unlisted:
        source.notes.append(f"left out: {counted(len(unlisted), 'image')} in no table, the first {unlisted[0]}")


def _pair(row: TableRow, where: str) -> str | None:
    """The name of an image and its mask, which have a row each."""
    file = PurePosixPath(names.file_name(cell(row, "filename", where))).name
    name = PAIR.sub("", file)
    return name if name != file else None


def fake(tree: FakeTree) -> None:
    folder = PurePosixPath(tree.manifest.files["images"].example).parts[0]
    lines = ["filename,antibody,train_val_test"]
    for slide, of in enumerate(("train", "train", "val", "test")):
        for number in range(2):
            name = f"{folder}_{slide:03}_{number * SIDE:06}_000000"
            pixels, mask = tree.coarse(SIDE, SIDE), np.zeros((SIDE, SIDE), np.uint8)
            places = [(128.0, 128.0), (384.0, 400.0)]
            tree.spots(pixels, places, 60 + 10 * number, (110, 60, 150))
            tree.spots(mask, places, 60 + 10 * number, 1)
            tree.save(f"{folder}/{name}_HE.png", pixels)
            tree.save(f"{folder}/{name}_mask.png", mask)
            lines += [f"{name}_{kind}.png,{folder},{of}" for kind in ("HE", "mask")]
    tree.write(PurePosixPath(tree.manifest.files["table"].example).name, "\n".join(lines) + "\n")
