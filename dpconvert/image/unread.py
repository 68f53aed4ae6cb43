"""Unsupported slide formats, recognized by their suffixes; some look like a TIFF of a thumbnail."""

from __future__ import annotations

from pathlib import PurePath

FORMATS = {
    ".vsi": "Olympus VSI", ".czi": "Zeiss CZI", ".zarr": "OME-Zarr", ".isyntax": "Philips iSyntax", ".lif": "Leica LIF",
    ".kfb": "KFBio", ".tmap": "UNIC", ".sdpc": "SQRAY", ".mds": "Motic", ".zvi": "Zeiss ZVI", ".nd2": "Nikon ND2",
}  # fmt: skip
UNREAD = "convert them to OME-TIFF or DICOM, with bioformats2raw and raw2ometiff, bfconvert or QuPath"


def unread(name: str | PurePath) -> str | None:
    """Return the name of the unsupported slide format of a file; None for any other file."""
    return FORMATS.get(PurePath(name).suffix.lower())
