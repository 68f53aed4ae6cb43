"""Warwick CRC: images with one MATLAB file of points for each kind of nucleus."""

from __future__ import annotations

from collections.abc import Iterator

from dpconvert.annotations import Annotations, point_arrays
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.pairing import note_of_no_image
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

KINDS = ("epithelial", "fibroblast", "inflammatory", "others")


def images(source: Source) -> Iterator[SourceImage]:
    tables: dict[str, list[str]] = {}
    for found in source.need("points"):
        tables.setdefault(found["name"], []).append(found.name)
    images = [
        SourceImage(found["name"], (found.name,), found["name"], annotations=tuple(tables.get(found["name"], ())))
        for found in sorted(source.need("images"), key=lambda f: int(f["number"]))
    ]
    files = [name for of_image in tables.values() for name in of_image]
    note_of_no_image(source, source.manifest.files["points"].what, files, images)
    yield from images


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    tables = ((name, name.rpartition("_")[2].removesuffix(".mat")) for name in source_image.annotations)
    found = [point_arrays.read_mat(source.read(name), name, "detection", label) for name, label in tables]
    return Annotations([item for table in found for item in table])


def fake(tree: FakeTree) -> None:
    for number in range(1, 11):
        folder = f"CRCHistoPhenotypes_2016_04_28/Classification/img{number}/img{number}"
        nuclei = [tree.points(500, 500, 0 if (number + i) % 5 == 0 else 14) for i in range(len(KINDS))]
        pixels = tree.image(500, 500, nuclei=nuclei[2][:0])
        for look, points_of in enumerate(nuclei):
            for x, y in points_of.astype(int).clip(8, 491):
                pixels[y - 8 : y + 8, x - 8 : x + 8] = tree.image(16, 16, look)
        tree.save(f"{folder}.bmp", pixels)
        for kind, points_of in zip(KINDS, nuclei, strict=True):
            tree.save_mat(f"{folder}_{kind}.mat", "detection", points_of)
    tree.write("CRCHistoPhenotypes_2016_04_28/Readme.txt", "A fake in the layout of CRCHistoPhenotypes.\n")
