"""Janowczyk 6: small PNG images in folders `{patient}/{class}`, straight out of one large zip archive."""

from __future__ import annotations

from collections.abc import Iterator

from dpconvert.errors import SourceError
from dpconvert.plural import counted
from dpconvert.readers.fakes import FakeTree
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage


def images(source: Source) -> Iterator[SourceImage]:
    first: dict[str, MatchedFile] = {}
    files = source.need("images")
    for found in files:
        if found["folder"] != found["class"] or found["patient"] != found["id"]:
            raise SourceError(
                "its folders and its name state different patients or classes",
                where=found.name,
                remedy="put the file back, or fetch the archive again",
            )
        other = first.setdefault(found["name"], found)
        if source.sizes[other.name] != source.sizes[found.name]:
            raise SourceError("two files of the same name differ in size", where=found.name, found=other.name)
    twice = len(files) - len(first)
    if twice:
        source.notes.append(f"{counted(twice, 'image')} found twice, and used once")
    for name, found in sorted(first.items()):
        label = source.manifest.classes[int(found["class"])]
        yield SourceImage(name, (found.name,), found["patient"], label=label)


def fake(tree: FakeTree) -> None:
    for patient in ("9382", "10259", "10255", "8913", "12909"):
        for label in (0, 1):
            for number in range(4):
                x, y = 50 * number + 1, 101
                width = 34 if number == 3 and label == 0 else 50  # at the border of a slide
                name = f"{patient}/{label}/{patient}_idx5_x{x}_y{y}_class{label}.png"
                pixels = tree.image(width, 50, 3 * label)
                tree.save(f"IDC_regular_ps50_idx5/{name}", pixels)
                tree.save(f"IDC_regular_ps50_idx5/IDC_regular_ps50_idx5/{name}", pixels)  # Kaggle's copy
    tree.write("IDC_regular_ps50_idx5/.DS_Store", b"\0")
    tree.pack("IDC_regular_ps50_idx5")
