"""Features of a slide's patches as HDF5, in the layout of TRIDENT, which tools for whole slides read.

`features` (N, D) float32; `coords` (N, 2) int64, the top left corner of each patch in level-0 pixels. The attributes of
`coords` state the size of the patches (https://github.com/mahmoodlab/TRIDENT, `patch_size`, `patch_size_level0`, ...);
magnifications, which follow from the resolution (10x is 1 um per pixel), are missing if it is unknown.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from dpconvert.image import Image
from mtrain.disk.atomic import replacing

MAGNIFICATION = 10.0  # at 1 um per pixel


def write_features(
    path: Path,
    features: NDArray[np.float32],
    boxes: NDArray[np.int64],
    image: Image,
    side: int,
    mpp: float | None,
    name: str,
) -> None:
    """Write the features of patches to `path`.

    boxes: (N, 4), x, y, width, height in level-0 pixels. side: of a patch in pixels at its own resolution. mpp: of
    level 0, in micrometres per pixel.
    """
    level0 = int(boxes[0, 2])
    about: dict[str, str | int | float] = {
        "patch_size": side,
        "patch_size_level0": level0,
        "overlap": 0,
        "name": name,
        "level0_width": image.width,
        "level0_height": image.height,
    }
    if mpp is not None:
        about |= {"level0_magnification": MAGNIFICATION / mpp}
        about |= {"target_magnification": MAGNIFICATION / mpp * side / level0}
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        file.create_dataset("features", data=features).attrs["name"] = name
        file.create_dataset("coords", data=boxes[:, :2]).attrs.update(about)
