"""One array of numbers out of a MATLAB 7.3 file, which is an HDF5 file behind 512 bytes of text.

MATLAB stores columns one after the other, HDF5 rows: every array is there with its axes in the other order. What a
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
    """The variable; an empty array of any class as one without numbers; None where there is no such variable.

    Raises:
        NotNumbersError: the variable holds something else.
        ValueError: damaged.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            if variable not in names(data):
                return None
            return _array(file[variable])
    except NotNumbersError:
        raise
    except DAMAGED as error:
        raise ValueError(str(error)) from None


def names(data: bytes) -> list[str]:
    """The names of the variables that lie in the file itself, in their order.

    Raises:
        ValueError: damaged.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            own = [key for key in file if isinstance(file.get(key, getlink=True), h5py.HardLink)]
            return [key for key in own if not key.startswith("#") and isinstance(file[key], h5py.Dataset)]
    except DAMAGED as error:
        raise ValueError(str(error)) from None


def _array(found: h5py.Dataset) -> NDArray[np.float64]:
    if found.attrs.get("MATLAB_empty", 0) or found.shape is None or math.prod(found.shape) == 0:
        return np.zeros((0, 0))
    kind = found.attrs.get("MATLAB_class", b"double")
    text = kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)
    if found.dtype.kind not in NUMBERS or text in ("char", "cell", "struct") or found.external or found.is_virtual:
        raise NotNumbersError(f"no array of real numbers ({text}), {' x '.join(map(str, found.shape[::-1]))}")
    if math.prod(found.shape) * 8 > MOST_BYTES:
        raise NotNumbersError(f"{' x '.join(map(str, found.shape[::-1]))} numbers, too many")
    return np.ascontiguousarray(np.asarray(found[()], np.float64).T)
