"""`[layout]` of a manifest whose source is a Cytomine project: which terms mean which class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import field_validator

from dpconvert.card import Model
from dpconvert.errors import SourceError
from dpconvert.source.files import Source

FIRST = "with terms of several classes, of which the first counts (`several` in [layout])"


class Fake(Model):
    """What the fake of a project holds.

    form: "slides" with lists; "crops" cut by the server, with lists; "pool", only crops, in sets and class folders.
    lists: as the client writes them, as the server does, or CSV. terms: ids of those that
    `labels` does not name. first: id of the first
    slide, by which tasks share slides. regions: large outlines for patches instead of objects. patients: a table.
    """

    form: Literal["slides", "crops", "pool"] = "slides"
    """Slides with lists, crops with lists, or only crops."""
    lists: Literal["server", "client", "csv"] = "server"
    """Who wrote the lists: the client or the server, or CSV."""
    terms: list[int] = [4762, 4763]
    """Ids of terms that `labels` does not name."""
    slides: int = 8
    """Number of slides."""
    first: int = 500
    """Id of the first slide."""
    regions: bool = False
    """Large outlines instead of objects."""
    patients: bool = False
    """Whether there is a table of patients."""
    groups: bool = False
    """Whether names begin with a group."""


class Layout(Model):
    """Terms to classes; see the shape "cytomine" for what each of these means."""

    labels: dict[str, str] = {}
    """Term name or id -> class name; other terms are left out."""
    rest: str = ""
    """Class of the terms that `labels` does not name."""
    several: Literal["first", "error", "skip"] = "first"
    """Annotations whose terms mean several classes: take the first, refuse, or skip."""
    group: str = ""
    """Regular expression searched in the slide's file name; its first group is the patient."""
    pool: str = ""
    """Prefix of the class folders, as in `<pool>_<term id>`."""
    fake: Fake = Fake()
    """What the fake of this source holds."""

    @field_validator("group")
    @classmethod
    def _has_a_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if pattern and not groups:
            raise ValueError("needs parentheses around what names the patient")
        return pattern

    def label(self, *names: str) -> str | None:
        """The class of a term by its id and name; None when it is left out."""
        if not self.labels:
            return names[-1]
        return next((self.labels[name] for name in names if name in self.labels), self.rest or None)

    def ordered(self, found: set[str], by_term: Iterable[str]) -> list[str]:
        """The classes that occur: in the order of `labels`, else of their terms."""
        order = [*self.labels.values(), self.rest] if self.labels else by_term
        return [label for label in dict.fromkeys(order) if label in found]

    def check(self, names: Iterable[str], source: Source) -> None:
        """A project with other terms than the manifest's is the user's to map.

        Raises:
            SourceError: none of the terms, by name or id, is in `labels`.
        """
        found = set(names)
        if self.labels and not found & set(self.labels):
            raise SourceError(
                "no annotation has a term that `labels` names",
                where=source.root,
                expected=f"one of {', '.join(map(repr, self.labels))}",
                found=", ".join(sorted(found, key=number_first)) or "no terms",
                remedy="copy the manifest, map these terms to classes in its [layout.labels], and give the copy's path",
            )

    def choose(self, name: str, labels: Sequence[str | None], left_out: Counter[str]) -> str | None:
        """The class of an annotation from those of its terms; None, and counted, when it has none or too many.

        An annotation of which only the first class counts is counted, too.

        Raises:
            SourceError: too many, and `several` is "error".
        """
        meant = list(dict.fromkeys(labels))
        if len(meant) > 1 and self.several == "error":
            raise SourceError(
                "an annotation with terms of several classes",
                where=name,
                found=", ".join(map(str, meant)),
                remedy='correct it, or set `several` in [layout] to "first" or "skip"',
            )
        if not meant:
            left_out["without a term"] += 1
        elif len(meant) > 1 and self.several == "skip":
            left_out["with terms of several classes"] += 1
        elif meant[0] is None:
            left_out["with a term that is not a class of this task"] += 1
        else:
            left_out[FIRST] += len(list(filter(None, meant))) > 1
            return meant[0]
        return None


def notes_of(what: str, left_out: Counter[str]) -> list[str]:
    """Return a note for each reason for which `choose` counted annotations or crops (`what`)."""
    return [
        f"{what}: {count} {why}" if why == FIRST else f"{what} left out: {count} {why}"
        for why, count in sorted(left_out.items())
        if count
    ]


def number_first(text: str) -> tuple[bool, int, str]:
    """Sorts numbers as numbers, before all else."""
    return (not text.isdecimal(), int(text) if text.isdecimal() else 0, text)
