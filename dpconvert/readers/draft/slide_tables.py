"""A table of slides, or of images with masks, as the shape slides reads one: label, patient and set of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dpconvert.errors import ReadError
from dpconvert.names import folded
from dpconvert.plural import counted
from dpconvert.readers.draft import grades, label_kinds, naming, sets, tables
from dpconvert.readers.draft.listings import ENOUGH, Listing, listings
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import quoted, some

ONE_COLUMN = re.compile(r"\{([^{}:]+)\}(\.\w+)*")  # a template that names a column, in the end
LABEL_KEYS = re.compile(r"(label|separator|indicators|value) = |#")  # of the shape table, read by the shape slides too


@dataclass(frozen=True)
class StatedSlides:
    """The table that names most of these slides.

    files: the slides. noun: what they are called. others: tables that also name them. by: the column that names their
    patients instead, each of whom stands in `files` and the table for all of his slides.
    """

    table: Listing
    files: Sequence[str]
    noun: str
    others: tuple[str, ...]
    by: str = ""

    @classmethod
    def of(cls, survey: Survey, files: Sequence[str], noun: str) -> StatedSlides | None:
        """Find it; None where no table names slides."""
        found, _ = listings(survey, files)
        if not found:
            return None
        most = max(found, key=lambda one: (one.matched, bool(tables.label_of(one)[0]), len(one.rows[0])))
        return cls(most, files, noun, tuple(one.file for one in found if one is not most))

    @classmethod
    def of_patients(cls, survey: Survey, files: Sequence[str], pattern: str, noun: str) -> StatedSlides | None:
        """Find a table with a column of the patients whom the names of slides tell; None without one.

        pattern: of the slides.
        """
        matches = [match for name in files if (match := re.search(pattern, name))]
        first: dict[str, str] = {}
        for match in matches:
            first.setdefault(folded(match.groupdict().get("group") or ""), match.string)
        if "" in first:
            return None
        found = [one for name in survey.tables for one in _naming(survey, name, first)]
        if not found:
            return None
        most = max(found, key=lambda one: (one.matched, bool(tables.label_of(one)[0]), len(one.rows[0])))
        others = tuple(dict.fromkeys(one.file for one in found if one.file != most.file))
        return cls(most, [*first.values()], noun, others, by=min(most.columns))

    @property
    def named(self) -> str:
        """What a row is about."""
        return "patient" if self.by else self.noun

    @property
    def states_groups(self) -> bool:
        """Whether a column states the patient or another group."""
        return bool(tables.group_of(self.table, []))

    def labelled(self, found: Draft) -> Draft:
        """The draft with the label that the table states, or with a question about it."""
        label, asked, _ = tables.label_of(self.table)
        columns = tables.label_columns(self.table)
        if (other := label_kinds.other_labels(columns, label)) is not None:
            kind, classes, lines, remarks, blank = other.kind, other.classes, other.lines, other.remarks, other.missing
            odd = [line for line in lines if not LABEL_KEYS.match(line)]
            asked = [f"The label needs {line!r} in [layout], which the shape slides does not read" for line in odd]
        else:
            classes = label_kinds.classes(self.table.values(label)) if label else {}
            kind = "ordinal" if grades.are_grades(label, classes) else "classification"
            lines, remarks = (f"label = {quoted(label)}",) if label else (), tuple(label_kinds.remarks(columns, label))
            blank = self.table.values(label).count("") if label else 0
            asked = [*asked, *label_kinds.questions(columns, label)]
        if blank:
            asked.append(
                f"{counted(blank, self.named)} in {self.table.file} without a label: state it, or let the pattern of "
                f"[files.slides] leave out such a {self.named}"
            )
        return replace(
            found,
            kind=kind,
            of="patients" if self.by else found.of,
            classes=classes,
            layout=(*lines, *found.layout),
            remarks=(*found.remarks, *remarks),
            questions=(*found.questions, *asked),
        )

    def added(self, found: Draft) -> Draft:
        """The draft with the patients and the sets that the table states; as it is if nothing of it is used."""
        asked: list[str] = []
        group = "" if self.by else tables.group_of(self.table, asked)
        split = sets.split_column(self.table, tables.SETS)
        is_label = any(line.startswith(("label = ", "indicators = ", "value = ")) for line in found.layout)
        label = "" if is_label else tables.label_of(self.table)[0]
        remarks, rival = self._left(label, found) if label else ([], [])
        found = replace(found, remarks=(*found.remarks, *remarks), questions=(*found.questions, *rival))
        if not (group or split or asked or is_label):
            return found
        by_column = ONE_COLUMN.fullmatch(self.table.template)
        slide = by_column[1] if by_column else self.table.template
        named = (f"slide = {quoted(slide)}  # how a row names its {self.noun}", f"group = {quoted(group)}")
        if self.by:
            named = (
                'slide = ""  # a row is about a patient, whom the names of slides tell',
                f"group = {quoted(self.by)}",
            )
        lines = (
            *named,
            *[f"split = {quoted(split)}"] * bool(split),
        )
        if group:
            why = tables.why_grouped(self.table, group, self.noun)
            found = replace(found, group=tables.group_kind(group), why=(why,))
        about = f"{counted(len(self.table.rows), 'row')}, {counted(self.table.matched, self.named)} of them here"
        return replace(
            found,
            files={**found.files, "table": (f"^{naming.escaped(self.table.file)}$", about)},
            layout=(*lines, *found.layout),
            split=sets.lines(self.table, split, [self.table]) if split else found.split,
            questions=(*found.questions, *asked, *self._doubts()),
        )

    def _left(self, label: str, found: Draft) -> tuple[list[str], list[str]]:
        """What is said, and asked, of a label that the draft does not take from the table."""
        if "(?P<class>" not in found.files["slides"][0]:
            return [
                f"{self.table.file} also states {label!r} of each {self.named}: not used, as annotations tell the "
                "labels; the rules `whole` and `tiles` would take it"
            ], []
        return [], [
            f"Both folders and the column {label!r} of {self.table.file} may be the class: to take the column, say "
            f"label = {quoted(label)} in [layout], list its values as `classes`, and take (?P<class>...) out of the "
            "pattern; to take the folders, nothing need change"
        ]

    def _doubts(self) -> Iterator[str]:
        if absent := sorted({*self.files} - {*self.table.images}):
            yield (
                f"{counted(len(absent), self.named)}, the first {absent[0]}, in no row of {self.table.file}: add rows, "
                "or let the pattern of [files.slides] leave these out"
            )
        if self.others:
            yield (
                f"Several tables name the {self.named}s: {some([self.table.file, *self.others])}. Only the first is "
                "read: if others say what counts, write it into this one; else nothing need change"
            )


def _naming(survey: Survey, name: str, first: Mapping[str, str]) -> Iterator[Listing]:
    """A table, by each column that names nearly all of the patients, or nearly only these. first: a slide of each."""
    try:
        rows = survey.rows(name)
    except ReadError:  # said by `listings`
        return
    for column in rows[0] if rows else {}:
        slides = [first.get(folded(row[column]), "") for row in rows]
        here, named = len({*slides} - {""}), len({row[column] for row in rows})
        if here > 1 and here >= ENOUGH * min(len(first), named):
            yield Listing(name, f"{{{column}}}", rows, slides, frozenset({column}))
