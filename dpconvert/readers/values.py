"""How the values of a file state the label of an image: numbers, texts, and lists or members of either.

For files whose values have types: Parquet, HDF5 and NumPy arrays, JSON. `dpconvert.readers.labels` reads the cells of
tables, which are texts.
"""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from dpconvert import names
from dpconvert.annotations.parsing.lines import UTF8, WINDOWS
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.model import Manifest
from dpconvert.plural import counted
from dpconvert.readers.labels import LEAVE_OUT, ManyLabels, check_given, check_many, class_names, in_text
from dpconvert.readers.layout_keys import Missing, never_named, refuse_missing_none
from dpconvert.source import target

Form = Literal["", "indices", "indicators"]
CORRECT = "correct the value, or name it under `skip` in [layout]"


class Values(ManyLabels):
    """Keys of [layout]: what the values of a file say of labels."""

    label: str = ""
    """Place of the label."""
    indicators: list[str] = []
    """Places of 0 and 1 in place of `label`, one for each class."""
    value: str = ""
    """Place of the number, with kind `regression`."""
    values: dict[str, str] = {}
    """Label -> class name; without it, a number counts the classes and a text is a class."""
    numbers: Form = ""
    """What a list of numbers holds, with kind `multilabel`: `indices` of the classes that the image has, or
    `indicators`, a 0 or 1 for each class; found out if not given.
    """
    skip: list[str] = []
    """Values whose images are left out, such as `"-1"`."""
    missing: Missing = "error"
    """Images without a label: `"error"` (or `false`) refuses them, `"skip"` (or `true`) leaves them out and counts
    them; `"none"` is refused.
    """


class InValues:
    """Reads labels from the values of one or several files.

    of_class: the keys of the layout that may say where classes are. unlabelled: a value of an image without a class.
    decimal: the decimal separator of numbers in texts, found out if empty.

    Raises:
        ManifestError: the keys do not suit the kind.
    """

    def __init__(
        self,
        manifest: Manifest,
        keys: Values,
        of_class: Sequence[str] = ("label",),
        *,
        unlabelled: object = None,
        decimal: str = "",
    ) -> None:
        refuse_missing_none(manifest, keys.missing)
        self.target, self.classes, self.keys = manifest.target, manifest.classes, keys
        self._unlabelled = unlabelled if self.target == "class" else None
        self.given = check_given(manifest, keys, of_class)
        self._is_list = self.target == "labels" and "indicators" not in self.given
        check_many(manifest, keys, as_list=self._is_list)
        read = {"numbers": self._is_list, "values": self._is_list or self.target == "class"}
        if idle := [key for key, used in read.items() if getattr(keys, key) and not used]:
            raise ManifestError(f"layout.{idle[0]}: not read with kind {manifest.kind!r} here", where=manifest.path)
        self._path, self._numbers = manifest.path, target.Numbers(decimal)
        self._left_out: Counter[str] = Counter()
        self._texts, self._classes = set[str](), dict[str, str]()
        self._form: Form = keys.numbers

    def labels(
        self, columns: Sequence[Sequence[Any]], where: Callable[[int], str], known: Sequence[str] = ()
    ) -> list[str | None]:
        """Return the label of each row (dpconvert.source.target); None for rows that are left out.

        columns: the values of the one place, or of each of `indicators`. where: the place of a row, for messages.
        known: classes that the file names, by their numbers.

        Raises:
            SourceError: a row states no label, or something that is none.
            ManifestError: a label is not in `values`, or beyond the classes.
        """
        if known and self.target == "value":
            raise SourceError(
                "numbers of classes, not measured ones",
                where=where(0),
                found=", ".join(known[:4]),
                remedy='leave out `kind`, or state kind = "ordinal" if the classes have an order',
            )
        rows = list(zip(*columns, strict=True))
        if self._is_list:
            self._find_form([row[0] for row in rows], where, known)
        return [self._label(row, where(number), known) for number, row in enumerate(rows)]

    def notes(self, what: str) -> list[str]:
        """Return notes on the rows, or samples, that were left out, and on texts that none of them has."""
        found = [f"{counted(n, what)} {why}, left out" for why, n in sorted(self._left_out.items())]
        return [*found, *never_named(self.keys, ("none", "skip"), self._texts)]

    def at(self, keys: Values) -> InValues:
        """Return the same reader, which takes labels from the places that these keys name."""
        self.keys = keys
        return self

    @property
    def places(self) -> list[str]:
        """The places of the label in one row.

        Raises:
            ManifestError: the manifest does not name the place of the number.
        """
        if self.target == "value" and not self.keys.value:
            raise ManifestError("layout.value: is missing", where=self._path, expected="the place of the number")
        return self.keys.indicators or [self.keys.value if self.target == "value" else self.keys.label]

    def _label(self, row: Sequence[Any], where: str, known: Sequence[str]) -> str | None:
        texts = [text for value in row for text in _texts(value)]
        self._texts.update(texts)
        if any(names.match(text, self.keys.skip) is not None for text in texts):
            self._left_out["that `skip` names"] += 1
            return None
        if any(map(self._lacks, row)):
            if self.keys.missing != "skip":
                raise SourceError(
                    f"no {'number' if self.target == 'value' else 'label'}", where=where, remedy=LEAVE_OUT
                )
            self._left_out["without a label"] += 1
            return None
        try:
            if self.target == "value":
                return self._number(row[0], where)
            if not self._is_list and self.target == "labels":
                return target.of_indicators([_text(value) for value in row], self.classes)
        except ValueError as error:
            raise SourceError(str(error), where=where, remedy=CORRECT) from None
        return (self._one if self.target == "class" else self._many)(row[0], known, where)

    def _number(self, value: Any, where: str) -> str:
        if isinstance(value, str):
            return self._numbers.read(value, where)
        if isinstance(value, bool | complex) or not isinstance(value, numbers.Number):
            raise ValueError(f"not a number: {value!r}")
        return target.of_number(repr(float(value)))  # type: ignore[arg-type]

    def _lacks(self, value: Any) -> bool:
        """Whether a value states nothing."""
        if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
            return True
        if value == self._unlabelled:
            return True
        return isinstance(value, str | list) and not value and "" not in self.keys.none

    def _one(self, value: Any, known: Sequence[str], where: str) -> str:
        """Return the class that a text or a number states."""
        if isinstance(value, list | Mapping):
            raise SourceError(
                "several values, where one class is expected",
                where=where,
                found=str(value)[:40],
                remedy='if an image has any number of classes, state kind = "multilabel"',
            )
        if isinstance(value, str) or (isinstance(value, bool) and names.match(str(value), self.keys.values)):
            return self._class(names.bare(str(value)), where)
        return self._of_number(value, known, where)

    def _many(self, value: Any, known: Sequence[str], where: str) -> str:
        """Return the label that a list, a text, or members `{class: 0 or 1}` state."""
        if isinstance(value, str):
            return in_text(value, self.keys, lambda text: self._class(text, where), where)
        if not isinstance(value, list | Mapping):
            raise SourceError(
                "a single number, where a list or a text of classes is expected",
                where=where,
                found=str(value),
                remedy='if each image has one class, leave out kind = "multilabel"',
            )
        if isinstance(value, Mapping):
            value = self._of_members(value, where)
        elif all(isinstance(one, str) for one in value):
            return target.of_labels(self._class(names.bare(one), where) for one in value)
        elif self._form != "indicators":
            return target.of_labels(self._of_number(one, known, where) for one in value)
        try:
            return target.of_indicators([_text(one) for one in value], self.classes)
        except ValueError as error:
            raise SourceError(str(error), where=where, remedy=CORRECT) from None

    def _of_members(self, members: Mapping[str, Any], where: str) -> list[Any]:
        """Return the members in the order of the classes; each class must be one, and each member a class."""
        stated = {self._class(name, where): value for name, value in members.items()}
        if stated.keys() != set(self.classes):
            raise SourceError(
                "members that are not the manifest's classes",
                where=where,
                found=", ".join(stated) or "none",
                expected=", ".join(self.classes) or "`classes` in the manifest",
            )
        return [stated[name] for name in self.classes]

    def _of_number(self, value: Any, known: Sequence[str], where: str) -> str:
        """Return the class of a number, which counts those that the file names, or else the manifest's."""
        text = _text(value)
        if not text.isdecimal() and names.match(text, self.keys.values) is None:
            negative = text[:1] == "-" and text[1:].isdecimal()
            raise SourceError(
                "a negative number as a label" if negative else "a label that is not a whole number",
                where=where,
                found=text,
                remedy=f'name it under `values` in [layout], or leave it out: skip = ["{text}"]',
            )
        if not known:
            return self._class(text, where)
        if not text.isdecimal() or int(text) >= len(known):
            raise SourceError("a label that the file does not name", where=where, found=text)
        return self._class(known[int(text)], where)

    def _class(self, text: str, where: str) -> str:
        text = names.nfc(text)
        if text not in self._classes:
            self._classes[text] = class_names([text], self.keys.values, self.classes, where)[0]
        return self._classes[text]

    def _find_form(self, values: Sequence[Any], where: Callable[[int], str], known: Sequence[str]) -> None:
        """Find out what lists of numbers hold; an index stands only once in a list, and is less than their number.

        Raises:
            SourceError: the lists of another file hold something else.
        """
        lists = [
            list(map(_text, one)) for one in values if isinstance(one, list) and not isinstance((*one, "")[0], str)
        ]
        if not lists or self.keys.numbers:
            return
        binary = all(text in ("0", "1", "True", "False") for one in lists for text in one)
        repeated = any(len(set(one)) < len(one) for one in lists)
        as_many = all(len(one) == len(self.classes) for one in lists)
        form: Form = "indicators" if not known and (repeated or (binary and as_many)) else "indices"
        if self._form not in ("", form):
            raise SourceError(
                f"lists of {form}, while those of the files before are {self._form}",
                where=where(0),
                remedy='say what they hold: numbers = "indices" or "indicators" in [layout]',
            )
        self._form = form


def decoded(value: Any) -> Any:
    """Return bytes as text, in UTF-8 or else Windows-1252 as tables are read, and anything else as it is.

    A byte that is in neither becomes '%' and two hexadecimal digits, so that no two texts become one.
    """
    if not isinstance(value, bytes):
        return value
    for encoding in (UTF8, WINDOWS):
        try:
            return names.nfc(value.decode(encoding))
        except UnicodeDecodeError:
            continue
    return names.nfc(names.escaped(value.decode("utf-8", "surrogateescape")))


def name_in(value: Any) -> str:
    """Return the text by which a value names a patient, slide, set or attribute; '' for none (null, NaN).

    Of one patient, a file may hold the number 7 and another, with a gap in the column, 7.0.
    """
    value = decoded(value)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else _text(value)


def _text(value: Any) -> str:
    """Return a value as text: whole numbers without decimals, true and false as 1 and 0."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return names.bare(names.nfc(str(value)))


def _texts(value: Any) -> list[str]:
    """Return the texts of a value that `skip` or `none` may name."""
    if isinstance(value, list):
        return [_text(one) for one in value if isinstance(one, str)] if value else [""]
    if value is None or isinstance(value, Mapping):
        return []
    return list(dict.fromkeys([_text(value), str(value)]))
