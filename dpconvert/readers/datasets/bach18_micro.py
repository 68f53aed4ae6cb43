"""BACH 2018, part A: one folder per class; the patients of some photos from the manifest's table."""

from __future__ import annotations

from collections.abc import Iterator

from dpconvert.card import Model
from dpconvert.errors import SourceError
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layout_keys import layout_of
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

LETTERS = {"n": "Normal", "b": "Benign", "is": "InSitu", "iv": "Invasive"}


class Layout(Model):
    """`[layout]` of the manifest: patient -> photos."""

    patients: dict[str, list[str]]


def images(source: Source) -> Iterator[SourceImage]:
    patients = layout_of(source.manifest, Layout).patients
    patient_of = {photo: patient for patient, photos in patients.items() for photo in photos}
    for found in sorted(source.need("images"), key=lambda found: found["name"].lower()):
        name, label = found["name"].lower(), LETTERS[found["letters"].lower()]
        if found["class"].lower() != label.lower():
            raise SourceError("its folder and its name state different classes", where=found.name, expected=label)
        yield SourceImage(name, (found.name,), patient_of.get(name, name), label=label)


def fake(tree: FakeTree) -> None:
    photos = {
        "n": (1, 46, 50, 58, 69),
        "b": (1, 2, 42, 52, 60),
        "is": (1, 40, 55, 56, 57),
        "iv": (1, 2, 41, 53, 59),
    }
    truth = []
    for look, (letters, numbers) in enumerate(photos.items()):
        for number in numbers:
            name, label = f"{letters}{number:03}.tif", LETTERS[letters]
            pixels = tree.coarse(1100, 600, look)  # two patches and a rest
            tree.save(f"ICIAR2018_BACH_Challenge/Photos/{label}/{name}", pixels, compression="tiff_lzw")
            truth.append(f"{name},{label}\n")
    tree.write("ICIAR2018_BACH_Challenge/Photos/microscopy_ground_truth.csv", "".join(truth))
    tree.write("ICIAR2018_BACH_Challenge/Photos/Normal/Thumbs.db", b"\0")
    test = tree.coarse(512, 512)
    tree.save("ICIAR2018_BACH_Challenge_TestDataset/Photos/test0.tif", test, compression="tiff_lzw")
