"""TCGA-TILs: one folder per cancer, in it the release's sets, in them one folder per class."""

from __future__ import annotations

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.folders import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    sets = ("train", "train", "val", "test")
    rows = ["partition,study,barcode,label,path,md5"]
    for study in ("brca", "luad"):
        patients = (f"TCGA-{study[:2].upper()}-{n:04}" for n in range(1000))
        for number, patient in enumerate(tree.spread(patients, each=2)):
            for look, label in enumerate(tree.manifest.classes):
                digest = f"{int(tree.random.integers(1 << 62)):032x}"
                barcode, of = f"{patient}-01Z-00-DX1", sets[number % 4]
                path = f"images-tcga-tils/{study}/{of}/{label}/{barcode}_{digest}.png"
                pixels = tree.image(100, 100, 3 * look)
                tree.save(f"TCGA-TILs/{path}", pixels)
                tree.save(f"TCGA-TILs/{path.replace(study, 'pancancer', 1)}", pixels)  # a link in the release
                rows.append(f"{of},{study},{barcode},{label},{path},{digest}")
    tree.write("TCGA-TILs/images-tcga-tils-metadata.csv", "\n".join(rows) + "\n")
