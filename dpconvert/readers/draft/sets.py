"""The sets that a release states: by a column of its table, or by the names of several tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from dpconvert.readers.draft import folders, naming
from dpconvert.readers.layout_keys import SPLIT_NAMES

if TYPE_CHECKING:
    from dpconvert.readers.draft.listings import Listing


def split_column(table: Listing, sets: re.Pattern[str]) -> str:
    """Return the column that names the set. sets: how such columns are called; of others, the values of several sets
    count.
    """
    found = {
        column: {SPLIT_NAMES[value.lower()] for value in values}
        for column in table.rows[0]
        if (values := {value for value in table.values(column) if value})
        and all(value.lower() in SPLIT_NAMES for value in values)
    }
    called = [column for column in found if sets.search(column)] or [c for c, named in found.items() if len(named) > 1]
    return called[0] if len(called) == 1 else ""


def of_tables(files: Sequence[str]) -> list[str]:
    """Return the set that each file is of, by its name or by one of its folders; nothing if one is of none."""
    if len(files) < 2:
        return []
    parts = [_parts(file) for file in files]
    varied = [at for at, column in enumerate(zip(*parts, strict=False)) if len({*column}) > 1]
    if len({*map(len, parts)}) > 1 or len(varied) != 1:
        return []
    found = [some[varied[0]] for some in parts]
    return found if all(map(naming.as_set, found)) and len({*found}) == len(files) else []


def pattern(tables: list[Listing]) -> str:
    """Return a pattern for train.csv, val.csv and test.csv, or train/labels.csv and test/labels.csv."""
    columns = zip(*(_parts(table.file) for table in tables), strict=True)
    inner = (
        naming.escaped(column[0]) if len({*column}) == 1 else f"(?P<split>{'|'.join(map(naming.escaped, column))})"
        for column in columns
    )
    *folders, stem, suffix = inner
    return f"^{''.join(f'{folder}/' for folder in folders)}{stem}{suffix}$"


def _parts(file: str) -> tuple[str, ...]:
    """The folders of a file, its name without ending, and its ending."""
    path = PurePosixPath(file)
    return (*path.parent.parts, path.stem, path.suffix)


def lines(table: Listing, split: str, tables: list[Listing]) -> tuple[str, ...]:
    """Return the lines of the split policy."""
    return policy(table.values(split) if split else of_tables([one.file for one in tables]))


def policy(named: Iterable[str]) -> tuple[str, ...]:
    """Return the lines of the split policy for these names of sets."""
    known = {naming.as_set(name) for name in named if name}
    found = [folders.OFFICIAL]
    if "val" not in known and "train" in known:
        found.append(
            "val = 0.15  # no validation set is here: this share of the training set becomes one, by whole groups"
        )
    return tuple(found)
