"""Convert the pixel sizes that files state to micrometres per pixel along x and y.

The sources are OME-XML
(https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06, `UnitsLength`), the descriptions of Aperio
and ImageJ, and the resolution tags of TIFF 6.0 (282, 283, 296).
"""

from __future__ import annotations

import html
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import tifffile

from dpconvert.manifest.rules import SANE_MPP

SQUARE = 1.02  # maximum ratio of the sides of a pixel without resampling
OBJECTIVE = 10.0  # magnification times micrometres per pixel, as vendors round it: 40 x 0.25, 20 x 0.5
ROUNDED = 1.5  # maximum ratio between what a magnification means and the stated pixel size
CONTRADICTION = "the resolution in the TIFF's tags contradicts that of its description (OME-XML, Aperio), which counts"
MAGNIFICATION = "the magnification (AppMag) contradicts the resolution (MPP), which counts"
SYMBOLS = {
    "km": 1e9,
    "m": 1e6,
    "dm": 1e5,
    "cm": 1e4,
    "mm": 1e3,
    "μm": 1.0,
    "um": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "Å": 1e-4,
    "in": 25_400.0,
    "ft": 304_800.0,
    "thou": 25.4,
    "li": 25_400 / 12,
    "pt": 25_400 / 72,
}
WORDS = {
    "meter": 1e6,
    "decimeter": 1e5,
    "centimeter": 1e4,
    "millimeter": 1e3,
    "micrometer": 1.0,
    "micron": 1.0,
    "µ": 1.0,
    "nanometer": 1e-3,
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "inch": 25_400.0,
    "inche": 25_400.0,
    '"': 25_400.0,
    "mil": 25.4,
    "point": 25_400 / 72,
}
WORDS = {unicodedata.normalize("NFKC", word): length for word, length in WORDS.items()}
APERIO = re.compile(r"\|\s*MPP\s*=\s*([\d.,]+)")
APPMAG = re.compile(r"\|\s*AppMag\s*=\s*([\d.,]+)")
# values of ResolutionUnit; the last two are not in TIFF 6.0, but tifffile writes them
PER_UNIT = {2: ("inch", 25_400.0), 3: ("cm", 10_000.0), 4: ("mm", 1_000.0), 5: ("um", 1.0)}


@dataclass(frozen=True)
class Spacing:
    """Micrometres per pixel along `x` and `y`; both None if a file states none or absurd ones (see `stated`)."""

    x: float | None = None
    y: float | None = None
    stated: str = ""

    @classmethod
    def of(cls, x: float | None, y: float | None, stated: str) -> Spacing:
        """Create a spacing from the statement of a file, in micrometres (None if unknown) and in its words.

        If only one axis is stated, pixels are square.
        """
        across, down = x if x is not None else y, y if y is not None else x
        if across is None or down is None or not all(SANE_MPP[0] <= side <= SANE_MPP[1] for side in (across, down)):
            return cls(stated=stated)
        return cls(across, down, stated)

    @property
    def is_square(self) -> bool:
        """Whether both axes agree to within 2%, or are unknown."""
        return self.x is None or self.y is None or max(self.x, self.y) <= SQUARE * min(self.x, self.y)

    def differs(self, other: Spacing) -> bool:
        """Whether both are known, and differ by more than 2% along an axis."""
        if self.x is None or self.y is None or other.x is None or other.y is None:
            return False
        sides = (self.x, other.x), (self.y, other.y)
        return any(max(pair) > SQUARE * min(pair) for pair in sides)

    @property
    def axes(self) -> tuple[float, float] | None:
        """Micrometres per pixel (x, y), both those along x for nearly square pixels; None if unknown."""
        if self.x is None or self.y is None:
            return None
        return (self.x, self.x) if self.is_square else (self.x, self.y)


def of_texts(x: str | None, y: str | None) -> Spacing:
    """Create a spacing from micrometres as text; '' or None if one is not given."""
    stated = " x ".join(dict.fromkeys(text for text in (x, y) if text))
    across, down = number(x), number(y)
    if (x and across is None) or (y and down is None):
        return Spacing(stated=stated)
    return Spacing.of(across, down, stated)


def contradicts(magnification: str | None, spacing: Spacing) -> bool:
    """Whether the magnification that a slide of Aperio's states is far from its pixel size."""
    power = number((magnification or "").replace(",", "."))
    if not power or spacing.x is None:
        return False
    ratio = power * spacing.x / OBJECTIVE
    return not 1 / ROUNDED <= ratio <= ROUNDED


def of_ome(pixels: Any) -> Spacing:
    """Create a spacing from the attributes of a `Pixels` element of OME-XML."""
    sides, words = [], []
    for axis in "XY":
        text, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        length = micrometres(unit)
        size = number(text)
        sides.append(None if size is None or length is None else size * length)
        words += [f"{text} {unit}"] if text else []
    stated = " x ".join(dict.fromkeys(words))
    if any(side is None for side, axis in zip(sides, "XY", strict=True) if pixels.get(f"PhysicalSize{axis}")):
        return Spacing(stated=stated)
    return Spacing.of(sides[0], sides[1], stated)


def of_aperio(description: str) -> Spacing:
    """Create a spacing from the description of a slide of Aperio's, or of a part that ImageScope extracted from one."""
    found = APERIO.search(description) if description.startswith("Aperio") else None
    stated = found[1].replace(",", ".") if found else ""
    return of_texts(stated, stated)


def magnification_of(description: str) -> str | None:
    """Return the magnification in the description of a slide of Aperio's; None if it states none."""
    found = APPMAG.search(description) if description.startswith("Aperio") else None
    return found[1] if found else None


def of_tags(page: tifffile.TiffPage, imagej: dict[str, Any] | None = None) -> Spacing:
    """Create a spacing from the resolution tags of a page, in ImageJ's unit if its description names one."""
    per_unit = [_ratio(page.tags.valueof(code)) for code in (282, 283)]
    name, length = PER_UNIT.get(_unit(page), ("", None))
    if imagej and (unit := str(imagej.get("unit", "")).strip()) and (own := micrometres(unit)) is not None:
        name, length = unit, own
    stated = " x ".join(dict.fromkeys(f"{value:.6g}" for value in per_unit if value is not None))
    if length is None or not stated:
        return Spacing(stated=f"{stated} pixels per unit {_unit(page)}, which TIFF has not" if _unit(page) > 5 else "")
    sides = [length / value if value else None for value in per_unit]
    return Spacing.of(sides[0], sides[1], f"{stated} pixels per {name}")


def micrometres(unit: str) -> float | None:
    """Return the micrometres in a unit of length, in any spelling; None for an unknown unit.

    Both micro signs (U+00B5, U+03BC) are accepted, also as an escape (`\\u00B5`), as an entity (`&#181;`, `&micro;`)
    and as UTF-8 that was decoded as Latin-1.
    """
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), html.unescape(unit))
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    text = unicodedata.normalize("NFKC", text).strip()
    if text in SYMBOLS:
        return SYMBOLS[text]
    word = text.lower().replace("metre", "meter")
    return next((WORDS[form] for form in (word, word.removesuffix("s")) if form in WORDS), None)


def number(text: str | None) -> float | None:
    """Parse a number; return None if the text is not a number."""
    try:
        return float(text or "")
    except ValueError:
        return None


def _unit(page: tifffile.TiffPage) -> int:
    try:
        return int(page.tags.valueof(296, 2))
    except (TypeError, ValueError):
        return 0


def _ratio(value: Any) -> float | None:
    """Return pixels per unit from a rational or a number; None if it is neither."""
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, int) for part in value):
        return value[0] / value[1] if value[0] > 0 and value[1] > 0 else None
    return float(value) if isinstance(value, int | float) and value > 0 else None
