"""How a table or a name states the label of an image: a class, any number of classes, or a number, as the kind says.

A reader that can read all three says so by `TARGETS = ("class", "labels", "value")`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from dpconvert import names
from dpconvert.card import Model, Target
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.model import Manifest
from dpconvert.source import target

ALL: tuple[Target, ...] = ("class", "labels", "value")
THOUSANDS = re.compile(r"[-+]?\d{1,3}\.\d{3}", re.ASCII)  # where others have decimal commas
LEAVE_OUT = "if rows without a label are to be left out, say `missing = true` in [layout]"


class ManyLabels(Model):
    """Keys of [layout]: how images with any number of classes are labelled."""

    separator: str = ";"
    """Text between the labels of an image, with kind `multilabel`."""
    none: list[str] = []
    """Texts that say that an image has none of the classes, with kind `multilabel`; `""` is an empty cell."""


class Columns(ManyLabels):
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

    def __init__(self, manifest: Manifest, keys: Columns, decimal: str = "") -> None:
        self.target, self.classes, self.keys, self.decimal = manifest.target, manifest.classes, keys, decimal
        _check(manifest, keys)
        self.columns = keys.indicators or [keys.value or keys.label]
        self._commas: tuple[str, str] | None = None  # the first number with a decimal comma, and where it is
        self._points: tuple[str, str] | None = None  # the first number such as 1.000

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
            SourceError: a cell is empty, or is no number, or neither 0 nor 1.
            ManifestError: `labels` does not name a label.
        """
        if (column := self.lacking(cells)) is not None:
            raise SourceError(f"no {self._what} in column {column!r}", where=where, remedy=LEAVE_OUT)
        if self.target == "class":
            return self._known(cells[0], where)
        try:
            if self.target == "value":
                return self._number(cells[0], where)
            if self.keys.indicators:
                return target.of_indicators(cells, self.classes)
        except ValueError as error:
            raise SourceError(
                str(error), where=where, remedy="correct the cell, or name its text under `skip` in [layout]"
            ) from None
        return in_text(cells[0], self.keys, lambda label: self._known(label, where), where)

    def _number(self, text: str, where: str) -> str:
        """Return the text of a number; where some cells have decimal commas, 1.000 may be a thousand."""
        number = target.of_number(text, self.decimal)
        if not self.decimal:
            self._commas = self._commas or ("," in text and (text, where)) or None
            self._points = self._points or (THOUSANDS.fullmatch(text) and (text, where)) or None
            if self._commas and self._points:
                (comma, first), (point, second) = self._commas, self._points
                raise ValueError(
                    f"{point!r} ({second}) may be a thousand, since {comma!r} ({first}) has a decimal comma"
                )
        return number

    @property
    def _what(self) -> str:
        return "number" if self.target == "value" else "label"

    def _known(self, text: str, where: str) -> str:
        known = names.match(text, self.keys.labels)
        if self.keys.labels and known is None:
            raise ManifestError("label not in `layout.labels`", where=where, found=repr(text))
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
            "no label", where=where, found=repr(text),
            remedy="if it says that the image has none of the classes, name it under `none` in [layout]",
        )  # fmt: skip
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


def _check(manifest: Manifest, keys: Columns) -> None:
    given = {name for name in ("label", "indicators", "value") if getattr(keys, name)}
    wanted = {"class": {"label"}, "labels": {"label", "indicators"}, "value": {"value"}}[manifest.target]
    if wrong := sorted(given - wanted):
        raise ManifestError(
            f"layout.{wrong[0]}: kind {manifest.kind!r} does not read it", where=manifest.path,
            expected=" or ".join(sorted(wanted)),
            remedy="choose the `kind` that the labels have: multilabel for any number of classes, regression for "
            "a number",
        )  # fmt: skip
    if len(given) != 1:
        missing = "layout.label: is missing" if not given else "layout: `label` and `indicators` exclude each other"
        missing = "layout.value: is missing" if manifest.target == "value" else missing
        raise ManifestError(missing, where=manifest.path, expected=" or ".join(sorted(wanted)))
    if keys.indicators and len(keys.indicators) != len(manifest.classes):
        raise ManifestError(
            "layout.indicators: not one column for each of `classes`", where=manifest.path,
            expected=f"{len(manifest.classes)}: {', '.join(manifest.classes)}", found=f"{len(keys.indicators)}",
        )  # fmt: skip
    if twice := [column for column, count in Counter(keys.indicators).items() if count > 1]:
        raise ManifestError(f"layout.indicators: column {twice[0]!r} is named twice", where=manifest.path)
    check_many(manifest, keys, as_list=manifest.target == "labels" and not keys.indicators)
    if keys.labels and (manifest.target == "value" or keys.indicators):
        raise ManifestError(f"layout.labels: not read with kind {manifest.kind!r} here", where=manifest.path)
