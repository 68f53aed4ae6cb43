"""How a table or a name states the label of an image: a class, any number of classes, or a number, as the kind says.

A reader that can read all three says so by `TARGETS = ("class", "labels", "value")`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from dpconvert import names
from dpconvert.card import Model, Target
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.model import Manifest
from dpconvert.source import target

ALL: tuple[Target, ...] = ("class", "labels", "value")
LEAVE_OUT = "if rows without a label are to be left out, say `missing = true` in [layout]"


class LabelKeys(Protocol):
    """Keys of [layout] that say where labels are."""

    @property
    def indicators(self) -> list[str]: ...
    @property
    def model_fields_set(self) -> set[str]: ...


class ManyLabels(Model):
    """Keys of [layout]: how images with any number of classes are labelled."""

    separator: str = ";"
    """Text between the labels of an image, with kind `multilabel`."""
    none: list[str] = []
    """Texts that say that an image has none of the classes, with kind `multilabel`; `""` is an empty cell."""


class LabelColumns(ManyLabels):
    """Keys of [layout]: the columns that hold the label."""

    label: str = ""
    """Column of the label. With kind `multilabel`, a cell holds any number of labels, between which is `separator`."""
    indicators: list[str] = []
    """Columns of 0 and 1 in place of `label`, one for each class in the order of `classes`, with kind `multilabel`."""
    value: str = ""
    """Column of the number in place of `label`, with kind `regression`."""
    labels: dict[str, str] = {}
    """Value -> class name; a value without an entry is an error unless `skip` lists it."""
    skip: list[str] = []
    """Values whose rows are left out."""


class InColumns:
    """Reads labels from the columns of a table.

    Raises:
        ManifestError: the keys do not suit the kind.
    """

    def __init__(self, manifest: Manifest, keys: LabelColumns, decimal: str = "") -> None:
        self.target, self.classes, self.keys = manifest.target, manifest.classes, keys
        _check(manifest, keys)
        self.columns = keys.indicators or [keys.value or keys.label]
        self._numbers = target.Numbers(decimal)

    def cells(self, cell: Callable[[str], str]) -> list[str]:
        """Return the texts of the columns in one row; `cell` gives that of a column."""
        return [cell(column) for column in self.columns]

    def parts(self, cells: Sequence[str]) -> list[str]:
        """Return the texts that `labels` or `skip` may name."""
        is_list = self.target == "labels" and not self.keys.indicators
        return [*cells, *(parts_of(cells[0], self.keys) if is_list else [])]

    def skipped(self, cells: Sequence[str]) -> bool:
        """Whether the manifest leaves out such a row."""
        return any(names.match(text, self.keys.skip) is not None for text in cells)

    def lacking(self, cells: Sequence[str]) -> str | None:
        """Return the first column that is empty and must not be; None if there is none."""
        may_be_empty = self.target == "labels" and not self.keys.indicators and "" in self.keys.none
        empty = (column for column, text in zip(self.columns, cells, strict=True) if not text and not may_be_empty)
        return next(empty, None)

    def label(self, cells: Sequence[str], where: str) -> str:
        """Return the label of a row (dpconvert.source.target).

        Raises:
            SourceError: a cell is empty, not a number, or neither 0 nor 1.
            ManifestError: `labels` does not name a label.
        """
        if (column := self.lacking(cells)) is not None:
            raise SourceError(f"no {self._what} in column {column!r}", where=where, remedy=LEAVE_OUT)
        if self.target == "class":
            return self._known(cells[0], where)
        try:
            if self.target == "value":
                return self._numbers.read(cells[0], where)
            if self.keys.indicators:
                return target.of_indicators(cells, self.classes)
        except ValueError as error:
            raise SourceError(
                str(error), where=where, remedy="correct the cell, or name its text under `skip` in [layout]"
            ) from None
        return in_text(cells[0], self.keys, lambda label: self._known(label, where), where)

    def notes(self) -> list[str]:
        """What a user should know once all rows are read."""
        return self._numbers.notes()

    @property
    def _what(self) -> str:
        return "number" if self.target == "value" else "label"

    def _known(self, text: str, where: str) -> str:
        known = names.match(text, self.keys.labels)
        if self.keys.labels and known is None:
            raise ManifestError(
                "label not in `layout.labels`",
                where=where,
                found=repr(text),
                expected=", ".join(map(repr, self.keys.labels)),
            )
        return text if known is None else self.keys.labels[known]


def parts_of(text: str, keys: ManyLabels) -> list[str]:
    """Return the labels between the separators of a text, without empty ones."""
    parts = text.split(keys.separator) if keys.separator else [text]
    return [part.strip() for part in parts if part.strip()]


def in_text(text: str, keys: ManyLabels, known: Callable[[str], str], where: str) -> str:
    """Return the label that a text with any number of labels states; `known` gives the class of one.

    Raises:
        SourceError: it states none, and `none` does not name it.
    """
    if names.match(text, keys.none) is not None:
        return target.of_labels([])
    if not (parts := parts_of(text, keys)):
        raise SourceError(
            "no label",
            where=where,
            found=repr(text),
            remedy="if it says that the image has none of the classes, name it under `none` in [layout]",
        )
    return target.of_labels(map(known, parts))


def check_many(manifest: Manifest, keys: ManyLabels, *, as_list: bool) -> None:
    """Check the keys for images with any number of classes. as_list: a text names the classes of an image.

    Raises:
        ManifestError: a key is not read, or `none` names a class.
    """
    given = [name for name in ManyLabels.model_fields if name in keys.model_fields_set]
    if given and not as_list:
        raise ManifestError(f"layout.{given[0]}: not read with kind {manifest.kind!r} here", where=manifest.path)
    if same := [text for text in keys.none if names.match(text, manifest.classes) is not None]:
        raise ManifestError(f"layout.none: {same[0]!r} is one of `classes`", where=manifest.path)


def class_names(labels: Sequence[str], values: Mapping[str, str], classes: list[str], where: str) -> list[str]:
    """Classes of labels: by `values` where there are any, else a number counts `classes`, and a text is a class.

    Raises:
        ManifestError: a label that `values` lacks, a number beyond the classes, or one that may be a name or a count.
    """
    known: dict[str, str] = {}
    numbered = [name for place, name in enumerate(classes) if name.isdecimal() and int(name) != place]
    for label in sorted(set(labels)):
        match = names.match(label, values)
        if match is not None:
            known[label] = values[match]
        elif values:
            raise ManifestError("label not in `layout.values`", where=where, found=repr(label))
        elif label.isdecimal() and label not in classes:
            if int(label) >= len(classes):
                raise ManifestError(
                    "a label beyond the manifest's classes",
                    where=where,
                    found=label,
                    expected=f"0 to {len(classes) - 1}" if classes else None,
                    remedy="name them in [layout]: values = {0 = ..., 1 = ...}",
                )
            if numbered:  # else one class would be known by its name, and another by its place
                raise ManifestError(
                    f"the number {label} is none of the classes, whose names are numbers",
                    where=where,
                    expected=", ".join(classes),
                    remedy="name the numbers in [layout]: values = {0 = ..., 1 = ...}",
                )
            known[label] = classes[int(label)]
        else:
            known[label] = label
    return [known[label] for label in labels]


def check_given(manifest: Manifest, keys: LabelKeys, of_class: Sequence[str] = ("label",)) -> set[str]:
    """Return the keys that the manifest gives and that say where the label is.

    of_class: those for one class. An image with any number of classes may have these or `indicators`, and one with a
    number has `value`.

    Raises:
        ManifestError: a key does not suit the kind, or two exclude each other.
    """
    several = {*of_class, "indicators"}
    given = {name for name in (*several, "value") if getattr(keys, name) and name in keys.model_fields_set}
    wanted = {"class": {*of_class}, "labels": several, "value": {"value"}}[manifest.target]
    if wrong := sorted(given - wanted):
        raise ManifestError(
            f"layout.{wrong[0]}: kind {manifest.kind!r} does not read it",
            where=manifest.path,
            expected=" or ".join(sorted(wanted)),
            remedy="choose the `kind` that the labels have: multilabel for any number of classes, regression for "
            "a number",
        )
    if "indicators" in given and len(given) > 1:
        other = min(given - {"indicators"})
        raise ManifestError(
            f"layout: `{other}` and `indicators` exclude each other",
            where=manifest.path,
            expected=" or ".join(sorted(wanted)),
        )
    _check_indicators(manifest, keys.indicators)
    return given


def _check_indicators(manifest: Manifest, indicators: list[str]) -> None:
    if indicators and len(indicators) != len(manifest.classes):
        raise ManifestError(
            "layout.indicators: not one column for each of `classes`",
            where=manifest.path,
            expected=f"{len(manifest.classes)}: {', '.join(manifest.classes)}",
            found=f"{len(indicators)}",
        )
    if twice := [column for column, count in Counter(indicators).items() if count > 1]:
        raise ManifestError(f"layout.indicators: column {twice[0]!r} is named twice", where=manifest.path)
    for column, name in zip(indicators, manifest.classes, strict=False):
        called = names.match(column, manifest.classes) or names.match(re.split("[:.]", column)[-1], manifest.classes)
        if called not in (None, name):
            raise ManifestError(
                "layout.indicators: a column is called like another class than the one that it stands for",
                where=manifest.path,
                expected=f"columns in the order of `classes`, {', '.join(manifest.classes)}",
                found=f"{column!r} for {name!r}",
            )


def _check(manifest: Manifest, keys: LabelColumns) -> None:
    if not check_given(manifest, keys):
        wanted = {"class": "label", "labels": "indicators or label", "value": "value"}[manifest.target]
        missing = "value" if manifest.target == "value" else "label"
        raise ManifestError(f"layout.{missing}: is missing", where=manifest.path, expected=wanted)
    check_many(manifest, keys, as_list=manifest.target == "labels" and not keys.indicators)
    if keys.labels and (manifest.target == "value" or keys.indicators):
        raise ManifestError(f"layout.labels: not read with kind {manifest.kind!r} here", where=manifest.path)
