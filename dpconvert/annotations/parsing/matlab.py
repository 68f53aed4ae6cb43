"""One array of numbers out of a MATLAB 5 file, and nothing else that such a file can hold.

SciPy's reader makes objects, structures and cells of any size, and dies of some damaged files (`tests/fuzz/seeds/mat`).
The format: MathWorks, MAT-File Format, 1999; every element is a type, a length and that many bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

HEAD, NAMED = 128, 4096  # bytes; of the file, and of a variable until after its name
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC = range(6, 16)  # classes, from double to uint64
MOST_BYTES = 160_000_000  # 10^7 points


class NotNumbersError(ValueError):
    """The variable is there, but no array of real numbers."""


def array(data: bytes, variable: str) -> NDArray[np.float64] | None:
    """The variable; an empty array of any class as one without numbers; None where there is no such variable.

    Raises:
        NotNumbersError: the variable holds something else.
        ValueError: not a MATLAB 5 file, or damaged.
    """
    order = _order(data)
    for kind, body in _elements(data[HEAD:], order):
        if kind == COMPRESSED:
            found = _matrix(_unpacked(body, NAMED), order, variable, whole=False)
            if found is None:
                continue
            kind, body = next(_elements(_unpacked(body, MOST_BYTES + NAMED), order))
            found = _matrix(struct.pack(f"{order}II", kind, len(body)) + body, order, variable)
        elif kind == MATRIX:
            found = _matrix(struct.pack(f"{order}II", kind, len(body)) + body, order, variable)
        else:
            continue
        if found is not None:
            return found
    return None


def names(data: bytes) -> list[str]:
    """The names of the variables, in their order.

    Raises:
        ValueError: not a MATLAB 5 file, or damaged.
    """
    order = _order(data)
    found = []
    for kind, body in _elements(data[HEAD:], order):
        if kind == COMPRESSED:
            found.append(_name(_unpacked(body, NAMED), order))
        elif kind == MATRIX:
            found.append(_name(struct.pack(f"{order}II", kind, len(body)) + body[:NAMED], order))
    return [name for name in found if name]


def _order(data: bytes) -> str:
    if len(data) < HEAD or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("no head of MATLAB 5")
    return "<" if data[126:128] == b"IM" else ">"


def _name(element: bytes, order: str) -> str:
    kind, body = next(_elements(element, order, cut=True), (0, b""))
    parts = list(_elements(body, order, cut=True)) if kind == MATRIX else []
    return parts[2][1].decode("latin-1") if len(parts) > 2 else ""


def _elements(data: bytes, order: str, *, cut: bool = False) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of each element; of up to four bytes they lie within the tag. cut: the last may be incomplete."""
    at = 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:
            kind, length, start, step = kind & 0xFFFF, kind >> 16, at + 4, 8
            if length > 4:
                raise ValueError("a short element of more than four bytes")
        else:
            start, step = at + 8, 8 + length + (-length % 8 if kind != COMPRESSED else 0)
        if start + length > len(data) and not cut:
            raise ValueError("it ends within an element")
        yield kind, data[start : start + length]
        at += step


def _unpacked(body: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, most)
    except zlib.error as error:
        raise ValueError(str(error)) from None


def _matrix(element: bytes, order: str, variable: str, *, whole: bool = True) -> NDArray[np.float64] | None:
    """The array of an element; None if it has another name. whole: else only the name is looked at."""
    kind, body = next(_elements(element, order, cut=not whole), (0, b""))
    parts = list(_elements(body, order, cut=not whole)) if kind == MATRIX else []
    if len(parts) < 3 or len(parts[0][1]) < 8:
        raise ValueError("a variable without a head")
    if parts[2][1].decode("latin-1") != variable:
        return None
    if not whole:
        return np.zeros((0, 0))
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    shape = tuple(np.frombuffer(parts[1][1], f"{order}i4").tolist())
    if math.prod(shape) == 0:
        return np.zeros((0, 0))
    if min(shape) < 0 or flags & 0xFF not in NUMERIC or flags & 0x0800 or len(parts) < 4 or parts[3][0] not in NUMBERS:
        raise NotNumbersError(f"no array of real numbers, {' x '.join(map(str, shape))}")
    values = np.frombuffer(parts[3][1], f"{order}{NUMBERS[parts[3][0]]}")
    if len(values) != math.prod(shape):
        raise ValueError(f"{len(values)} numbers in {shape}")
    return values.astype(np.float64).reshape(shape, order="F")
