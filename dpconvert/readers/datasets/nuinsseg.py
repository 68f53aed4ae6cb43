"""NuInsSeg: a folder for each organ, in it folders of images, of masks, of numbered nuclei and of vague areas.

Dense targets read numbered nuclei and vague areas too; labels follow from the masks, which mark the same nuclei.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dpconvert.annotations import Annotations, LabelMask
from dpconvert.annotations import masks as label_masks
from dpconvert.annotations.mask_pixels import read as read_mask
from dpconvert.errors import ReadError, SourceError
from dpconvert.image import Image
from dpconvert.plural import counted
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts import masks
from dpconvert.readers.pairing import ByName
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

OTHER, NUCLEUS, VAGUE = "Other", "Nucleus", "vague"
DENSE_FILES = ("numbers", "vague")


def images(source: Source) -> Iterator[SourceImage]:
    if source.manifest.dense is None:
        yield from masks.images(source)
        return
    kinds = [ByName(source.match(kind), source.manifest.files[kind].what) for kind in DENSE_FILES]
    for image in masks.images(source):
        files = []
        for kind, of_kind in zip(DENSE_FILES, kinds, strict=True):
            if (found := of_kind.get(image.name)) is None:
                raise SourceError(
                    f"no {source.manifest.files[kind].what} for this image",
                    where=image.files[0],
                    expected=source.manifest.files[kind].example,
                    remedy="add it, or convert without --dense",
                )
            files.append(found.name)
        yield replace(image, annotations=(*image.annotations, *files))
    source.notes += [note for of_kind in kinds for note in of_kind.notes()]


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations | LabelMask:
    """The mask; for dense targets each nucleus, and vague areas on top of them.

    Raises:
        ReadError: the numbered nuclei are not those of the mask.
    """
    mask = masks.read_annotations(source, source_image, image)
    if source.manifest.dense is None:
        return mask
    assert isinstance(mask, LabelMask)
    size, (_, numbers, vague) = (image.width, image.height), source_image.annotations
    values = read_mask(source.read(numbers), numbers, colours=False).astype(np.int64)
    if values.shape != mask.values.shape:
        found, expected = (f"{width} x {height}" for height, width in (values.shape, mask.values.shape))
        raise ReadError("its size differs from that of the mask", where=numbers, expected=expected, found=found)
    if differing := int(((values > 0) != (mask.values > 0)).sum()):
        raise ReadError(
            "its nuclei are not those of the mask",
            where=numbers,
            expected=f"the pixels of {source_image.annotations[0]}",
            found=f"{counted(differing, 'pixel')} differ",
            remedy="download both again, or convert without --dense",
        )
    labels = {0: OTHER, **{int(value): NUCLEUS for value in np.unique(values) if value}}
    areas = LabelMask(values, labels, *size, instances=True).objects()
    doubtful = label_masks.read(source.read(vague), vague, {0: "", 1: VAGUE}, size, threshold=0)
    return Annotations([*areas.items, *doubtful.objects([VAGUE]).items], mask.remarks + doubtful.remarks)


def fake(tree: FakeTree) -> None:
    for organ in ("human bladder", "mouse liver"):
        for number in range(1, 6):
            name = f"{organ.replace(' ', '_')}_{number:02}"
            pixels, mask = tree.coarse(256, 256), np.zeros((256, 256), np.uint8)
            places = [(float(x), float(y)) for x, y in tree.points(256, 256, 40)]
            tree.spots(pixels, places, 12, (70, 40, 120))
            tree.spots(mask, places, 12, 255)
            numbers, vague = np.zeros((256, 256), np.uint8), np.zeros((256, 256), np.uint8)
            for nucleus, place in enumerate(places, start=1):  # of nuclei that overlap, the last one is seen
                tree.spots(numbers, [place], 12, nucleus)
            vague[:40, 216:] = 255 * (number == 1)
            tree.save(f"NuInsSeg/{organ}/tissue images/{name}.png", pixels)
            tree.save(f"NuInsSeg/{organ}/mask binary/{name}.png", mask)
            tree.save(f"NuInsSeg/{organ}/label masks modify/{name}.tif", numbers.astype(np.uint16))
            tree.save(f"NuInsSeg/{organ}/vague areas/mask binary_vague/{name}.png", vague)
    tree.pack("NuInsSeg")
