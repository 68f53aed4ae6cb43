"""Points in JSON and in MATLAB files, in the form of `points`.

JSON: a list of [x, y, ...] or of {"x": ..., "y": ..., "label": ...}, alone or as a member of an object; JSON lines of
the latter. For several images, each point names its image, or {"image": ..., "points": [...]} names that of a list, or
the keys of an object do. MATLAB: an array of one row per point, and a second one of labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import TypeAdapter

from dpconvert import names
from dpconvert.annotations.geometry import Annotation
from dpconvert.annotations.parsing import matlab, matlab73
from dpconvert.annotations.parsing.coordinates import LIMIT
from dpconvert.annotations.parsing.json_text import each, parsed
from dpconvert.annotations.parsing.units import check_names, check_stated
from dpconvert.annotations.point_boxes import EXTENT, place_of, with_boxes
from dpconvert.annotations.points import KEYS, NAMED, WIDEST, Form, PointRow, unnamed
from dpconvert.errors import ReadError

JSON: TypeAdapter[Any] = TypeAdapter(Any)
LINES = (".jsonl", ".ndjson")


def read_json(data: bytes, name: str, form: Form, variable: str = "") -> list[PointRow]:
    """The points of a file of JSON or JSON lines.

    variable: the member of an object that lists them, where there are several.

    Raises:
        ReadError: The content is not JSON, it lists no points, or a point lacks two finite numbers.
    """
    content = content_of(data, name)
    check_names([variable, *(form.names.get(axis, "") for axis in "xy")], name, form.unit)
    check_stated(content.items() if isinstance(content, dict) else (), name, form.unit)
    found = []
    for number, (image, element) in enumerate(_elements(content, form, name, variable), start=1):
        row = _row(number, element, form, name)
        found.append(replace(row, image=image) if image else row)
    return found


def content_of(data: bytes, name: str) -> Any:
    """The content of a file of JSON, or a list of the values of one of JSON lines.

    Raises:
        ReadError: The content is not JSON.
    """
    lines = name.lower().removesuffix(".gz").endswith(LINES)
    return list(each(data, name, JSON, "")) if lines else parsed(data, name, JSON)


def _elements(content: Any, form: Form, name: str, variable: str) -> Iterator[tuple[str, Any]]:
    """(image, '' where the element itself may name it; element) of every point."""
    if form.names.get("image") == KEYS:
        if not isinstance(content, dict):
            raise ReadError("no object whose keys name images", where=name, found=type(content).__name__)
        for image, of in content.items():
            yield from ((image, element) for element in _list(of, f"{name}, {image!r}", variable))
        return
    for element in _list(content, name, variable):
        if isinstance(element, dict):
            check_stated(element.items(), name, form.unit)
        keys = tuple(element) if form.of_all_images and isinstance(element, dict) else ()
        image, x = (_key(form.names.get(our, our), keys) for our in ("image", "x"))
        lists = [element[key] for key in keys if isinstance(element[key], list)]
        if image is not None and x is None and len(lists) == 1:
            yield from ((_text(element[image]), one) for one in lists[0])
        else:
            yield "", element


def read_mat(data: bytes, name: str, variable: str, label: str) -> list[Annotation]:
    """An N x 2 array of x, y in a MATLAB file; an empty one of any type and shape means no point.

    Raises:
        ReadError: The content is not such a file, or it holds no such array of numbers.
    """
    values = _array(data, name, variable)
    if values.size == 0:
        return []
    if values.ndim != 2 or values.shape[1] != 2 or not np.isfinite(values).all():
        raise ReadError(f"{variable!r} is not a table of points", where=name, expected="N x 2", found=f"{values.shape}")
    return [Annotation(shapely.Point(x, y), label, str(i)) for i, (x, y) in enumerate(values.tolist())]


def read_numbers(
    data: bytes, name: str, variable: str, fault: str = "no array of numbers", expected: str | None = None
) -> NDArray[np.float64]:
    """An array of numbers of any shape in a MATLAB file; `fault` and `expected` say what else it should have been.

    Raises:
        ReadError: The content is not such a file, or it holds no such array of numbers.
    """
    try:
        values = _variable(data, variable)
    except matlab.NotNumbersError as error:
        raise ReadError(fault, where=name, expected=expected, found=error) from None
    except ValueError as error:
        raise ReadError(f"not a readable MATLAB file: {error}", where=name) from None
    if values is None:
        raise ReadError(f"no variable {variable!r}", where=name, found=", ".join(_variables(data)[:5]) or None)
    return values


def read_mat_rows(data: bytes, name: str, form: Form, variable: str = "", label_variable: str = "") -> list[PointRow]:
    """The points of an array of numbers with one row per point; without `variable` of the only array that may be one.

    variable: may be a field of a structure, as `cells.points`. label_variable: as many numbers or texts.

    Raises:
        ReadError: The content is not a MATLAB file, or it holds no such array or several.
    """
    variable = variable or _only(data, name, label_variable)
    check_names([variable], name, form.unit)
    values = _array(data, name, variable)
    if values.size == 0:
        return []
    count = 3 if not form.label and not label_variable and values.shape[-1] > 2 else 2
    columns = with_boxes(form.columns, form.boxes, name) or NAMED[:count]
    where = {column: columns.index(column) for column in ("x", "y", *EXTENT, "label") if column in columns}
    fits = values.ndim == 2 and values.shape[1] > max(where.values()) and np.isfinite(values).all()
    if not fits or (not form.columns and values.shape[1] != len(columns)):
        found = " x ".join(map(str, values.shape))
        raise ReadError(
            "not a table of points",
            where=name,
            expected=f"one column for each of {', '.join(where)}",
            found=found,
            remedy="name the columns in their order, as `columns` in the manifest's [layout]",
        )
    labels = _labels(data, name, label_variable, len(values)) if label_variable else None
    return [
        PointRow(
            i,
            place_of({one: row[at] for one, at in where.items() if one != "label"}, form.boxes, name, f"row {i}"),
            labels[i - 1] if labels else _text(row[where["label"]]) if "label" in where else form.label,
        )
        for i, row in enumerate(values.tolist(), start=1)
    ]


def _list(content: Any, name: str, variable: str) -> list[Any]:
    if isinstance(content, list):
        return content
    members = content.items() if isinstance(content, dict) else ()
    lists = {key: value for key, value in members if isinstance(value, list)}
    if variable in lists:
        return lists[variable]
    if len(lists) == 1 and not variable:
        return next(iter(lists.values()))
    found = ", ".join(list(lists)[:5]) or "none"
    raise ReadError(
        f"no list {variable!r}" if variable else f"{len(lists)} lists that may be of points",
        where=name,
        expected='a list of [x, y] or of {"x": ..., "y": ...}',
        found=found,
        remedy="name it as `variable` in the manifest's [layout]; if the keys name images, state "
        f'names = {{image = "{KEYS}"}} there'
        if lists
        else None,
    )


def _row(number: int, element: Any, form: Form, name: str) -> PointRow:
    members = _members(element, form, name)
    try:
        numbers = {key: float(members[key]) for key in ("x", "y", *EXTENT) if key in ("x", "y") or key in members}
    except (KeyError, ValueError, TypeError, OverflowError):
        numbers = {"x": float("nan")}
    if not all(abs(value) < LIMIT for value in numbers.values()):
        raise ReadError(
            f"point {number}: no coordinates",
            where=name,
            found=repr(element)[:60],
            expected='[x, y], or {"x": ..., "y": ...} by the names in the manifest\'s `names`',
        )
    place = place_of(numbers, form.boxes, name, f"point {number}")
    return PointRow(number, place, _text(members.get("label", form.label)), _text(members.get("image", "")))


def _members(element: Any, form: Form, name: str) -> dict[str, Any]:
    if isinstance(element, dict):
        keys = tuple(element)
        wanted = ((our, _key(form.names.get(our, our), keys)) for our in NAMED)
        ours = {key: our for our, key in wanted if key is not None}
        called = [ours.get(key, f"({key})" if key in NAMED else key) for key in keys]
        return dict(zip(with_boxes(called, form.boxes, name), element.values(), strict=True))
    columns = with_boxes(form.columns, form.boxes, name) or NAMED[:WIDEST]
    if isinstance(element, list) and not form.columns and len(element) > WIDEST:
        raise unnamed(f"a point of {len(element)} values, which nothing names", name)
    return dict(zip(columns, element, strict=False)) if isinstance(element, list) else {}


@lru_cache(1 << 10)
def _key(wanted: str, keys: tuple[str, ...]) -> str | None:
    """Return the key of an element that has this name in another Unicode form or, where that leaves one, case."""
    return names.match(wanted, keys)


def _text(value: Any) -> str:
    """Return a label as text, with whole numbers written without a decimal point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _array(data: bytes, name: str, variable: str) -> NDArray[np.float64]:
    return read_numbers(data, name, variable, f"{variable!r} is not a table of points", "N x 2")


def _only(data: bytes, name: str, other: str) -> str:
    try:
        candidates = [variable for variable in _variables(data) if variable != other]
    except ValueError as error:
        raise ReadError(f"not a readable MATLAB file: {error}", where=name) from None
    if len(candidates) != 1:
        raise ReadError(
            f"{len(candidates)} variables",
            where=name,
            expected="one, of the points",
            found=", ".join(candidates[:5]),
            remedy="name it as `variable` in the manifest's [layout]",
        )
    return candidates[0]


def _labels(data: bytes, name: str, variable: str, count: int) -> list[str]:
    try:
        texts = matlab73.texts(data, variable) if matlab73.is_hdf5(data) else matlab.texts(data, variable)
    except ValueError as error:
        raise ReadError(f"not a readable MATLAB file: {error}", where=name) from None
    labels = _array(data, name, variable).reshape(-1) if texts is None else texts
    if len(labels) != count:
        raise ReadError(f"{len(labels)} labels of {count} points", where=name, found=variable)
    return texts if texts is not None else [_text(label) for label in labels]


def _variable(data: bytes, variable: str) -> NDArray[np.float64] | None:
    """A variable of a file of MATLAB 5 to 7.2, or of 7.3."""
    return matlab73.array(data, variable) if matlab73.is_hdf5(data) else matlab.array(data, variable)


def _variables(data: bytes) -> list[str]:
    return matlab73.names(data) if matlab73.is_hdf5(data) else matlab.names(data)
