"""Janowczyk 1: flat images `*_original.tif`, most of them with a mask `*_mask.png` of some of their nuclei."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dpconvert.annotations import LabelMask
from dpconvert.image import Image
from dpconvert.plural import counted
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts import masks
from dpconvert.readers.pairing import paired
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

NEAR = 10  # pixels (2.5 um) around outlined nuclei, of which it is known that they show none


def images(source: Source) -> Iterator[SourceImage]:
    source.need("masks")
    alone = []
    for image, mask in paired(source, "images", "masks", missing="none"):
        if mask is None:
            alone.append(image.name)
        else:
            yield SourceImage(image["name"], (image.name,), image["group"], annotations=(mask.name,))
    if alone:
        source.notes.append(f"left out: {counted(len(alone), 'image')} without a mask: {', '.join(alone[:5])}")


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> LabelMask:
    """The mask. For dense targets, what is far from all outlined nuclei has no label: not all nuclei are outlined."""
    mask = masks.read_annotations(source, source_image, image)
    assert isinstance(mask, LabelMask)
    return mask if source.manifest.dense is None else _without_far(mask)


def _without_far(mask: LabelMask) -> LabelMask:
    from scipy import ndimage  # a third of the time that a worker takes to start

    far = ndimage.distance_transform_edt(mask.values == 0) > NEAR
    if not mask.values.any():
        far[:] = True
    return LabelMask(np.where(far, 2, mask.values), {**mask.labels, 2: ""}, mask.width, mask.height)


def fake(tree: FakeTree) -> None:
    for number, patient in enumerate(("9382", "9075", "8913", "12909")):
        name = f"nuclei/{patient}_500_f{number:05}"
        pixels, mask = tree.coarse(500, 500), np.zeros((500, 500), bool)
        places = [(float(x), float(y)) for x, y in tree.points(220, 500, 20)]  # the right half has none outlined
        tree.spots(pixels, places, 14, (70, 40, 120))
        tree.spots(mask, places, 14, 1)
        tree.save(f"{name}_original.tif", pixels, compression="tiff_lzw")
        tree.save(f"{name}_mask.png", mask)
    tree.save("nuclei/8974_500_f00009_original.tif", tree.coarse(500, 500), compression="tiff_lzw")  # without a mask
    tree.write("nuclei/.DS_Store", b"\0")
