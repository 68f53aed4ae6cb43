"""Files that hold many images as one array: HDF5, NumPy's .npy and .npz. The arrays are read in slices.

An array is anything with `shape`, `dtype` and indexing: a dataset of h5py, or memory that NumPy maps from the file.
Formats: HDF5 File Format Specification 3.0; NumPy, numpy.lib.format.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py.h5z import filter_avail
from numpy.typing import NDArray

from dpconvert import names
from dpconvert.errors import ReadError

CHUNKS = 64 << 20  # bytes of an HDF5 file that are kept unpacked
MOST_NAMES = 1000
SMALL = 1 << 20  # bytes of an array of NumPy that is read for its texts
ZIP_HEAD = 30  # bytes before the name of a member
DAMAGED = (  # raised by h5py, NumPy and `zipfile` for damaged files (found by experiment)
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    TypeError,
    EOFError,
    SyntaxError,
    OverflowError,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
    struct.error,
)
INSTALL_FILTERS = (
    "`pip install hdf5plugin`, and set the variable HDF5_PLUGIN_PATH to what "
    "`python -c 'import hdf5plugin; print(hdf5plugin.PLUGIN_PATH)'` prints; or save the file again with gzip"
)
Array = Any  # h5py.Dataset | np.memmap


class Stacks:
    """The arrays of one file by name; the array of a .npy file has the empty name.

    Names are given in NFC, and found without regard to Unicode form, and to case where that leaves one.
    """

    def __init__(self, path: Path, name: str, unpack: Callable[[Path, str], Path]) -> None:
        self.path, self.name, self._unpack = path, name, unpack
        self._arrays: dict[str, Array] = {}
        self._file: h5py.File | None = None

    def names(self) -> dict[str, tuple[int, ...]]:
        """Return a mapping: name -> shape of every array.

        Raises:
            ReadError: the file is damaged or does not exist.
        """
        try:
            if self._is(".npy"):
                return {"": tuple(self.array("").shape)}
            if self._is(".npz"):
                with zipfile.ZipFile(self.path) as archive:
                    keys = [key.removesuffix(".npy") for key in archive.namelist() if key.endswith(".npy")]
                return {names.nfc(key): tuple(self.array(key).shape) for key in keys[:MOST_NAMES]}
            return _datasets(self._hdf5())
        except DAMAGED as error:
            raise self._damaged(error) from None

    def texts(self, count: int) -> dict[str, list[Any]]:
        """Return the arrays of `count` texts, such as the names of classes; arrays that cannot be read are ignored."""
        found = {}
        for key, read in self._small(count):
            with suppress(ReadError, *DAMAGED):
                array = read()
                if array.dtype.kind in "SUO" and array.size == count:
                    found[names.nfc(key)] = np.asarray(array[...]).reshape(-1).tolist()
        return found

    def _small(self, count: int) -> Iterator[tuple[str, Callable[[], Array]]]:
        """Yield the name of each array that may be of `count` texts, and how to read it; nothing for a damaged file."""
        with suppress(ReadError, *DAMAGED):
            if self._is(".npz"):  # not by `array`, which unpacks a packed one into the cache
                with zipfile.ZipFile(self.path) as archive:
                    for member in archive.infolist():
                        if member.filename.endswith(".npy") and member.file_size <= SMALL:
                            data = io.BytesIO(archive.read(member))
                            yield member.filename.removesuffix(".npy"), partial(np.load, data, allow_pickle=False)
            elif not self._is(".npy"):
                for key, shape in self.names().items():
                    if math.prod(shape) == count:
                        yield key, partial(self.array, key)

    def listed(self) -> str:
        """Return the names and shapes of the first arrays, for messages."""
        shapes = list(self.names().items())[:10]
        return ", ".join(f"{name} ({' x '.join(map(str, shape))})".strip() for name, shape in shapes)

    def array(self, key: str) -> Array:
        """Return one array.

        Raises:
            ReadError: the file is damaged, or the array does not exist or holds Python objects.
        """
        if key not in self._arrays:
            try:
                self._arrays[key] = self._opened(key)
            except DAMAGED as error:
                raise self._damaged(error) from None
        return self._arrays[key]

    def _is(self, suffix: str) -> bool:
        return self.name.lower().removesuffix(".gz").endswith(suffix)

    def _opened(self, key: str) -> Array:
        if self._is(".npy"):
            return _mapped(self.path, self.name)
        if self._is(".npz"):
            return self._member(key)
        found = _dataset(self._hdf5(), key)
        if found is None and key in self._hdf5():
            raise ReadError(
                "a data set that is kept in other files (a link, or a virtual data set)",
                where=f"{self.name}/{key}",
                remedy="copy it into one file: such files are not opened",
            )
        if found is None:
            raise ReadError(f"no data set {key!r}", where=self.name, found=self.listed() or None)
        if filters := _missing_filters(found):
            raise ReadError(
                "compressed by a filter of HDF5 that is not installed",
                where=f"{self.name}/{key}",
                found=", ".join(filters),
                remedy=INSTALL_FILTERS,
            )
        return found

    def _hdf5(self) -> h5py.File:
        if self._file is None:
            self._file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=CHUNKS)
        return self._file

    def _member(self, key: str) -> Array:
        with zipfile.ZipFile(self.path) as archive:
            known = {name.removesuffix(".npy"): name for name in archive.namelist()}
            named = names.match(key, known)
            if named is None:
                raise ReadError(f"no array {key!r}", where=self.name, found=", ".join(list(known)[:10]) or None)
            member = archive.getinfo(known[named])
        if member.compress_type != zipfile.ZIP_STORED:
            return _mapped(self._unpack(self.path, known[named]), f"{self.name}/{key}")
        with self.path.open("rb") as file:
            file.seek(member.header_offset)
            name, extra = struct.unpack("<HH", file.read(ZIP_HEAD)[26:])
        return _mapped(self.path, f"{self.name}/{key}", member.header_offset + ZIP_HEAD + name + extra)

    def _damaged(self, error: BaseException) -> ReadError:
        return ReadError(f"cannot be read as arrays: {error}", where=self.name, remedy="fetch it again")


def enumeration(array: Array) -> dict[int, str]:
    """Return the names of an array's numbers in their order, if it is of an enumerated type of HDF5; else nothing."""
    known = h5py.check_enum_dtype(array.dtype) or {}
    return dict(sorted((int(number), names.nfc(name)) for name, number in known.items()))


def _mapped(path: Path, name: str, offset: int = 0) -> NDArray[Any]:
    with path.open("rb") as file:
        file.seek(offset)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        start = file.tell()
    if min(shape, default=0) < 0:
        raise ValueError(f"a shape of {shape}")
    if dtype.hasobject:
        raise ReadError("an array of Python objects, which could run code", where=name, remedy="save it as numbers")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


def _dataset(file: h5py.File, key: str) -> h5py.Dataset | None:
    """Return a data set that lies in the file itself; links into other files are ignored."""
    at: Any = file
    for part in filter(None, key.split("/")):
        if not isinstance(at, h5py.Group):
            return None
        named = part if part in at else names.match(part, at)
        link = at.get(named, getlink=True) if named is not None else None
        if link is None or isinstance(link, h5py.ExternalLink):
            return None
        at = at.get(named)
    plain = isinstance(at, h5py.Dataset) and not at.is_virtual and at.external is None
    return at if plain else None


def _missing_filters(dataset: h5py.Dataset) -> list[str]:
    """Return the filters without which a data set cannot be read, and which this machine lacks."""
    kind = dataset.id.get_create_plist()
    used = [kind.get_filter(number) for number in range(kind.get_nfilters())]
    return [f"{name.decode('latin-1') or 'filter'} ({code})" for code, _, _, name in used if not filter_avail(code)]


def _datasets(file: h5py.File) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}

    def look(name: str | bytes, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.shape is not None and isinstance(name, str):  # bytes: no UTF-8
            found[names.nfc(name)] = tuple(item.shape)
        return True if len(found) >= MOST_NAMES else None

    file.visititems(look)
    return found
