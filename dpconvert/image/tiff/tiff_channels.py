"""The names and colours of channels in TIFFs without OME-XML: of ImageJ's stacks, and of PerkinElmer's (QPTIFF).

ImageJ labels each plane, often by the name of the file, after its place (`c:1/3 - slide.tif`); such labels say nothing
of the channel. Its lookup tables state the colour in which a channel is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tifffile

PLACE = re.compile(r"^\s*(?:[czt]:\d+/\d+\s*)+-?\s*")
QPI_NAME = re.compile(r"<Name>([^<]*)</Name>")
WHITE = 0xFFFFFF


def stated_channels(tiff: tifffile.TiffFile, series: Any, planes: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return the names ('' if none) and colours (0xRRGGBB) of the channels of a series of pages.

    planes: the number of a plane of each channel.
    """
    colours = [WHITE] * len(planes)
    if series.kind == "qpi":
        found = [QPI_NAME.search(series.pages[plane].aspage().description) for plane in planes]
        return [name[1] if name else "" for name in found], colours
    told = (tiff.imagej_metadata or {}) if series.kind == "imagej" else {}
    tables = told.get("LUTs") or []
    if len(tables) >= len(planes):
        colours = [_colour(table) for table in tables[: len(planes)]]
    labels = told.get("Labels") or []
    if len(labels) <= max(planes):
        return [""] * len(planes), colours
    names = [PLACE.sub("", str(labels[plane])) for plane in planes]
    return (names if len(set(names)) > 1 else [""] * len(planes)), colours


def _colour(table: Any) -> int:
    """Return the colour of the largest value of a lookup table (3, 256)."""
    red, green, blue = (int(part[-1]) for part in table)
    return red << 16 | green << 8 | blue
