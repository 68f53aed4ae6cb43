"""One array of numbers, or list of texts, out of a MATLAB 5 file, and nothing else that such a file can hold.

It is a variable, or a field of a structure, as in `cells.points`.

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
CELL, STRUCT, CHAR = 1, 2, 4  # other classes
ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16-{}", 16: "utf-8", 17: "utf-16-{}"}
MOST_BYTES = 160_000_000  # 10^7 points
MOST_FIELDS = 1000


class NotNumbersError(ValueError):
    """The variable exists, but is not an array of real numbers."""


Parts = list[tuple[int, bytes]]  # of a variable: flags, shape, name, and what it holds


def array(data: bytes, variable: str) -> NDArray[np.float64] | None:
    """The variable; an empty array of any class as one without numbers; None where there is no such variable.

    Raises:
        NotNumbersError: the variable holds something else, or there is no such field.
        ValueError: not a MATLAB 5 file, or damaged.
    """
    order = _order(data)
    parts = _found(data, variable, order)
    return None if parts is None else _numbers(parts, variable, order)


def texts(data: bytes, variable: str) -> list[str] | None:
    """The texts of a cell array, or of the rows of a char array; None where the variable holds none.

    Raises:
        NotNumbersError: there is no such field.
        ValueError: not a MATLAB 5 file, or damaged.
    """
    order = _order(data)
    parts = _found(data, variable, order)
    if not parts or _class(parts, order) not in (CELL, CHAR):
        return None
    if _class(parts, order) == CHAR:
        return _rows(parts, order)
    held = [_parts(body, order) for kind, body in parts[3:] if kind == MATRIX]
    if any(cell and _class(cell, order) != CHAR for cell in held):
        return None
    return ["".join(_rows(cell, order)) if cell else "" for cell in held]


def _found(data: bytes, variable: str, order: str) -> Parts | None:
    """The parts of a variable, or of the field of a structure."""
    top, *path = variable.split(".")
    for kind, body in _elements(data[HEAD:], order):
        if kind == COMPRESSED and _name(_unpacked(body, NAMED), order) == top:
            kind, body = next(_elements(_unpacked(body, MOST_BYTES + NAMED), order))
        elif kind != MATRIX:
            continue
        parts = _parts(body, order) if kind == MATRIX else []
        if not parts:
            raise ValueError("a variable without a head")
        if parts[2][1].decode("latin-1") == top:
            for field in path:
                parts = _field(parts, field, order)
            return parts
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


def _parts(body: bytes, order: str) -> Parts:
    """The parts of a matrix; none of an empty field or cell."""
    parts = list(_elements(body, order))
    if parts and (len(parts) < 3 or len(parts[0][1]) < 8):
        raise ValueError("a variable without a head")
    return parts


def _class(parts: Parts, order: str) -> int:
    return int(struct.unpack_from(f"{order}I", parts[0][1])[0] & 0xFF)


def _shape(parts: Parts, order: str) -> tuple[int, ...]:
    return tuple(np.frombuffer(parts[1][1], f"{order}i4").tolist())


def _fields(parts: Parts, order: str) -> list[str]:
    """The names of the fields of a structure."""
    length, text = int(np.frombuffer(parts[3][1][:4], f"{order}i4").sum()), parts[4][1]
    if length <= 0 or len(text) > MOST_FIELDS * length:
        raise ValueError("a structure without names of fields, or with too many")
    return [text[at : at + length].split(b"\0")[0].decode("latin-1") for at in range(0, len(text), length)]


def _field(parts: Parts, field: str, order: str) -> Parts:
    """The parts of a field of a single structure; none if it is empty."""
    if not parts or _class(parts, order) != STRUCT or math.prod(_shape(parts, order)) != 1 or len(parts) < 5:
        raise NotNumbersError(f"no single structure with a field {field!r}")
    known = _fields(parts, order)
    if field not in known or len(parts) < 5 + len(known):
        raise NotNumbersError(f"a structure with the fields {', '.join(known)}")
    return _parts(parts[5 + known.index(field)][1], order)


def _numbers(parts: Parts, variable: str, order: str) -> NDArray[np.float64]:
    if not parts:
        return np.zeros((0, 0))
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    shape = _shape(parts, order)
    if math.prod(shape) == 0:
        return np.zeros((0, 0))
    if _class(parts, order) == STRUCT and math.prod(shape) == 1 and len(parts) > 4:
        fields = [f"{variable}.{name}" for name in _fields(parts, order)[:5]]
        raise NotNumbersError(f"a structure: {', '.join(fields)}")
    if min(shape) < 0 or flags & 0xFF not in NUMERIC or flags & 0x0800 or len(parts) < 4 or parts[3][0] not in NUMBERS:
        raise NotNumbersError(f"no array of real numbers, {' x '.join(map(str, shape))}")
    values = np.frombuffer(parts[3][1], f"{order}{NUMBERS[parts[3][0]]}")
    if len(values) != math.prod(shape):
        raise ValueError(f"{len(values)} numbers in {shape}")
    return values.astype(np.float64).reshape(shape, order="F")


def _rows(parts: Parts, order: str) -> list[str]:
    """The rows of a char array, without the blanks that fill them up."""
    shape = _shape(parts, order)
    if len(shape) != 2 or math.prod(shape) == 0 or len(parts) < 4:
        return [""] * (shape[0] if len(shape) == 2 else 0)
    kind, body = parts[3]
    if kind not in ENCODINGS:
        raise ValueError(f"text of type {kind}")
    text = body.decode(ENCODINGS[kind].format("le" if order == "<" else "be"))
    if len(text) != math.prod(shape):
        raise ValueError(f"{len(text)} characters in {shape}")
    return ["".join(row).strip() for row in np.array(list(text)).reshape(shape, order="F").tolist()]
