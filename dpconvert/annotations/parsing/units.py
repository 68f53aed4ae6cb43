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
SPELT: Mapping[str, re.Pattern[str]] = {
    "um": re.compile(r"[xy]?([µμu]m|microns?|micromet(er|re)s?)"),
    "mm": re.compile(r"[xy]?(mm|millimet(er|re)s?)"),
    "nm": re.compile(r"[xy]?(nm|nanomet(er|re)s?)"),
    "px": re.compile(r"[xy]?(px|pixels?)"),
    "other": re.compile(r"[xy]?(cm|centimet(er|re)s?|inch(es)?)"),
}
STATED = re.compile(r"(coord\w*|x|y|xy|length|spatial|pos\w*)?[\W_]*units?([\W_]*(of[\W_]*)?(coord\w*|length|x|y|xy))?")
PIXELS = 'say `unit = "um"` in the manifest\'s [layout], or export them in pixels'
OF_A_PROGRAM = "export them in pixels of the image, or divide them by its micrometres per pixel"


def is_length(text: str) -> bool:
    """Whether a name or a statement says that numbers are lengths, as "Centroid X µm", "x_um" and "Microns" do."""
    return any(LENGTH.fullmatch(word.casefold()) for word in _words(text))


def _words(text: str) -> list[str]:
    return WORD.findall(text.replace("Â", "").replace("Î¼", "μ"))  # UTF-8 that was read as Latin-1


def check_names(columns: Iterable[str], name: str, unit: Unit = "") -> None:
    """Refuse coordinates in another unit than the layout states, by the names of their columns or keys.

    unit: of the layout; "" for pixels, "px" for pixels whatever a file says.

    Raises:
        ReadError: a column is called after another unit.
    """
    for column in columns:
        _check(column, column, name, unit, PIXELS)


def check_stated(members: Iterable[tuple[str, Any]], name: str, unit: Unit = "", remedy: str = PIXELS) -> None:
    """Refuse a file, or a row of one, that states another unit for its coordinates; members: keys and values.

    unit: as of `check_names`.

    Raises:
        ReadError: a member such as `unit` or `coordinate_unit` holds one.
    """
    for key, value in members:
        if isinstance(value, str) and is_of_unit(key):
            _check(value, f"{key}: {value}", name, unit, remedy)


def _check(text: str, found: str, name: str, unit: Unit, remedy: str) -> None:
    if not unit and is_length(text):
        raise in_lengths(found, name, remedy)
    if unit in MICROMETRES and (others := _units(text)) and unit not in others:
        raise ReadError(
            f'coordinates in another unit than `unit = "{unit}"` in [layout]',
            where=name,
            found=repr(found)[:60],
            remedy='state the unit of the file, or `unit = "px"` for pixels',
        )


def _units(text: str) -> set[str]:
    """Return the units that a name or a statement contains, by the keys of `SPELT`."""
    words = [word.casefold() for word in _words(text)]
    return {unit for unit, spelt in SPELT.items() if any(map(spelt.fullmatch, words))}


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
