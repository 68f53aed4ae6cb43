"""What a DICOM file states about itself: its series, its kind and the size of the slide, without reading pixels."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

DICOM_NAME = re.compile(r"(?i)(\.(dcm|dicom|dic|ima)|(^|/)[^/.]+|\.\d+)$")
MAGIC_AT, MAGIC = 128, b"DICM"
LAST_TAG = 0x00480007  # TotalPixelMatrixRows: no tag that is read lies behind it
DAMAGED = (  # raised by pydicom for damaged files besides its own errors (found by experiment)
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OSError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    MemoryError,
    struct.error,
    zlib.error,
)


class Instance(NamedTuple):
    """The identity of a DICOM file; `series` and `uid` are its SeriesInstanceUID and SOPInstanceUID.

    refers: the series that it is about, as a file of annotations states it. resampled: whether it is a coarser copy of
    an image of full resolution.
    """

    file: str
    modality: str
    series: str
    uid: str
    flavor: str
    width: int
    container: str
    refers: frozenset[str] = frozenset()
    resampled: bool = False


def instance(root: Path, name: str) -> Instance | None:
    """Return the identity of a DICOM file; None if it is not DICOM, or does not state it."""
    try:
        with (root / name).open("rb") as file:
            head = file.read(MAGIC_AT + len(MAGIC))
            if head[MAGIC_AT:] != MAGIC:
                return None
            file.seek(0)
            return _identity(file, name)
    except OSError:
        return None  # reading it later reports the reason


def _identity(file: io.BufferedReader, name: str) -> Instance | None:
    from pydicom.errors import BytesLengthException, InvalidDicomError  # slow to load, and few sources need it
    from pydicom.filereader import read_partial

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for values that violate the standard
            data = read_partial(file, stop_when=lambda tag, _vr, _length: tag > LAST_TAG)
            kinds = [str(kind).upper() for kind in data.get("ImageType") or ()]
            if not data.get("Modality") or not data.get("SeriesInstanceUID"):
                return None
            return Instance(
                name,
                str(data.Modality),
                str(data.SeriesInstanceUID),
                str(data.get("SOPInstanceUID", "")),
                kinds[2] if len(kinds) > 2 else "",
                int(data.get("TotalPixelMatrixColumns") or 0),
                str(data.get("ContainerIdentifier") or ""),
                frozenset(str(one.get("SeriesInstanceUID")) for one in data.get("ReferencedSeriesSequence") or ()),
                kinds[3:4] == ["RESAMPLED"],
            )
    except (InvalidDicomError, BytesLengthException, *DAMAGED):
        return None  # damaged: reading it later reports it
