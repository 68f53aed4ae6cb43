"""One array of numbers, or list of texts, out of a MATLAB 7.3 file, which is an HDF5 file behind 512 bytes of text.

MATLAB stores columns one after the other, HDF5 rows: every array is stored with its axes in the other order. What a
variable is stands in its attribute MATLAB_class; an empty one has the attribute MATLAB_empty, and its size as values.
"""

from __future__ import annotations

import io
import math

import h5py
import numpy as np
from numpy.typing import NDArray

from dpconvert.annotations.parsing.matlab import MOST_BYTES, NotNumbersError

START = b"\x89HDF\r\n\x1a\n"
NUMBERS = "biuf"  # kinds of NumPy's types
DAMAGED = (OSError, KeyError, RuntimeError, TypeError, ValueError)


def is_hdf5(data: bytes) -> bool:
    """Whether a MATLAB file is one of 7.3."""
    return data.startswith(START) or data[512:520] == START


def array(data: bytes, variable: str) -> NDArray[np.float64] | None:
    """The variable, or the field of a structure (`cells.points`); an empty array of any class as one without numbers;
    None where there is none.

    Raises:
        NotNumbersError: the variable holds something else.
        ValueError: damaged.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            found = _found(file, variable)
            return None if found is None else _array(found)
    except NotNumbersError:
        raise
    except DAMAGED as error:
        raise ValueError(str(error)) from None


def texts(data: bytes, variable: str) -> list[str] | None:
    """The texts of a cell array, or of the rows of a char array; None where the variable holds none.

    Raises:
        ValueError: damaged.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            found = _found(file, variable)
            if found is None or found.shape is None or found.external or found.is_virtual:
                return None
            if _class(found) == "char":
                return _rows(found)
            if _class(found) != "cell" or math.prod(found.shape) * 8 > MOST_BYTES:
                return None
            cells = [file[reference] for reference in found[()].reshape(-1)]
            if not all(isinstance(cell, h5py.Dataset) and _is_text(cell) for cell in cells):
                return None
            return ["".join(_rows(cell)) for cell in cells]
    except DAMAGED as error:
        raise ValueError(str(error)) from None


def names(data: bytes) -> list[str]:
    """The names of the variables that lie in the file itself, and of fields of structures, in their order.

    Raises:
        ValueError: damaged.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            own = [key for key in file if not key.startswith("#") and _is_own(file, key)]
            fields = {key: [f"{key}.{one}" for one in file[key]] for key in own if isinstance(file[key], h5py.Group)}
            return [name for key in own for name in fields.get(key, [key])]
    except DAMAGED as error:
        raise ValueError(str(error)) from None


def _is_own(group: h5py.Group, key: str) -> bool:
    return isinstance(group.get(key, getlink=True), h5py.HardLink)


def _found(file: h5py.File, variable: str) -> h5py.Dataset | None:
    at = file
    for part in variable.split("."):
        if not isinstance(at, h5py.Group) or part.startswith("#") or not _is_own(at, part):
            return None
        at = at[part]
    return at if isinstance(at, h5py.Dataset) else None


def _class(found: h5py.Dataset) -> str:
    kind = found.attrs.get("MATLAB_class", b"double")
    return kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)


def _is_text(found: h5py.Dataset) -> bool:
    return _class(found) == "char" or bool(found.attrs.get("MATLAB_empty", 0))


def _rows(found: h5py.Dataset) -> list[str]:
    """The rows of a char array, without the blanks that fill them up."""
    if found.attrs.get("MATLAB_empty", 0):
        return []
    if found.dtype.kind not in "ui" or len(found.shape) != 2 or found.external or found.is_virtual:
        raise ValueError("a text that is not an array of characters")
    return ["".join(map(chr, row)).strip() for row in found[()].T.tolist()]


def _array(found: h5py.Dataset) -> NDArray[np.float64]:
    if found.attrs.get("MATLAB_empty", 0) or found.shape is None or math.prod(found.shape) == 0:
        return np.zeros((0, 0))
    text = _class(found)
    if found.dtype.kind not in NUMBERS or text in ("char", "cell", "struct") or found.external or found.is_virtual:
        raise NotNumbersError(f"no array of real numbers ({text}), {' x '.join(map(str, found.shape[::-1]))}")
    if math.prod(found.shape) * 8 > MOST_BYTES:
        raise NotNumbersError(f"{' x '.join(map(str, found.shape[::-1]))} numbers, too many")
    return np.ascontiguousarray(np.asarray(found[()], np.float64).T)
