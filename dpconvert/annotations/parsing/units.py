"""Coordinates in a unit of length, recognized by the names of columns and keys, and by the unit that a file states."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

from dpconvert.errors import ReadError

Unit = Literal["", "px", "um", "mm", "nm"]
MICROMETRES: Mapping[Unit, float] = {"um": 1.0, "mm": 1e3, "nm": 1e-3}
WORD = re.compile(r"[µμ]m|[A-Z]+(?![a-zµμ])|[A-Z]?[a-z]+")  # "xMicrons" and "Xµm" are two words
LENGTH = re.compile(r"[xy]?([µμunmc]m|microns?|(micro|nano|milli|centi)met(er|re)s?|inch(es)?)")
STATED = re.compile(r"(coord\w*|x|y|xy|length|spatial|pos\w*)?[\W_]*units?([\W_]*(of[\W_]*)?(coord\w*|length|x|y|xy))?")
PIXELS = 'say `unit = "um"` in the manifest\'s [layout], or export them in pixels'
OF_A_PROGRAM = "export them in pixels of the image, or divide them by its micrometres per pixel"


def is_length(text: str) -> bool:
    """Whether a name or a statement says that numbers are lengths, as "Centroid X µm", "x_um" and "Microns" do."""
    words = WORD.findall(text.replace("Â", "").replace("Î¼", "μ"))  # UTF-8 that was read as Latin-1
    return any(LENGTH.fullmatch(word.casefold()) for word in words)


def check_names(columns: Iterable[str], name: str) -> None:
    """Refuse coordinates that are not in pixels, by the names of their columns or keys.

    Raises:
        ReadError: a column is called after a length.
    """
    for column in columns:
        if is_length(column):
            raise in_lengths(column, name, PIXELS)


def check_stated(members: Iterable[tuple[str, Any]], name: str, remedy: str = PIXELS) -> None:
    """Refuse a file, or a row of one, that states a unit of length for its coordinates; members: keys and values.

    Raises:
        ReadError: a member such as `unit` or `coordinate_unit` holds one.
    """
    for key, value in members:
        if isinstance(value, str) and is_of_unit(key) and is_length(value):
            raise in_lengths(f"{key}: {value}", name, remedy)


@lru_cache(1 << 10)
def is_of_unit(key: str) -> bool:
    """Whether a column or key of this name states the unit of coordinates."""
    return STATED.fullmatch(key.strip().casefold()) is not None


def in_lengths(found: str, name: str, remedy: str) -> ReadError:
    """Return the error for coordinates that are lengths."""
    return ReadError(
        "coordinates in a unit of length, not in pixels",
        where=name,
        found=repr(found)[:60],
        expected="x and y in pixels of the image, from its top left corner",
        remedy=remedy,
    )
