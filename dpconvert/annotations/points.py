"""Points: delimited text, MATLAB files, and the format of the Graz bone-marrow set."""

from __future__ import annotations

import math

import numpy as np
import shapely

from dpconvert.annotations.geometry import Annotation
from dpconvert.annotations.parsing import matlab
from dpconvert.annotations.parsing.lines import lines
from dpconvert.errors import ReadError

LIMIT = 1e9


def read_text(
    data: bytes, name: str, columns: list[str], *, delimiter: str | None = None, skip: int = 0, label: str = ""
) -> list[Annotation]:
    """One point a line; `columns` names what stands where: x, y, label, or anything else to pass over.

    delimiter: None for blanks. skip: lines of head. label: of points without a column for it.

    Raises:
        ReadError: a line that does not hold two finite numbers where they should be.
    """
    x, y = columns.index("x"), columns.index("y")
    named = columns.index("label") if "label" in columns else None
    points = []
    for number, line in enumerate(lines(data, name), start=1):
        cells = [cell.strip() for cell in line.split(delimiter)]
        if number <= skip or not any(cells):
            continue
        if len(cells) <= max(x, y, named or 0):
            raise ReadError(f"line {number} has {len(cells)} columns", where=name, expected=", ".join(columns))
        at = _number(cells[x], name, number), _number(cells[y], name, number)
        points.append(Annotation(shapely.Point(at), cells[named] if named is not None else label, str(number)))
    return points


def read_mat(data: bytes, name: str, variable: str, label: str) -> list[Annotation]:
    """An N x 2 array of x, y in a MATLAB 5 file; an empty one of any type and shape means no point.

    Raises:
        ReadError: not such a file, or no such array of numbers in it.
    """
    try:
        values = matlab.array(data, variable)
    except matlab.NotNumbersError as error:
        raise ReadError(f"{variable!r} is no table of points", where=name, expected="N x 2", found=error) from None
    except ValueError as error:
        raise ReadError(f"not a readable MATLAB file: {error}", where=name) from None
    if values is None:
        raise ReadError(f"no variable {variable!r}", where=name)
    if values.size == 0:
        return []
    if values.ndim != 2 or values.shape[1] != 2 or not np.isfinite(values).all():
        raise ReadError(f"{variable!r} is no table of points", where=name, expected="N x 2", found=f"{values.shape}")
    return [Annotation(shapely.Point(x, y), label, str(i)) for i, (x, y) in enumerate(values.tolist())]


def _number(text: str, name: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < LIMIT:
        raise ReadError(f"line {line}: no coordinate", where=name, found=repr(text)[:40])
    return value
