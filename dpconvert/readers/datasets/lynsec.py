"""LyNSeC: a NumPy array for each image; after its colours come the numbers of its nuclei and, in 1 and 3, their kinds.

The tasks lynsec, lynsec-tumour and lynsec-ihc read different folders of one archive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpconvert.annotations import LabelMask
from dpconvert.errors import ReadError
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts import arrays
from dpconvert.source.arrays import elements
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

NUMBERS, KINDS = 3, 4  # channels
CHANNELS = "4 or 5", "5"  # without and with kinds
OUTSIDE = "background"
SIDE = 192  # of the fake's images
MOST = float(np.nextafter(2.0**63, 0))  # the largest float64 that is an int64; NumPy < 2.3 crashes on larger integers
MISMATCHED = ("3_l2",)  # of the fake's images, those that the erratum leaves out


def images(source: Source) -> Iterator[SourceImage]:
    for image in arrays.images(source):
        yield replace(image, annotations=image.files)


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> LabelMask:
    """The nuclei as objects: of the class "Nucleus", or of the class that the kind of most of their pixels counts."""
    found = elements.element(source_image.annotations[0], source.sizes)
    assert found is not None
    samples, classes = source.samples(found), source.manifest.classes
    of_kinds = source.manifest.kind == "classification"
    if samples.shape[2] not in ((KINDS + 1,) if of_kinds else (NUMBERS + 1, KINDS + 1)):
        raise ReadError(
            "not an image with a channel that numbers its nuclei and, in LyNSeC 1 and 3, one that holds their kinds",
            where=found.file,
            expected=f"height x width x {CHANNELS[of_kinds]} channels",
            found=" x ".join(map(str, samples.shape)),
        )
    numbers = _whole(samples[..., NUMBERS], "numbers of nuclei", "whole numbers from 0", found.file)
    size = image.width, image.height
    if not of_kinds:
        nuclei = dict.fromkeys(np.unique(numbers).tolist(), classes[1])
        return LabelMask(numbers, nuclei | {0: classes[0]}, *size, instances=True)
    kinds = _whole(samples[..., KINDS], "kinds of nuclei", f"0 to {len(classes)}", found.file, len(classes))
    labels = _labels(numbers, kinds, classes)
    without = sum(not label for label in labels.values())
    remarks = {"nucleus without a kind": without} if without else {}
    return LabelMask(numbers, labels | {0: OUTSIDE}, *size, instances=True, remarks=remarks)


def _whole(values: NDArray[Any], what: str, expected: str, name: str, most: float = MOST) -> NDArray[np.int64]:
    wrong = ~((values >= 0) & (values <= most) & (values == np.floor(values)))  # including those that are not numbers
    if wrong.any():
        raise ReadError(f"invalid {what}", where=name, expected=expected, found=f"{values[wrong][0]:g}")
    return values.astype(np.int64)


def _labels(numbers: NDArray[Any], kinds: NDArray[Any], classes: Sequence[str]) -> dict[int, str]:
    """Nucleus -> class; '' without a kind. Kinds count from 1 in the order of the classes."""
    present, at = np.unique(numbers, return_inverse=True)
    known = [np.bincount(at.ravel(), kinds.ravel() == kind, len(present)) for kind in range(1, len(classes) + 1)]
    most = np.argmax(known, axis=0)
    return {
        int(number): classes[kind] if known[kind][place] else ""
        for place, (number, kind) in enumerate(zip(present, most, strict=True))
        if number
    }


def fake(tree: FakeTree) -> None:
    draw(tree, "lynsec 3", tree.spread((f"{n}_l3" for n in range(40)), each=2), kinds=True)
    draw(tree, "lynsec 2", [*MISMATCHED, *tree.spread((f"{n}_l2" for n in range(35, 280)), each=1)], kinds=False)
    tree.pack("lynsec")


def draw(tree: FakeTree, folder: str, names: Sequence[str], *, kinds: bool) -> None:
    """A file for each image, with nuclei that do not touch."""
    for name in names:
        samples = np.zeros((SIDE, SIDE, 5), np.int32)
        pixels = tree.coarse(SIDE, SIDE)
        for number in range(1, 10):
            x, y = 32 + 64 * ((number - 1) % 3), 32 + 64 * ((number - 1) // 3)
            kind = 1 + number % 2
            colour = (70, 40, 120) if kind == 2 else (150, 110, 170)
            tree.spots(pixels, [(x, y)], 14, colour)
            rows, columns = np.mgrid[:SIDE, :SIDE]
            disc = (rows - y) ** 2 + (columns - x) ** 2 <= 14**2
            samples[disc, NUMBERS], samples[disc, KINDS] = number, kind
        samples[..., :3] = pixels
        tree.save_array(f"lynsec/{folder}/{name}.npy", samples if kinds else samples[..., :KINDS])
