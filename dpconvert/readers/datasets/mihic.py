"""MIHIC: a folder for each set and class; names state the patient and the stain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts import folders
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

MARKERS = ("CD3", "cyclin-D1", "ki67")  # one with a hyphen


def images(source: Source) -> Iterator[SourceImage]:
    markers = {found.name: found["marker"] for found in source.need("images")}
    for image in folders.images(source):
        yield replace(image, attributes={"marker": markers[image.files[0]]})


def fake(tree: FakeTree) -> None:
    for number, of in enumerate(("train", "train", "train", "val", "test", "test")):
        for look, label in enumerate(tree.manifest.classes):
            for patient in range(3):
                name = f"{patient + 3 * (number // 2)}-{MARKERS[patient]}-{number}-{look}"
                tree.save(f"MIHIC_dataset/dataset/{of}/{label}/{name}.png", tree.coarse(128, 128, look))
    tree.pack("MIHIC_dataset")
