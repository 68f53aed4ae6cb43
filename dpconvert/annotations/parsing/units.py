"""Coordinates in a unit of length, recognized by the names of columns and keys, and by the unit that a file states."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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


def of_members(members: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return the members of an object, and those of the objects in it, such as `properties` and `metadata`."""
    yield from members.items()
    for inner in members.values():
        if isinstance(inner, dict):
            yield from inner.items()


def pixels_per_unit(
    unit: Unit, spacing: tuple[float | None, float | None], mpp: float | None, name: str
) -> tuple[float, float]:
    """Return the pixels of a unit of length along x and y; 1 for pixels.

    spacing: micrometres per pixel that the image states. mpp: those of an image that states none.

    Raises:
        ReadError: the unit is one of length, and the resolution of the image is not known.
    """
    if unit not in MICROMETRES:
        return 1.0, 1.0
    across, down = spacing[0] or mpp, spacing[1] or mpp
    if across is None or down is None:
        raise ReadError(
            f'the image states no resolution, which coordinates in "{unit}" need',
            where=name,
            remedy="give it with --mpp, or as `mpp` in the manifest",
        )
    return MICROMETRES[unit] / across, MICROMETRES[unit] / down


def not_in_pixels(unit: Unit, name: str) -> ReadError:
    """Return the error for a layout that states a unit of length for a file whose format prescribes pixels."""
    return ReadError(
        "a file of an annotation program, whose coordinates are pixels",
        where=name,
        remedy=f'leave `unit = "{unit}"` out of [layout]',
    )


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
        _check(column, column, name, unit)


def check_stated(members: Iterable[tuple[str, Any]], name: str, unit: Unit = "") -> None:
    """Refuse a file, or a row of one, that states another unit for its coordinates; members: keys and values.

    unit: as of `check_names`.

    Raises:
        ReadError: a member such as `unit` or `coordinate_unit` holds one.
    """
    for key, value in members:
        if isinstance(value, str) and is_of_unit(key):
            _check(value, f"{key}: {value}", name, unit)


def _check(text: str, found: str, name: str, unit: Unit) -> None:
    if not unit and is_length(text):
        raise in_lengths(found, name)
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


def in_lengths(found: str, name: str) -> ReadError:
    """Return the error for coordinates that are lengths."""
    return ReadError(
        "coordinates in a unit of length, not in pixels",
        where=name,
        found=repr(found)[:60],
        expected="x and y in pixels of the image, from its top left corner",
        remedy=PIXELS,
    )
