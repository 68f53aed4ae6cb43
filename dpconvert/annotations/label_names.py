"""Resolve the names that a format gives an annotation, most specific first, to a label of the manifest."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Self

from dpconvert import names
from dpconvert.errors import ReadError, cut


class Said(str):
    """A label, and which field, attribute or control of a program says it."""

    field: str

    def __new__(cls, text: str, field: str) -> Self:
        said = super().__new__(cls, text)
        said.field = field
        return said

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.field


def field_of(items: Iterable[Sequence[str]], known: Collection[str], name: str, chosen: str = "") -> str:
    """Return the field that holds the labels of a file's images or shapes; '' if nothing has labels in two fields.

    items: the labels of each image or shape. chosen: what the manifest says; '' for nothing.

    Raises:
        ReadError: labels that are known stand in several fields, or nothing has the chosen field.
    """
    said = [[label for label in labels if isinstance(label, Said)] for labels in items]
    fields = sorted({label.field for labels in said for label in labels})
    if chosen:
        if fields and chosen not in fields:
            raise ReadError(
                f"no field {chosen!r} of labels",
                where=name,
                found=", ".join(map(repr, fields[:4])),
                remedy="correct `label_field` in [layout]",
            )
        return chosen
    if not known:
        return ""
    spelt = {label: label in known or names.match(label, known) is not None for label in {*itertools.chain(*said)}}
    several = [labels for labels in said if len({one.field for one in labels}) > 1]
    first = {one.field: str(one) for labels in reversed(several) for one in reversed(labels) if spelt[one]}
    if len(first) > 1:
        fields = sorted(first)
        raise ReadError(
            f"several labels in the fields {', '.join(map(repr, fields[:4]))}",
            where=name,
            expected="one",
            found=", ".join(repr(cut(label, 40)) for label in [*first.values()][:-5:-1]),
            remedy=f'say in [layout] which field holds the label, as in label_field = "{fields[0]}"',
        )
    return next(iter(first), "")


def of_field(labels: Sequence[str], field: str) -> tuple[str, ...]:
    """Return the labels that a field says; all of them if none is of a field, or no field is wanted."""
    if not field or not any(isinstance(label, Said) for label in labels):
        return tuple(labels)
    return tuple(label for label in labels if isinstance(label, Said) and label.field == field)


def resolved(candidates: Iterable[str], known: Collection[str], name: str) -> str:
    """The first candidate that is known, as it is spelt there; without `known` the first that is not empty, else ''.

    Names are compared as people see them (`dpconvert.names.match`).

    Raises:
        ReadError: `known` names labels, but none of the candidates is among them.
    """
    nonblank = [bare for candidate in candidates if (bare := names.bare(candidate))]
    if not known:
        return nonblank[0] if nonblank else ""
    for candidate in nonblank or [""]:
        if (spelt := candidate if candidate in known else names.match(candidate, known)) is not None:
            return spelt
    raise ReadError(
        f"unknown annotation label {nonblank[0]!r}" if nonblank else "an annotation without a label",
        where=name,
        expected=f"one of {', '.join(repr(label) for label in sorted(known))}",
        found=", ".join(nonblank[1:5]) or None,
        remedy="name it in the manifest ('' for annotations without one)",
    )


def only(candidates: Iterable[str], known: Collection[str], name: str) -> str:
    """Like `resolved`, for candidates of which none is better than another: only one may be known.

    Raises:
        ReadError: several are known; or, without `known`, there are several.
    """
    distinct = list(dict.fromkeys(bare for candidate in candidates if (bare := names.bare(candidate))))
    spelt = [one if one in known else names.match(one, known) for one in distinct] if known else distinct
    found = list(dict.fromkeys(one for one in spelt if one is not None))
    if len(found) > 1:
        raise ReadError(
            "several labels for one region or image",
            where=name,
            expected="one",
            found=", ".join(repr(cut(one, 40)) for one in found[:4]),
            remedy="leave all but one of them out of the manifest, or of the file"
            if known
            else "name those that count in the manifest: `labels` in [layout]",
        )
    return resolved(distinct, known, name)
