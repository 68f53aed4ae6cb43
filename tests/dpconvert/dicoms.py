"""DICOM whole slides of a few tiles, written with pydicom as DICOM Supplement 145 has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

TILE = 64


def write(
    path: Path,
    pixels: NDArray[np.uint8],
    series: str,
    number: int,
    *,
    mpp: float = 0.5,
    flavor: str = "VOLUME",
    container: str = "",
    modality: str = "SM",
    resampling: str = "NONE",
) -> Path:
    """One instance: `pixels` (height, width, 3) of whole tiles, the `number`th of its series."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{series}.{number}"
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, "1.2.3", "1.2.3.4"
    data.Modality, data.PatientID, data.ContainerIdentifier = modality, "", container
    data.ImageType = ["ORIGINAL" if number == 0 else "DERIVED", "PRIMARY", flavor, resampling]
    height, width = pixels.shape[:2]
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = width, height
    data.Columns = data.Rows = TILE
    data.NumberOfFrames = (width // TILE) * (height // TILE)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.DimensionOrganizationType, data.TotalPixelMatrixFocalPlanes, data.NumberOfOpticalPaths = "TILED_FULL", 1, 1
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PixelData = b"".join(frame.tobytes() for frame in _frames(pixels))
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def slide(
    names: Sequence[Path], pixels: NDArray[np.uint8], series: str, *, mpp: float = 0.5, container: str = ""
) -> None:
    """A series: level 0, levels half as large each, and last a thumbnail."""
    for number, path in enumerate(names[:-1]):
        at = 1 << number
        level = np.ascontiguousarray(pixels[::at, ::at])
        write(path, level, series, number, mpp=mpp * at, container=container)
    thumbnail = np.ascontiguousarray(pixels[:TILE, :TILE])
    write(names[-1], thumbnail, series, 99, mpp=mpp, flavor="THUMBNAIL", container=container)


def _frames(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for top in range(0, pixels.shape[0], TILE):
        for left in range(0, pixels.shape[1], TILE):
            yield np.ascontiguousarray(pixels[top : top + TILE, left : left + TILE])
