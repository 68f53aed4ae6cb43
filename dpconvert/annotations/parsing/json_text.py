"""JSON of a known form: checked while it is read, so that no depth, type or number gets further than here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dpconvert.annotations.parsing.xml_tree import FARTHEST
from dpconvert.errors import ReadError
from dpconvert.validation import first_fault

MOST_NUMBERS = 20_000_000  # 10^7 vertices
MOST_OBJECTS = 1_500_000  # that are held together; each takes about 600 bytes
BETWEEN = re.compile(r"[\s,]*")
T = TypeVar("T")

Coordinate = Annotated[float, Field(gt=-FARTHEST, lt=FARTHEST, allow_inf_nan=False)]


class Loose(BaseModel):
    """An object of which only these fields count."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def parsed(data: bytes, name: str, adapter: TypeAdapter[T]) -> T:
    """The content as the adapter's type.

    Raises:
        ReadError: not JSON, not of that form, or with more numbers than can be held; names the first fault.
    """
    _check_size(data, name)
    if data.count(b"{") > MOST_OBJECTS:
        raise ReadError("too much JSON", where=name, expected=f"at most {MOST_OBJECTS} objects")
    try:
        return adapter.validate_json(data.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        raise _refusal(error, name) from None


def each(data: bytes, name: str, adapter: TypeAdapter[T], key: str = "") -> Iterator[T]:
    """The elements of a list one by one, so that never all of them are held: of the whole, or of the list at `key`.

    Without `key`, what is not a list is its own only element.

    Raises:
        ReadError: as `parsed`, when it gets there.
    """
    _check_size(data, name)
    try:
        for element in _elements(data.decode("utf-8-sig"), key):
            yield adapter.validate_python(element)
    except ValidationError as error:
        raise _refusal(error, name) from None
    except (ValueError, RecursionError) as error:
        raise ReadError(f"not JSON: {error}", where=name) from None


def _elements(text: str, key: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    found = re.search(rf'"{key}"\s*:\s*\[' if key else r"^\s*\[", text)
    if found is None:
        yield decoder.raw_decode(text, BETWEEN.match(text).end())[0]  # type: ignore[union-attr]
        return
    at = found.end()
    while True:
        at = BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if text.startswith("]", at):
            return
        element, at = decoder.raw_decode(text, at)
        yield element


def _check_size(data: bytes, name: str) -> None:
    if data.count(b",") > MOST_NUMBERS:
        raise ReadError("too much JSON", where=name, expected=f"at most {MOST_NUMBERS} values")


def _refusal(error: ValidationError, name: str) -> ReadError:
    """The first fault, in words."""
    fault = first_fault(error)
    what = f"{fault.place[:80]}: {fault.what}" if fault.place else fault.what
    return ReadError(what, where=name, found=fault.found if fault.place else None)
