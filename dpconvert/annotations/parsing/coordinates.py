"""Coordinates in text, with decimal points or commas."""

from __future__ import annotations

import math
import re

from dpconvert.errors import ReadError

LIMIT = 1e9
NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")


def decimal_mark(numbers: list[str], name: str) -> str:
    """Return "," where numbers are written with decimal commas, else ".".

    Raises:
        ReadError: commas that may be of thousands as well, or that are.
    """
    commas = [text for text in numbers if "," in text]
    if not commas:
        return "."
    if all(THOUSANDS.fullmatch(text) for text in commas):
        raise ReadError(
            "numbers with commas that may be decimal or of thousands",
            where=name,
            found=repr(commas[0]),
            remedy='say `decimal = ","` in the manifest\'s [layout], or write them without separators',
        )
    if any("." in text for text in numbers):
        raise ReadError(
            "numbers with decimal points and with commas",
            where=name,
            found=repr(commas[0]),
            remedy='say `decimal = ","` or `decimal = "."` in the manifest\'s [layout]',
        )
    return ","


def is_number(text: str) -> bool:
    """Whether a text is a number, with a decimal point or comma, or commas between thousands."""
    return (NUMBER.fullmatch(text) or THOUSANDS.fullmatch(text)) is not None


def coordinate(text: str, decimal: str, name: str, line: int) -> float:
    """Return a coordinate.

    Raises:
        ReadError: the text is not a finite number.
    """
    try:
        value = float(text if decimal == "." else text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not abs(value) < LIMIT:
        raise ReadError(
            f"line {line}: no coordinate",
            where=name,
            found=repr(text)[:40],
            remedy='if this is a header, say in [layout] what it calls x and y: names = {x = "...", y = "..."}'
            if line == 1
            else None,
        )
    return value
