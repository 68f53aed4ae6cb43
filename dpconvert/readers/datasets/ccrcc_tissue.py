"""CCRCC tissue: one folder per class; names distinguish tiles of TCGA from those of Helsinki."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from dpconvert.card import Split
from dpconvert.readers.fakes import FakeTree
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage


def images(source: Source) -> Iterator[SourceImage]:
    for found in source.need("images"):
        name = PurePosixPath(found["class"], found["name"])
        of: Split = "train" if found["group"].startswith("TCGA-") else "test"
        yield SourceImage(str(name), (found.name,), found["group"], label=found["class"], split=of)


def fake(tree: FakeTree) -> None:
    for look, label in enumerate((*tree.manifest.classes, "blood")):
        for number in range(1, 7):
            tile = f"{label.title()}Tile {number}.png"
            of_tcga = f"TCGA-A3-33{number:02}-01Z-00-DX1_{tile}"
            tree.save(f"tissue_classification/{label}/{of_tcga}", tree.coarse(300, 300, look))
            of_helsinki = f"FIMM6_{13 + number % 2}_ML14121{number % 2}.mrxs_{tile}"
            tree.save(f"tissue_classification/{label}/{of_helsinki}", tree.coarse(256, 256, look))
