"""A MIRAX slide of one level, by the description of OpenSlide: https://openslide.org/formats/mirax/."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE, SLIDE_ID, FILES = 64, b"0123456789ABCDEF", 2
SLIDEDAT = """[GENERAL]
SLIDE_ID = {slide}
SLIDE_VERSION = 01.02
IMAGENUMBER_X = {across}
IMAGENUMBER_Y = {down}
OBJECTIVE_MAGNIFICATION = 20
CameraImageDivisionsPerSide = 1
[HIERARCHICAL]
HIER_COUNT = 1
NONHIER_COUNT = 0
INDEXFILE = Index.dat
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = 1
HIER_0_VAL_0_SECTION = L0
[L0]
OVERLAP_X = 0
OVERLAP_Y = 0
MICROMETER_PER_PIXEL_X = 0.25
MICROMETER_PER_PIXEL_Y = 0.25
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = {tile}
DIGITIZER_HEIGHT = {tile}
IMAGE_FORMAT = PNG
IMAGE_CONCAT_FACTOR = 0
[DATAFILE]
FILE_COUNT = {files}
FILE_0 = Data0000.dat
FILE_1 = Data0001.dat
"""


def write_mirax(
    path: Path, pixels: NDArray[np.uint8], scanned: tuple[slice, slice] = (slice(None), slice(None))
) -> None:
    """Write `path` (.mrxs) and its folder. pixels: (height, width, 3), in whole tiles, alternately in two files.

    scanned: rows and columns with pixels, in whole tiles; there are no tiles elsewhere.
    """
    there = np.zeros(pixels.shape[:2], np.bool_)
    there[scanned] = True
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    path.touch()
    across, down = pixels.shape[1] // TILE, pixels.shape[0] // TILE
    data, entries = [bytearray(b"01.02" + SLIDE_ID) for _ in range(FILES)], []
    for number in range(across * down):
        y, x = (TILE * at for at in divmod(number, across))
        if not there[y, x]:
            continue
        tile = io.BytesIO()
        Image.fromarray(pixels[y : y + TILE, x : x + TILE]).save(tile, "PNG")
        file = data[number % FILES]
        entries.append(struct.pack("<4i", number, len(file), len(tile.getvalue()), number % FILES))
        file += tile.getvalue()
    for number, content in enumerate(data):
        (folder / f"Data{number:04}.dat").write_bytes(content)
    root = 5 + len(SLIDE_ID) + 8
    head = struct.pack("<7i", root, 0, root + 4, 0, root + 12, len(entries), 0)
    (folder / "Index.dat").write_bytes(b"01.02" + SLIDE_ID + head + b"".join(entries))
    told = {"slide": SLIDE_ID.decode(), "across": across, "down": down, "tile": TILE, "files": FILES}
    (folder / "Slidedat.ini").write_text(SLIDEDAT.format(**told))
