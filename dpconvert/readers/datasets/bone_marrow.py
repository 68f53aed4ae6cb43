"""Bone marrow: numbered images of one cell each, in one folder per class; the first ones are for training."""

from __future__ import annotations

from collections.abc import Iterator

from dpconvert.card import Split
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layout_keys import as_split
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage


def images(source: Source) -> Iterator[SourceImage]:
    for found in sorted(source.need("images"), key=lambda found: found["name"]):
        yield SourceImage(
            found["name"], (found.name,), found["name"], label=found["class"], split=_split(source, found)
        )


def _split(source: Source, found: MatchedFile) -> Split | None:
    """The set of its folder; without one test by number, and for the others none."""
    if found["split"] or int(found["name"]) <= source.manifest.layout["last_of_training"]:
        return as_split(found["split"])
    return "test"


def fake(tree: FakeTree) -> None:
    numbers = [*range(1, 81), *range(653, 693)]
    for at, number in enumerate(numbers):
        width, height = (int(n) for n in tree.random.integers(40, 90, 2))
        tree.save(f"{at % 8}/{number:04}.png", tree.image(width, height, look=at % 8))
