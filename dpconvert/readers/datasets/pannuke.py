"""PanNuke: NumPy arrays of patches, masks and tissues, a fold each; the first mask of a patch decides its class.

The channels of the masks hold the numbers of nuclei of one kind each; the last one is the background.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dpconvert.annotations import LabelMask
from dpconvert.errors import ReadError
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts import arrays
from dpconvert.source.arrays import elements
from dpconvert.source.arrays.elements import Element
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

KINDS = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")  # of the channels
BACKGROUND = "background"


def images(source: Source) -> Iterator[SourceImage]:
    tissues = {found["name"]: source.stacks(found.name).array("") for found in source.need("types")}
    masks = {found["name"]: found.name for found in source.need("labels")}
    for image in arrays.images(source):
        fold, _, number = image.name.rpartition("_")
        drawn = (Element(masks[fold], "", int(number)).name,) if source.manifest.dense is not None else ()
        yield replace(image, attributes={"tissue": str(tissues[fold][int(number)])}, annotations=drawn)


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> LabelMask:
    """The nuclei of a patch as objects of one mask; of nuclei that overlap, that of the first channel."""
    name = source_image.annotations[0]
    found = elements.element(name, source.sizes)
    assert found is not None
    masks = source.samples(found)
    if masks.shape != (image.height, image.width, len(KINDS) + 1):
        raise ReadError(
            "not masks with a channel for each kind of nucleus and the background",
            where=name,
            found=" x ".join(map(str, masks.shape)),
        )
    kinds = np.asarray(masks[..., : len(KINDS)], np.int64)
    channel = (kinds > 0).argmax(-1)
    number = np.take_along_axis(kinds, channel[..., None], -1)[..., 0]
    values = np.where(number > 0, number * len(KINDS) + channel, -1)
    labels = {int(value): KINDS[value % len(KINDS)] for value in np.unique(values) if value >= 0}
    return LabelMask(values, {-1: BACKGROUND, **labels}, image.width, image.height, instances=True)


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
