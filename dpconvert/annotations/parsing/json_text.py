"""JSON of a known form: checked while it is read, so that no depth, type or number gets further than here."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dpconvert.annotations.parsing.units import Unit, check_stated, of_members
from dpconvert.annotations.parsing.xml_tree import FARTHEST
from dpconvert.errors import ReadError
from dpconvert.validation_errors import first_fault

MOST_NUMBERS = 20_000_000  # 10^7 vertices
MOST_OBJECTS = 1_500_000  # that are held together; each takes about 600 bytes
DEEPEST = 4  # lists and collections inside each other
BLANKS = re.compile(r"[ \t\r\n\x1e]*")  # the last one begins a record of RFC 8142
DECODER = json.JSONDecoder()
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


def each(data: bytes, name: str, adapter: TypeAdapter[T], key: str, unit: Unit = "") -> Iterator[T]:
    """The elements of a file one by one, so that never all of them are held.

    A list gives its elements, an object the elements of its own list at `key` (of no deeper one), else itself. A file
    may hold several values, one after another: JSON lines, or RFC 8142 text sequences.

    unit: what the layout states of coordinates, "" for pixels.

    Raises:
        ReadError: as `parsed`, when it gets there; anything but another value after a value; an object that states
            another unit beside its list.
    """
    _check_size(data, name)
    try:
        for element in _values(data.decode("utf-8-sig"), _Wanted(key, name, unit)):
            yield adapter.validate_python(element)
    except ValidationError as error:
        raise _refusal(error, name) from None
    except (ValueError, RecursionError) as error:
        raise ReadError(f"not JSON: {error}", where=name) from None


@dataclass(frozen=True)
class _Wanted:
    """What is read of a file: the lists at this key, in coordinates of this unit."""

    key: str
    name: str
    unit: Unit


Elements = Generator[Any, None, int]  # gives elements, returns where the text continues


def _values(text: str, wanted: _Wanted) -> Iterator[Any]:
    at = _past_blanks(text, 0)
    while True:
        at = _past_blanks(text, (yield from _value(text, at, wanted, 0)))
        if at == len(text):
            return
        if not text.startswith(("{", "["), at):
            raise json.JSONDecodeError("Text that is not JSON after its end", text, at)


def _value(text: str, at: int, wanted: _Wanted, depth: int) -> Elements:
    if text.startswith("[", at) and depth < DEEPEST:
        return (yield from _list(text, at + 1, wanted, depth + 1))
    if text.startswith("{", at) and depth < DEEPEST:
        return (yield from _object(text, at + 1, wanted, depth + 1))
    element, at = DECODER.raw_decode(text, at)
    yield element
    return at


def _list(text: str, at: int, wanted: _Wanted, depth: int) -> Elements:
    at = _past_blanks(text, at)
    if text.startswith("]", at):
        return at + 1
    while True:
        at = _past_blanks(text, (yield from _value(text, at, wanted, depth)))
        if text.startswith("]", at):
            return at + 1
        at = _past(",", text, at)


def _object(text: str, at: int, wanted: _Wanted, depth: int) -> Elements:
    """The elements of its list at the wanted key, or the object itself where it has none."""
    members: dict[str, Any] = {}
    listed, at = False, _past_blanks(text, at)
    while not text.startswith("}", at):
        at = _past(",", text, at) if members or listed else at
        member, at = _name(text, at)
        at = _past(":", text, _past_blanks(text, at))
        if member == wanted.key and text.startswith("[", at):
            listed, at = True, (yield from _list(text, at + 1, wanted, depth))
        else:
            members[member], at = DECODER.raw_decode(text, at)
        at = _past_blanks(text, at)
    if wanted.key in members:
        raise json.JSONDecodeError(f"{wanted.key!r} does not hold a list", text, at)
    if not listed:
        yield members
    else:
        check_stated(of_members(members), wanted.name, wanted.unit)
    return at + 1


def _name(text: str, at: int) -> tuple[str, int]:
    if not text.startswith('"', at):
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
    member, at = DECODER.raw_decode(text, at)
    return str(member), at


def _past_blanks(text: str, at: int) -> int:
    return BLANKS.match(text, at).end()  # type: ignore[union-attr]


def _past(mark: str, text: str, at: int) -> int:
    if not text.startswith(mark, at):
        raise json.JSONDecodeError(f"Expecting {mark!r}", text, at)
    return _past_blanks(text, at + 1)


def _check_size(data: bytes, name: str) -> None:
    if data.count(b",") > MOST_NUMBERS:
        raise ReadError("too much JSON", where=name, expected=f"at most {MOST_NUMBERS} values")


def _refusal(error: ValidationError, name: str) -> ReadError:
    """The first fault, in words."""
    fault = first_fault(error)
    what = f"{fault.place[:80]}: {fault.what}" if fault.place else fault.what
    return ReadError(what, where=name, found=fault.found if fault.place else None)
