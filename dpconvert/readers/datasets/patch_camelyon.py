"""PatchCamelyon: HDF5 files of patches and labels, a set each, and tables of their slides."""

from __future__ import annotations

import numpy as np

from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.arrays import images

__all__ = ["fake", "images"]


def fake(tree: FakeTree) -> None:
    for at, of in enumerate(("train", "valid", "test")):
        count = 12 if of == "train" else 6
        labels = np.arange(count) % 2
        patches = np.stack([tree.image(96, 96, 3 * int(label)) for label in labels])
        name = f"camelyonpatch_level_2_split_{of}"
        tree.save_hdf5(f"{name}_x.h5.gz", {"x": patches})
        tree.save_hdf5(f"{name}_y.h5.gz", {"y": labels.reshape(-1, 1, 1, 1).astype(np.uint8)})
        rows = [",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"]
        for number, label in enumerate(labels.tolist()):
            slide = f"camelyon16_{of}_{'tumor' if label else 'normal'}_{100 * at + number // 4:03}"
            rows.append(f"{number},{96 * number},{96 * at},{bool(label)},{bool(label)},{slide}")
        tree.write(f"{name}_meta.csv", "\n".join(rows) + "\n")
