"""What the columns of a table say of images that may not have one class: any number of classes, or a number.

A number never becomes a class without a word: columns of decimals, or of many whole numbers, are numbers; of few whole
numbers the draft says what it took them for, or asks.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dpconvert.annotations.parsing.table import number
from dpconvert.names import WHOLE
from dpconvert.plural import counted
from dpconvert.readers.draft import grades, naming
from dpconvert.readers.draft.toml import quoted, some, strings
from dpconvert.readers.labels import ManyLabels, parts_of
from dpconvert.source import target

Column = tuple[str, list[str]]
"""A column and its cells."""
IN_NAMES = ",/+&"  # between labels, or in the name of one
FEW = 10  # different whole numbers that may be classes
ABSENT = {"na", "n/a", "nan", "none", "null", "-", "?"}
NOWHERE = re.compile(
    r"(?i)^(x|y|z|row|col(umn)?|left|top|right|bottom|x_?[01]|y_?[01]|.*coord.*|mpp|level|.*path.*|no\.?)$"
)
CLASSES = re.compile(r"(?i)label|class|type|category|kind|diagnosis|subtype|tissue")


@dataclass(frozen=True)
class OtherLabels:
    """How a table states labels that are not one class. lines: of [layout]. missing: rows that state none."""

    kind: str
    lines: tuple[str, ...]
    classes: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    missing: int = 0


def other_labels(columns: Sequence[Column], label: str) -> OtherLabels | None:
    """Return the labels of any number of classes, or the numbers, that columns state; None for one class, or nothing.

    columns: those that may be labels. label: the one that seems to hold a class, or ''.
    """
    lists = [column for column in columns if separator_of(column[1]) and label in ("", column[0])]
    if len(lists) == 1 and (label or not _rivals(columns, lists[0])):
        return _lists(*lists[0])
    if label:
        return None
    binary = [column for column in columns if is_binary(column[1])]
    if len(binary) > 1 and not any(_may_be_classes(*column) for column in columns if column not in binary):
        return _indicators(binary)
    measured = [column for column in columns if is_measured(*column)]
    if len(measured) == 1 and not any(_may_be_classes(*column) for column in columns):
        return _numbers(*measured[0])
    return None


def _rivals(columns: Sequence[Column], chosen: Column) -> list[Column]:
    """Return the columns that may hold a class beside the labels of one column: not 0 and 1, which may say the same."""
    others = (column for column in columns if column is not chosen and not is_binary(column[1]))
    return [column for column in others if _may_be_classes(*column)]


def questions(columns: Sequence[Column], label: str) -> list[str]:
    """Return what somebody must decide about columns of numbers. label: the column that seems to hold a class."""
    measured = [name for name, cells in columns if is_measured(name, cells)]
    if not label:
        which = (
            f"Several columns hold numbers: {some(measured)}. For one of them as the label, " if measured[1:] else ""
        )
        return [which + 'state kind = "regression" and `value` in [layout]'] if which else []
    cells = dict(columns).get(label, [])
    values = sorted({float(cell) for cell in cells if cell}) if _are_whole(cells) else []
    if len(values) > 2 and not (CLASSES.search(label) or grades.GRADES.search(label)):
        shown = some((f"{value:g}" for value in values), 6)
        return [
            f"The column {label!r} holds whole numbers ({shown}): if they are measured or counted, state "
            f'kind = "regression" and value = {quoted(label)}; if they are grades, kind = "ordinal" and `classes` in '
            "their order; if they are names of classes, nothing need change"
        ]
    rival = [name for name in measured if re.fullmatch("(?i)target|label|score|value", name)]
    if rival and not CLASSES.search(label):
        return [f'Is the label the class in {label!r}, or the number in {rival[0]!r} (kind = "regression")?']
    return []


def remarks(columns: Sequence[Column], label: str) -> list[str]:
    """Return what a draft took numbers of a class for, and which other columns hold numbers."""
    cells = dict(columns).get(label, [])
    distinct = classes(cells)
    found = []
    if grades.are_grades(label, distinct):
        found.append(
            f"The column {label!r} holds grades: scores will be the quadratic kappa, which counts in the order of "
            '`classes`, from the lowest. If they are in no order, state kind = "classification".'
        )
    elif grades.GRADES.search(label) and len(distinct) > 2:
        found.append(
            f"The column {label!r} may hold grades. If so, list `classes` from the lowest to the highest and state "
            'kind = "ordinal".'
        )
    elif grades.may_be_grades(distinct):
        found.append(
            f"The classes of the column {label!r} read as grades, and are listed in that order. If they are, state "
            'kind = "ordinal".'
        )
    elif _are_whole(cells) and len(distinct) > 2:
        found.append(
            f"The whole numbers in the column {label!r} are taken as names of classes. If they are in an order, state "
            f'kind = "ordinal"; if they are measured, kind = "regression" and value = {quoted(label)}.'
        )
    for separator in IN_NAMES:
        joined = [parts for parts in _joined(list(distinct), separator) if set(parts) & set(distinct)]
        if len(joined) > 1 and not separator_of(cells):
            found.append(
                f"Cells of the column {label!r} may hold several labels ({some(map(repr, joined), 2)}): they are taken "
                f'as classes of their own. If they do, state kind = "multilabel" and separator = {quoted(separator)}.'
            )
    found += [
        f'The column {name!r} holds numbers ({_range(cells)}), which could be a task of their own: kind = "regression".'
        for name, cells in columns
        if name != label and is_measured(name, cells)
    ]
    return found


def classes(cells: Sequence[str]) -> dict[str, int]:
    """Return class -> how many cells name it, in the order of grades or of names; 1.0 is 1, unless both are here."""
    counts = Counter(cell for cell in cells if cell)
    bare = {cell.partition(".")[0]: count for cell, count in counts.items()}
    return grades.in_order(bare if all(map(WHOLE.fullmatch, counts)) and len(bare) == len(counts) else counts)


def is_measured(name: str, cells: Sequence[str]) -> bool:
    """Whether a column holds numbers that are no classes: decimals, or more different whole numbers than `FEW`."""
    known = [cell for cell in cells if cell and cell.casefold() not in ABSENT]
    values = _values(known)
    if NOWHERE.match(name) or len(set(values)) < 3 or len(known) < 0.5 * len(cells):
        return False
    if all(value.is_integer() for value in values):
        steps = {after - before for before, after in itertools.pairwise(values)}
        return len(set(values)) > FEW and steps != {1.0}  # no running number
    return True


def is_binary(cells: Sequence[str]) -> bool:
    """Whether a column holds 0 and 1 (or yes and no, true and false), and both."""
    said = {target.YES_NO.get(cell.casefold()) for cell in cells if cell}
    return said == {True, False}


def separator_of(cells: Sequence[str]) -> str:
    """Return the character between several labels of a cell, of which a few occur again and again; '' for none.

    Characters that names of classes often hold count only if each of these labels is alone in another cell.
    """
    known = [cell for cell in cells if cell]
    for separator in ";|":
        if sum(separator in cell for cell in known) < 2:
            continue
        parts = Counter(part for cell in known for part in parts_of(cell, ManyLabels(separator=separator)))
        if 1 < len(parts) <= min(naming.MOST_CLASSES, len(known) // 2) and not all(map(_is_number, parts)):
            return separator
    return next((separator for separator in IN_NAMES if _joined(known, separator) and _all_alone(known, separator)), "")


def _joined(cells: Sequence[str], separator: str) -> list[list[str]]:
    """Return the parts of the different cells that have several, none of them a number."""
    parts = (parts_of(cell, ManyLabels(separator=separator)) for cell in sorted(set(cells)))
    return [some_parts for some_parts in parts if len(some_parts) > 1 and not any(map(_is_number, some_parts))]


def _all_alone(cells: Sequence[str], separator: str) -> bool:
    return {part for parts in _joined(cells, separator) for part in parts} <= set(cells)


def _lists(name: str, cells: list[str]) -> OtherLabels:
    separator = separator_of(cells)
    keys = ManyLabels(separator=separator)
    none = sorted({cell for cell in cells if cell.casefold() in {"none", "-"}})
    counts = Counter(part for cell in cells if cell not in none for part in set(parts_of(cell, keys)))
    lines = [f"label = {quoted(name)}", f"separator = {quoted(separator)}"]
    lines += [f"none = {strings(none)}  # these say that an image has none of the classes"] if none else []
    if empty := sum(not cell for cell in cells):
        lines.append(
            f'# none = [""]  # {counted(empty, "empty cell")}: left out, unless they mean that an image has no class'
        )
    several = sum(len(parts_of(cell, keys)) > 1 for cell in cells)
    why = (
        f"{several} of {counted(len(cells), 'cell')} of the column {name!r} hold several labels, between {separator!r}"
    )
    return OtherLabels(
        "multilabel", tuple(lines), grades.in_order(counts), (f"{why}: an image has any number of classes.",), empty
    )


def _indicators(columns: Sequence[Column]) -> OtherLabels:
    counts = {name: sum(target.YES_NO[cell.casefold()] for cell in cells if cell) for name, cells in columns}
    rows = [row for row in zip(*(cells for _, cells in columns), strict=True) if all(row)]
    sums = {sum(target.YES_NO[cell.casefold()] for cell in row) for row in rows}
    why = f"{len(columns)} columns hold 0 and 1 ({some(counts)}): an image has any number of these classes"
    if sums == {1}:
        why += ", although each has exactly one here; a column with the name of the class would make it one class"
    lines = (f"indicators = {strings(counts)}",)
    return OtherLabels("multilabel", lines, counts, (f"{why}.",), len(columns[0][1]) - len(rows))


def _numbers(name: str, cells: list[str]) -> OtherLabels:
    absent = sorted({cell for cell in cells if cell.casefold() in ABSENT})
    lines = [f"value = {quoted(name)}"]
    lines += [f"skip = {strings(absent)}  # no numbers"] if absent else []
    why = f"The column {name!r} holds numbers ({_range(cells)}), not classes: the task is to predict them."
    return OtherLabels("regression", tuple(lines), {}, (f"{why} State their `unit`.",), sum(not cell for cell in cells))


def _may_be_classes(name: str, cells: Sequence[str]) -> bool:
    """Whether a column may hold one of a few classes."""
    distinct = {cell for cell in cells if cell}
    few = 1 < len(distinct) <= min(naming.MOST_CLASSES, max(2, len(cells) // 2))
    return few and not is_measured(name, cells) and bool(distinct - ABSENT)


def _range(cells: Sequence[str]) -> str:
    values = _values([cell for cell in cells if cell and cell.casefold() not in ABSENT])
    return f"{min(values):g} to {max(values):g}, {len(set(values))} different ones"


def _values(cells: Sequence[str]) -> list[float]:
    """Return the cells as numbers; nothing if one is none."""
    try:
        return [number(cell) for cell in cells]
    except ValueError:
        return []


def _is_number(text: str) -> bool:
    return bool(_values([text]))


def _are_whole(cells: Sequence[str]) -> bool:
    values = _values([cell for cell in cells if cell])
    return bool(values) and all(value.is_integer() for value in values)
