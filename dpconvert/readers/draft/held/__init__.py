"""Files that hold many images with their labels: Parquet, HDF5 and NumPy files, and tar shards.

What stands beside the images is read as the columns of a table, and judged as one (`dpconvert.readers.draft.tables`).
Files of different columns are left to somebody who knows them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dpconvert.errors import UserError
from dpconvert.plural import counted
from dpconvert.readers.draft import grades, label_kinds, naming, sets, tables
from dpconvert.readers.draft.held.array_files import of_arrays
from dpconvert.readers.draft.held.containers import Held, Values, of_parquet, of_shards
from dpconvert.readers.draft.held.partitions import pattern
from dpconvert.readers.draft.listings import Listing
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import ALONE, SHARE, quoted
from dpconvert.readers.layouts import parquet
from dpconvert.readers.values import name_in

PLACES = re.compile("(labels?|value|indicators|group|split) = ")
PLACE = re.compile('(?P<role>labels?|group|split) = "(?P<place>[^"]+)"')


def draft(survey: Survey) -> Draft | None:
    """A manifest of files that hold images; None where something else lies there, or they cannot be read alike."""
    for look in (of_parquet, of_arrays, of_shards):
        try:
            held = look(survey)
        except UserError:
            continue
        if held is not None and held.values:
            return _draft(held)
    return None


def _draft(held: Held) -> Draft:
    lists = {place: of for place, of in held.values.items() if any(isinstance(value, list) for value in of)}
    cells = {
        place: [_cell(value, held.classes.get(place, ())) for value in of]
        for place, of in held.values.items()
        if place not in lists
    }
    count = len(next(iter(held.values.values())))
    rows = [{place: of[number] for place, of in cells.items()} for number in range(count)]
    table = Listing(held.files[0], "", rows, ["image"] * count)
    kind, classes, lines, remarks, questions = _labels(held, table, lists)
    group, split = tables.group_of(table, questions), sets.split_column(table, tables.SETS)
    lines += [f"group = {quoted(group)}"] if group else []
    lines += [f"split = {quoted(split)}"] if split else []
    named = table.values(split) if split else held.splits
    lines, files = _in_folders(held, lines)
    others = ", ".join(place for place in held.values if place not in {group, split})
    return Draft(
        held.shape,
        kind=kind,
        classes=classes,
        group=tables.group_kind(group) if group else "image",
        why=(tables.why_grouped(table, group),)
        if group
        else (f"{ALONE}name the place of the patient as `group` in [layout]. Beside the images: {others}.",),
        files={**files, **held.patterns},
        layout=(
            f"# {counted(len(held.files), 'file')} of {counted(count, 'image')}",
            *held.images,
            *(_placed(held, line) for line in lines),
        ),
        split=sets.policy(named) if named else (SHARE,),
        remarks=(*remarks, *held.remarks),
        questions=(*questions, *held.questions),
    )


def _in_folders(held: Held, lines: list[str]) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """The lines of [layout] but for those of places that are levels of folders, and a pattern that names these."""
    found = {line: match for line in lines if (match := PLACE.match(line)) and match["place"] in held.folders}
    if not found:
        return lines, {}
    roles = {match["place"]: match["role"].replace("labels", "label") for match in found.values()}
    roles = {place: "class" if role == "label" else role for place, role in roles.items()}
    kind = "tables" if held.shape == "parquet" else "images"
    about = f"{counted(len(held.files), 'file')}, like {held.files[0]}"
    return [line for line in lines if line not in found], {kind: (pattern(held.files, roles), about)}


Labels = tuple[str, Mapping[str, int], list[str], list[str], list[str]]
"""Kind, number of images of each class, lines of [layout], remarks, and questions."""


def _labels(held: Held, table: Listing, lists: Values) -> Labels:
    columns = tables.label_columns(table)
    label, questions, _ = tables.label_of(table)
    if len(held.classes) == 1 and not (tables.NAMED.fullmatch(label) and label not in held.classes):
        (label,) = held.classes
    if label in held.classes:
        known = held.classes[label]
        return _of_list(held, label, known) if label in lists else _of_names(held, table, label, known)
    if len(lists) == 1 and not label:
        return _of_list(held, next(iter(lists)), [])
    other = label_kinds.other_labels(columns, label)
    if other is not None:
        lines = [_key(held, line) for line in other.lines] + _missing(other.missing)
        return other.kind, other.classes, lines, list(other.remarks), []
    questions = [*questions, *label_kinds.questions(columns, label)]
    if not label:
        return "classification", {}, [f"# {held.label} = ..."], [], questions
    counts = Counter(value for value in table.values(label) if value)
    without = table.values(label).count("")
    if held.shape == "parquet" and parquet.UNLABELLED in held.values[label]:
        without += counts.pop(str(parquet.UNLABELLED), 0)
    classes = grades.in_order(counts)
    lines = [f"{held.label} = {quoted(label)}", *_missing(without)]
    kind = "ordinal" if grades.are_grades(label, classes) else "classification"
    return kind, classes, lines, label_kinds.remarks(columns, label), questions


def _placed(held: Held, line: str) -> str:
    """A line of [layout] with the places of the names in it."""
    if PLACES.match(line):
        for name, place in held.places.items():
            line = line.replace(quoted(name), quoted(place))
    return line


def _key(held: Held, line: str) -> str:
    """A line of [layout] by the name that the shape has for the place of a class."""
    return re.sub(r"^label = ", f"{held.label} = ", line)


def _missing(number: int) -> list[str]:
    return [f"missing = true  # {counted(number, 'image')} without a label: left out and counted"] if number else []


def _of_names(held: Held, table: Listing, place: str, known: list[str]) -> Labels:
    """The class that a number counts among those that the file names."""
    counts, without = Counter(table.values(place)), table.values(place).count("")
    remark = f"The file names the classes of the column {place!r}."
    lines = [f"{held.label} = {quoted(place)}", *_missing(without)]
    return "classification", {name: counts[name] for name in known}, lines, [remark], []


def _of_list(held: Held, place: str, known: list[str]) -> Labels:
    """Any number of classes, from lists of texts or of numbers."""
    lists = [value for value in held.values[place] if isinstance(value, list)]
    flat = [one for value in lists for one in value]
    lines = [f"{held.label} = {quoted(place)}", *_missing(sum(value is None for value in held.values[place]))]
    empty = lists.count([])
    lines += [f'none = [""]  # {counted(empty, "empty list")}: an image with none of the classes'] if empty else []
    remark = f"The place {place!r} holds lists: an image has any number of classes."
    if flat and all(isinstance(one, str) for one in flat):
        counts = Counter(one for value in lists for one in set(value))
        return "multilabel", {name: counts[name] for name in sorted(counts, key=naming.natural)}, lines, [remark], []
    if known:
        counts = Counter(
            known[one] for value in lists for one in set(value) if isinstance(one, int) and 0 <= one < len(known)
        )
        return "multilabel", {name: counts[name] for name in known}, lines, [remark], []
    widths = {len(value) for value in lists}
    if len(widths) == 1 and set(flat) <= {0, 1}:
        if all(sum(value) == 1 for value in lists):
            counts = Counter(str(value.index(1)) for value in lists)
            every = {str(number): counts[str(number)] for number in range(widths.pop())}
            return (
                "classification",
                every,
                lines,
                [f"Each row of {place!r} has a single 1: the number of a class."],
                [f"Name the classes 0 to {len(every) - 1} of {place!r} in their order, in `classes`"],
            )
        (width,) = widths
        question = f"Name the {counted(width, 'class')} of the 0 and 1 of {place!r} in their order, in `classes`"
    else:
        question = f"Name the classes that the numbers of {place!r} count, in their order, in `classes`"
    return "multilabel", {}, lines, [remark], [question]


def _cell(value: Any, known: Sequence[str] = ()) -> str:
    """A value as the text of a cell, or the class that it counts among those that the file names; '' for none."""
    text = name_in(value)
    if isinstance(value, str) or not known or not text.lstrip("-").isdecimal():
        return text
    return known[int(text)] if 0 <= int(text) < len(known) else ""
