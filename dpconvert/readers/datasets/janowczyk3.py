"""Janowczyk 3: images and masks of tubules in one folder, and a list of the images of benign tissue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from dpconvert import names
from dpconvert.annotations.parsing.lines import lines
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts import masks
from dpconvert.readers.layouts.masks import read_annotations
from dpconvert.readers.named_images import check_names
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

__all__ = ["fake", "images", "read_annotations"]

FRINGE = 40  # stroma around a fake tubule


def images(source: Source) -> Iterator[SourceImage]:
    listed, benign = source.match("benign"), _benign(source)
    used = set[str]()
    if not listed:
        source.notes.append("benign.txt is missing: samples have no attribute `tissue`")
    for image in masks.images(source):
        found = benign.get(names.folded(image.name))
        used |= {found} if found else set()
        yield replace(image, attributes={"tissue": "benign" if found else "malignant"}) if listed else image
    for file in listed[:1]:
        check_names(source, file.name, sorted(benign.values()), used)


def _benign(source: Source) -> dict[str, str]:
    """Name of an image, without folder, extension and case -> the line that lists it."""
    names_listed = (
        line.strip() for file in source.match("benign") for line in lines(source.read(file.name), file.name)
    )
    return {names.folded(PurePosixPath(names.file_name(line)).stem): line for line in names_listed if line}


def fake(tree: FakeTree) -> None:
    called = [f"{case}-01-{number}" for case in ("09-1339", "09-322", "10-12813", "10-15673") for number in (1, 2)]
    for name in called:
        pixels, mask = tree.coarse(775, 522), np.zeros((522, 775), np.uint8)
        places = [(float(x), float(y)) for x in (150, 400, 650) for y in (130, 390)]
        tree.spots(pixels, places, 90, (120, 60, 140))
        tree.spots(pixels, places, FRINGE, (240, 235, 240))  # lumen
        tree.spots(mask, places, 90, 255)
        tree.save(f"{name}.bmp", pixels)
        tree.save(f"{name}_anno.bmp", mask)
    tree.write("benign.txt", "".join(f"{name}.bmp\n" for name in called[:4]))
