"""Classes in an order that their names tell: numbers, Roman numerals, and words such as low and high."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from dpconvert.readers.draft import naming

GRADES = re.compile(
    r"(?i)grade|(?<![a-z])grad(?:ing)?(?![a-z])|isup|gleason|stage|stadium|her2|differentiation|dysplasia|分级"
)
NUMBERED = re.compile(r"(?P<what>\D*?)[ _-]?(?P<number>\d{1,2})(?:\.0*)?\+?", re.ASCII)
ROMAN = re.compile(r"(?P<what>.*?[ _-])?(?P<numeral>IV|V|I{1,3})(?P<part>[A-Ca-c]?)")
NUMERALS = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5}
NOTHING = r"none|negative|neg|normal|benign|absent|no"  # below the first grade
AFTER = re.compile(r"(?i)[ _-]?(?:grade|ly|ly[ _-]differentiated|differentiated|dysplasia|risk|staining|positive)$")
LADDERS = (
    ("low", "intermediate|medium|moderate|mid", "high"),
    ("well", "moderate", "poor", "un|undifferentiated"),
    (NOTHING, "minimal", "mild", "moderate", "severe|marked"),
    (NOTHING, "weak", "moderate", "strong"),
)
LEAST = 3  # classes of the kind ordinal


def ordered(distinct: Collection[str]) -> list[str] | None:
    """Return classes from the lowest to the highest; None if their names tell no order, or two have the same place."""
    for ranks in (_numbers(distinct), _numerals(distinct), *_words(distinct)):
        if ranks and len(distinct) > 1 and len({*ranks.values()}) == len(distinct):
            return sorted(distinct, key=lambda name, ranks=ranks: ranks[name])  # type: ignore[misc]
    return None


def are_grades(label: str, distinct: Collection[str]) -> bool:
    """Whether classes are grades in an order: by the name of their column, or by their own names."""
    if len(distinct) < LEAST or ordered(distinct) is None:
        return False
    named = bool(GRADES.search(label)) or all(map(GRADES.search, distinct))
    return named or any(len(ranks) == len(distinct) for ranks in _words(distinct))


def may_be_grades(distinct: Collection[str]) -> bool:
    """Whether classes of any column or folder read as grades, but may be something else: numbers alone say nothing."""
    read = _numerals(distinct) or next(filter(None, _words(distinct)), {}) or all(map(naming.GRADE.fullmatch, distinct))
    return len(distinct) >= LEAST and bool(read) and ordered(distinct) is not None


def in_order(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts of classes in the order of grades, else in natural order."""
    listed = ordered(counts) or sorted(counts, key=naming.natural)
    return {name: counts[name] for name in listed}


def _numbers(distinct: Collection[str]) -> dict[str, float]:
    """Class -> its number, if all have one and the same word; one class may be below them."""
    found = {name: NUMBERED.fullmatch(name) for name in distinct}
    below = [name for name, match in found.items() if match is None]
    if len(below) > 1 or any(not re.fullmatch(NOTHING, name, re.IGNORECASE) for name in below):
        return {}
    if len({match["what"].lower() for match in found.values() if match}) != 1 or (below and len(distinct) < LEAST):
        return {}
    return {name: float(match["number"]) if match else -1.0 for name, match in found.items()}


def _numerals(distinct: Collection[str]) -> dict[str, float]:
    found = {name: ROMAN.fullmatch(name) for name in distinct}
    if not all(found.values()) or len({match["what"] for match in found.values() if match}) != 1:
        return {}
    parts = {"": 0.0, "A": 0.1, "B": 0.2, "C": 0.3}
    return {name: NUMERALS[m["numeral"]] + parts[m["part"].upper()] for name, m in found.items() if m}


def _words(distinct: Collection[str]) -> Iterator[dict[str, float]]:
    """For each ladder, class -> its place on it; nothing if one has none."""
    for ladder in LADDERS:
        places = {name: place for name in distinct if (place := _place(name, ladder)) is not None}
        yield places if len(places) == len(distinct) else {}


def _place(name: str, ladder: tuple[str, ...]) -> float | None:
    bare = AFTER.sub("", AFTER.sub("", name))
    steps = (float(at) for at, step in enumerate(ladder) if re.fullmatch(step, bare, re.IGNORECASE))
    return next(steps, None)
