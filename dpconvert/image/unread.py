"""Formats of whole slides that nothing here reads, known by their endings: some look like a TIFF of a thumbnail."""

from __future__ import annotations

from pathlib import PurePath

FORMATS = {
    ".vsi": "Olympus VSI", ".czi": "Zeiss CZI", ".zarr": "OME-Zarr", ".isyntax": "Philips iSyntax", ".lif": "Leica LIF",
    ".kfb": "KFBio", ".tmap": "UNIC", ".sdpc": "SQRAY", ".mds": "Motic", ".zvi": "Zeiss ZVI", ".nd2": "Nikon ND2",
}  # fmt: skip
UNREAD = "convert them to OME-TIFF or DICOM, with bioformats2raw and raw2ometiff, bfconvert or QuPath"


def unread(name: str | PurePath) -> str | None:
    """What a file is, where it is a slide in such a format; None for any other."""
    return FORMATS.get(PurePath(name).suffix.lower())
