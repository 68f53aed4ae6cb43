"""The label of an image as text, which records carry until the plan: a class, a list of classes as JSON, or a number.

Readers write it by these functions, and the plan reads it, so that all that lies between treats labels alike.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from dpconvert import names
from dpconvert.annotations.parsing.table import number
from dpconvert.card import Label, Target

BITS = re.compile(r"[01]")
BETWEEN = re.compile(r"([\s,;|\[\]()_]|(?<=\d)-)*")  # what may stand between digits; elsewhere, - is a sign
LISTED = re.compile(rf"{BETWEEN.pattern}({BITS.pattern}{BETWEEN.pattern})+")
THOUSANDS = re.compile(r"[-+]?\d{1,3}\.\d{3}", re.ASCII)  # where others have decimal commas
OF_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}", re.ASCII)  # 0.125 is none
YES_NO = {"0": False, "0.0": False, "false": False, "no": False, "1": True, "1.0": True, "true": True, "yes": True}


def of_labels(labels: Iterable[str]) -> str:
    """Return the text of any number of classes."""
    return json.dumps(sorted(set(labels)), ensure_ascii=False)


def of_number(text: str, decimal: str = "") -> str:
    """Return the text of a number; decimal: its decimal separator, found out if empty.

    Raises:
        ValueError: it is not a finite number, or can be read in two ways.
    """
    value = number(text, decimal)
    if not math.isfinite(value):
        raise ValueError(f"not a finite number: {text!r}")
    return repr(value + 0.0)  # 0.0 for -0.0


class Numbers:
    """Reads the numbers of a source. Where some have decimal commas, 1.000 may be a thousand.

    decimal: the decimal separator, found out if empty.
    """

    def __init__(self, decimal: str = "") -> None:
        self._decimal = decimal
        self._commas: tuple[str, str] | None = None  # the first number with a decimal comma, and where it is
        self._points: tuple[str, str] | None = None  # the first number such as 1.000
        self._decides = bool(decimal)  # whether something shows that a point is a decimal point

    def read(self, text: str, where: str) -> str:
        """Return the text of a number.

        Raises:
            ValueError: it is not a finite number, or can be read in two ways.
        """
        number = of_number(text, self._decimal)
        self._decides = self._decides or ("." in text and not OF_THOUSANDS.fullmatch(text))
        if not self._decimal:
            self._commas = self._commas or ("," in text and (text, where)) or None
            self._points = self._points or (THOUSANDS.fullmatch(text) and (text, where)) or None
            if self._commas and self._points:
                (comma, first), (point, second) = self._commas, self._points
                raise ValueError(
                    f"{point!r} ({second}) may be a thousand, since {comma!r} ({first}) has a decimal comma"
                )
        return number

    def notes(self) -> list[str]:
        """What a user should know once all are read."""
        if self._decides or self._points is None:
            return []
        point, where = self._points
        return [
            f"numbers with a point have three digits after it in all cells, such as {point} ({where}), and are read as "
            "decimals; if they are thousands, write them without it"
        ]


def of_indicators(cells: Sequence[str], classes: Sequence[str]) -> str:
    """Return the text of the classes whose cell says yes: `cells` are 0 or 1 (or true, false, yes, no), one for each.

    Raises:
        ValueError: a cell says neither, or there are more or fewer than `classes`.
    """
    if len(cells) != len(classes):
        raise ValueError(f"{len(cells)} values of 0 and 1 for {len(classes)} classes")
    wrong = [text for text in cells if text.casefold() not in YES_NO]
    if wrong:
        raise ValueError(f"neither 0 nor 1: {wrong[0]!r}")
    return of_labels(name for name, text in zip(classes, cells, strict=True) if YES_NO[text.casefold()])


def bits_of(text: str) -> list[str]:
    """Return the digits 0 and 1 of a text such as `1, 0, 1` or `101`.

    Raises:
        ValueError: there is something else in it.
    """
    if not LISTED.fullmatch(text):
        raise ValueError(f"not a list of 0 and 1: {text!r}")
    return BITS.findall(text)


def classes_in(target: Target, text: str) -> list[str]:
    """Return the classes that a label names; none if it is a number."""
    if target == "class":
        return [text]
    return list(json.loads(text)) if target == "labels" and text else []


def in_words(target: Target, text: str) -> str:
    """Return the label for people; numbers together are `numbers`."""
    if target == "labels":
        return ", ".join(classes_in(target, text)) or "none"
    return text if target == "class" else "numbers"


def spelt(target: Target, text: str, classes: Sequence[str]) -> str:
    """Return the label with its classes as `classes` spell them, where they differ in case or Unicode form only."""

    def same(name: str) -> str:
        return name if name in classes else names.match(name, classes) or name

    if target == "class":
        return same(text)
    return of_labels(map(same, classes_in(target, text))) if target == "labels" else text


def reader(target: Target, classes: Sequence[str]) -> Callable[[str], Label]:
    """Return a function that turns the text of a label into what is stored."""
    place: Mapping[str, int] = {name: index for index, name in enumerate(classes)}
    if target == "class":
        return lambda text: place[text]
    if target == "labels":
        return lambda text: sorted(place[name] for name in classes_in(target, text))
    return float


def strata(target: Target, labels: Sequence[str]) -> list[list[str]]:
    """Return what splits spread evenly, for each label: its classes ('' for none); a fifth of the range of numbers."""
    if target != "value":
        return [classes_in(target, text) or [""] for text in labels]
    ordered = sorted(map(float, labels))
    edges = [ordered[len(ordered) * part // FIFTHS] for part in range(1, FIFTHS)] if ordered else []
    return [[str(sum(float(text) >= edge for edge in edges))] for text in labels]


FIFTHS = 5
