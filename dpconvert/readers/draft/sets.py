"""The sets that a release states: by a column of its table, or by the names of several tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from dpconvert.readers.draft import folders, names
from dpconvert.readers.layout_keys import SPLIT_NAMES

if TYPE_CHECKING:
    from dpconvert.readers.draft.listings import Listing


def split_column(table: Listing, sets: re.Pattern[str]) -> str:
    """Return the column that names the set; sets: how such columns are called."""
    found = [
        column
        for column in table.rows[0]
        if sets.search(column)
        and (values := {value for value in table.values(column) if value})
        and all(value.lower() in SPLIT_NAMES for value in values)
    ]
    return found[0] if len(found) == 1 else ""


def pattern(tables: list[Listing]) -> str:
    """Return a pattern for train.csv, val.csv and test.csv."""
    first = PurePosixPath(tables[0].file)
    folder = "" if str(first.parent) == "." else names.escaped(str(first.parent)) + "/"
    listed = "|".join(names.escaped(PurePosixPath(table.file).stem) for table in tables)
    return f"^{folder}(?P<split>{listed})\\{first.suffix}$"


def lines(table: Listing, split: str, tables: list[Listing]) -> tuple[str, ...]:
    """Return the lines of the split policy."""
    return policy(table.values(split) if split else [PurePosixPath(one.file).stem for one in tables])


def policy(named: Iterable[str]) -> tuple[str, ...]:
    """Return the lines of the split policy for these names of sets."""
    known = {names.as_set(name) for name in named if name}
    found = [folders.OFFICIAL]
    if "val" not in known and "train" in known:
        found.append(
            "val = 0.15  # no validation set is here: this share of the training set becomes one, by whole groups"
        )
    return tuple(found)
