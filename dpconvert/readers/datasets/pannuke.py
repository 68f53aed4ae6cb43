"""PanNuke: NumPy arrays of patches, masks and tissues, a fold each; the first mask of a patch decides its class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts import arrays
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage


def images(source: Source) -> Iterator[SourceImage]:
    tissues = {found["name"]: source.stacks(found.name).array("") for found in source.need("types")}
    for image in arrays.images(source):
        fold, _, number = image.name.rpartition("_")
        yield replace(image, attributes={"tissue": str(tissues[fold][int(number)])})


def fake(tree: FakeTree) -> None:
    for fold in (1, 2, 3):
        images = np.zeros((2, 256, 256, 3))
        masks = np.zeros((2, 256, 256, 6))
        masks[..., 5] = 1  # background
        for number in range(2):
            images[number] = tree.coarse(256, 256, 3 * (number % 2))
            kind = 0 if number % 2 else 2
            for instance, (x, y) in enumerate(tree.points(256, 256, 3).astype(int).tolist(), start=1):
                masks[number, y : y + 8, x : x + 8, kind] = instance
                masks[number, y : y + 8, x : x + 8, 5] = 0
        types = np.array(["Breast", "Bile-duct"])
        folder = f"fold_{fold}/Fold {fold}"
        tree.save_array(f"{folder}/images/fold{fold}/images.npy", images)
        tree.save_array(f"{folder}/images/fold{fold}/types.npy", types)
        tree.save_array(f"{folder}/masks/fold{fold}/masks.npy", masks)
        tree.pack(f"fold_{fold}")
