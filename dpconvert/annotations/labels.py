"""Resolve the names that a format gives an annotation, most specific first, to a label of the manifest."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dpconvert import names
from dpconvert.errors import ReadError, cut


def resolved(candidates: Iterable[str], known: Collection[str], name: str) -> str:
    """The first candidate that is known, as it is spelt there; without `known` the first that is not empty, else ''.

    Names are compared as people see them (`dpconvert.names.match`).

    Raises:
        ReadError: `known` names labels, but none of the candidates is among them.
    """
    told = [candidate.strip() for candidate in candidates if candidate.strip()]
    if not known:
        return told[0] if told else ""
    for candidate in told or [""]:
        if (spelt := candidate if candidate in known else names.match(candidate, known)) is not None:
            return spelt
    raise ReadError(
        f"unknown annotation label {told[0]!r}" if told else "an annotation without a label",
        where=name,
        expected=f"one of {', '.join(repr(label) for label in sorted(known))}",
        found=", ".join(told[1:5]) or None,
        remedy="name it in the manifest ('' for annotations without one)",
    )


def only(candidates: Iterable[str], known: Collection[str], name: str) -> str:
    """Like `resolved`, for candidates of which none is better than another: only one may be known.

    Raises:
        ReadError: several are known; or, without `known`, there are several.
    """
    told = list(dict.fromkeys(candidate.strip() for candidate in candidates if candidate.strip()))
    spelt = [one if one in known else names.match(one, known) for one in told] if known else told
    found = list(dict.fromkeys(one for one in spelt if one is not None))
    if len(found) > 1:
        raise ReadError(
            "several labels for one region or image", where=name, expected="one",
            found=", ".join(repr(cut(one, 40)) for one in found[:4]),
            remedy="leave all but one of them out of the manifest, or of the file" if known
            else "name those that count in the manifest: `labels` in [layout]",
        )  # fmt: skip
    return resolved(told, known, name)
