"""Slide formats that are not read, recognized by their suffixes; some look like a TIFF of a thumbnail.

Formats of `EXTRAS` are read if their library is installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import PurePath
from typing import NamedTuple


class Extra(NamedTuple):
    """A format that an optional library reads: its name, the module of the library, and the extra of this package."""

    format: str
    module: str
    extra: str


FORMATS = {
    ".isyntax": "Philips iSyntax",
    ".lif": "Leica LIF",
    ".kfb": "KFBio",
    ".tmap": "UNIC",
    ".sdpc": "SQRAY",
    ".mds": "Motic",
    ".zvi": "Zeiss ZVI",
    ".nd2": "Nikon ND2",
}
OME_ZARR = Extra("OME-Zarr", "zarr", "zarr")
EXTRAS = {
    ".czi": Extra("Zeiss CZI", "pylibCZIrw", "czi"),
    ".vsi": Extra("Olympus VSI", "slideio", "vsi"),
    ".zarr": OME_ZARR,
    ".ozx": OME_ZARR,
}
FOLDERS = {".zarr"}  # suffixes of folders that are a slide
UNREAD = (
    "convert them to OME-TIFF or DICOM: `bioformats2raw SLIDE SLIDE.zarr`, then `raw2ometiff --rgb SLIDE.zarr "
    "SLIDE.ome.tif`, or bfconvert, or QuPath's export of OME-TIFF"
)


def unread(name: str | PurePath) -> str | None:
    """Return the name of the slide format of a file that cannot be read here; None for any other file."""
    suffix = PurePath(name).suffix.lower()
    if suffix in EXTRAS:
        extra = EXTRAS[suffix]
        return None if importlib.util.find_spec(extra.module) else extra.format
    return FORMATS.get(suffix)


def remedy(name: str | PurePath) -> str:
    """Return what to do with a file for which `unread` names a format."""
    extra = EXTRAS.get(PurePath(name).suffix.lower())
    return f"install its reader: pip install 'dpconvert[{extra.extra}]'" if extra else UNREAD


def is_folder(name: str | PurePath) -> bool:
    """Whether a folder of this name is one slide."""
    return PurePath(name).suffix.lower() in FOLDERS


def is_ome_zarr(name: str | PurePath) -> bool:
    """Whether a folder or file of this name is an OME-Zarr."""
    return EXTRAS.get(PurePath(name).suffix.lower()) is OME_ZARR
