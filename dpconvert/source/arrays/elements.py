"""Read images stored in arrays or tables of a file, by names such as `train_x.h5/x/17`.

The name of an element consists of its file, the array or column in it (absent for .npy), and its number from 0. If
each file holds a single image (`axes = "HWC"` in the manifest), its number is 0.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.errors import ReadError
from dpconvert.image import Flat, Image
from dpconvert.image.rgb import KindError, check_bits, to_rgb
from dpconvert.source import cache
from dpconvert.source.arrays.columns import Columns
from dpconvert.source.arrays.stacks import DAMAGED, Array, Stacks
from dpconvert.source.bounded import most_unpacked

if TYPE_CHECKING:
    from dpconvert.source.files import Source

ARRAYS = re.compile(r"(?i)\.(h5|hdf5?|npy|npz)(\.gz)?$")
ELEMENT = re.compile(r"(?i)^(?P<file>.+?\.(?:(?:h5|hdf5?|npy|npz)(?:\.gz)?|parquet))/(?:(?P<key>.+)/)?(?P<number>\d+)$")
CHANNELS = (1, 3, 4)
MOST_SAMPLES = 12  # a pixel


class Element(NamedTuple):
    """The image `number` of the array `key` of a file."""

    file: str
    key: str
    number: int

    @property
    def encoded(self) -> bool:
        """Whether the element holds the bytes of an image file, not an array of samples."""
        return self.file.lower().endswith(".parquet")

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.file, self.key, str(self.number))))


def element(name: str, files: Container[str]) -> Element | None:
    """Return the element of this name if its file is one of `files`."""
    found = ELEMENT.match(name)
    if found is None or name in files or found["file"] not in files:
        return None
    return Element(found["file"], found["key"] or "", int(found["number"]))


def stacks(source: Source, file: str) -> Stacks:
    """Return the arrays of a file of the source. A packed file is unpacked into the cache, and a note reports it.

    Raises:
        ReadError: the file cannot be unpacked.
        OutputError: the cache cannot be written.
    """

    def unpack(path: Path, member: str) -> Path:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            size = archive.getinfo(member).file_size
            _note(source, f"{file}/{member}")
            return cache.unpacked(
                source.root, path, f"{file}/{member}", "", lambda to: cache.copied(stream, to, size, file), size
            )

    return Stacks(on_disk(source, file), file, unpack)


def columns(source: Source, file: str) -> Columns:
    """Return the columns of a Parquet file of the source. Images are copied into the cache, and a note reports it.

    Raises:
        ReadError: the file is damaged.
        OutputError: the cache cannot be written.
    """
    path = on_disk(source, file)

    def unpack(column: str, write: Callable[[Path], None]) -> Path:
        _note(source, file)
        return cache.unpacked(source.root, path, f"{file}/{column}", ".arrow", write, path.stat().st_size)

    return Columns(path, file, unpack)


def on_disk(source: Source, file: str) -> Path:
    """Return a file that can be read piece by piece: the file of the source, or its unpacked copy in the cache."""
    lies = source.lies(file)
    if not lies.packed and not file.lower().endswith(".gz"):
        return source.root / lies.file
    original = source.root / lies.file
    _note(source, file)

    def write(path: Path) -> None:
        try:
            with source.stream(file) as stream:
                if file.lower().endswith(".gz"):
                    with gzip.open(stream) as inner:
                        cache.copied(inner, path, most_unpacked(source.sizes[file]), file)  # type: ignore[arg-type]
                else:
                    cache.copied(stream, path, source.sizes[file], file)
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, NotImplementedError) as error:
            raise ReadError(f"cannot be unpacked: {error}", where=file, remedy="fetch it again") from None

    return cache.unpacked(source.root, original, file, "", write, source.sizes[file])


def _note(source: Source, file: str) -> None:
    if (note := cache.copy_note(file)) not in source.notes:
        source.notes.append(note)


def image(
    samples: NDArray[Any], name: str, axes: str, channels: Sequence[int], scale: tuple[float, float] | None
) -> Image:
    """Return the samples of an element as an image.

    axes: their "HWC", "CHW" or "HW"; '' to infer them from the shape. channels: the channels of the image, by their
    indexes from 0; empty for all.

    Raises:
        ReadError: the element is not an image, or the sample values of black and white are unknown.
    """
    try:
        samples = channels_last(samples, axes, name, channels)
        check_bits(samples, scale=scale)
        alpha = samples.shape[-1] == 4
        return Flat(to_rgb(samples, opacity="unassociated" if alpha else "", scale=scale))
    except KindError as error:
        raise ReadError(str(error), where=name, remedy=error.remedy) from None


def single(source: Source, found: Element) -> NDArray[Any]:
    """Return the array of a file that holds a single image. A packed .npy is not copied into the cache.

    Raises:
        ReadError: the array is too large for an image, or damaged.
    """
    name = found.file
    try:
        if source.lies(name).packed and name.lower().endswith(".npy"):
            _check_size((source.sizes[name],), name)
            return np.asarray(np.load(io.BytesIO(source.read(name)), allow_pickle=False))
        array = source.stacks(name).array(found.key)
        _check_size(array.shape, name)
        return np.asarray(array[...])
    except DAMAGED as error:
        raise ReadError(f"cannot be read as an array: {error}", where=name, remedy="fetch it again") from None


def one(found: Element, array: Array) -> NDArray[Any]:
    """Return the samples of an element.

    Raises:
        ReadError: there is no element of this number, it is too large, or its part of the file is damaged.
    """
    if not array.shape or found.number >= array.shape[0]:
        raise ReadError("no image of this number", where=found.name, found=f"{array.shape[:1]} images")
    _check_size(array.shape[1:], found.name)
    try:
        return np.asarray(array[found.number])
    except DAMAGED as error:
        raise ReadError(f"damaged: {error}", where=found.name, remedy="fetch it again") from None


def _check_size(shape: tuple[int, ...], name: str) -> None:
    if int(np.prod(shape, dtype=np.int64)) > MOST_SAMPLES * (Pillow.MAX_IMAGE_PIXELS or 1):
        raise ReadError("too large for a flat image", where=name, found=f"{shape}")


def channels_last(samples: NDArray[Any], axes: str, name: str, channels: Sequence[int] = ()) -> NDArray[Any]:
    """Return the samples (height, width, channels) of an element, whatever the axis of its channels."""
    shape = samples.shape
    if channels and axes in ("HWC", "CHW") and samples.ndim == 3:
        return _chosen(samples if axes == "HWC" else np.moveaxis(samples, 0, 2), name, channels)
    if samples.ndim == 2 and axes in ("", "HW"):
        return samples[:, :, None]
    last, first = shape[-1] in CHANNELS and samples.ndim == 3, shape[0] in CHANNELS and samples.ndim == 3
    if last and (axes == "HWC" or (axes == "" and not first)):
        return samples
    if first and (axes == "CHW" or (axes == "" and not last)):
        return np.moveaxis(samples, 0, 2)
    raise ReadError(
        "no image: which of its axes are channels is not clear" if axes == "" else f"no image with axes {axes}",
        where=name,
        found=" x ".join(map(str, shape)),
        expected="1, 3 or 4 channels, first or last",
        remedy='say `axes = "NHWC"`, "NCHW" or "NHW" in the manifest\'s [layout]',
    )


def _chosen(samples: NDArray[Any], name: str, channels: Sequence[int]) -> NDArray[Any]:
    if min(channels) < 0 or max(channels) >= samples.shape[2]:
        raise ReadError(
            "no image: it lacks a channel that `channels` in [layout] names",
            where=name,
            expected=f"more than {max(channels)} channels",
            found=" x ".join(map(str, samples.shape)),
        )
    return samples[:, :, list(channels)]
