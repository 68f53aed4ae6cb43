"""A named column of a task's samples, such as their centre, scanner or stain: from the index, a name, or a table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert import names
from dpconvert.annotations.parsing.table import Table
from dpconvert.plural import counted
from mtrain.data.rows import Rows
from mtrain.data.task import Task, attributes
from mtrain.errors import UsageError, UserError

KEYS = ("key", "group")


@dataclass(frozen=True)
class ColumnRequest:
    """Where a column is: an attribute called `name`; or the named group `name` of `pattern`, searched in the group id
    and then in the key; or the column `name` of `table`, which has a column `key` or `group`.
    """

    name: str = "centre"
    pattern: str | None = None
    table: Path | None = None

    def __post_init__(self) -> None:
        if self.pattern is not None and self.table is not None:
            raise UsageError("both --pattern and --table are given", remedy="take the column from one of them")

    @property
    def origin(self) -> str:
        """Where the column is, in words; "" for an attribute."""
        if self.table is not None:
            return f"table {self.table.name}"
        return "" if self.pattern is None else f"pattern {self.pattern}"

    def of(self, task: Task, rows: Rows) -> NDArray[np.str_]:
        """The values for these rows, in their order, (n,); "" where there is none.

        Raises:
            UsageError: no row has a value, or pattern or table do not have the column.
            ShardError: the index cannot be read.
        """
        if self.table is not None:
            found = _of_table(self.table, self.name, rows)
        elif self.pattern is not None:
            found = _of_pattern(self.pattern, self.name, rows)
        else:
            known = attributes(task)
            found = [known.get(key, {}).get(self.name, "") for key in rows.key]
        if not any(found):
            raise self._absent(task, rows)
        return np.asarray(found, dtype=str)

    def _absent(self, task: Task, rows: Rows) -> UsageError:
        """The error where no sample has a value."""
        no_sample = f"no sample of {task.name}"
        if self.origin:
            names = f"keys such as {rows.key[0]!r}, groups such as {rows.group[0]!r}"
            remedy = "a table names them as index.parquet does, and a pattern matches some"
            return UsageError(
                f"{no_sample} has a {self.name} by --{self.origin}", where=task.folder, expected=names, remedy=remedy
            )
        known = sorted({name for of in attributes(task).values() for name in of})
        what = f"{no_sample} has an attribute {self.name!r}"
        return UsageError(
            what if known else f"{what}, nor any other attribute",
            where=task.folder,
            expected=f"one of the attributes {', '.join(known)}" if known else None,
            remedy="name another column with --by, or say where it is with --pattern or --table",
        )


def _of_pattern(pattern: str, name: str, rows: Rows) -> list[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--pattern: not a regular expression: {error}", found=pattern) from None
    if name not in expression.groupindex:
        raise UsageError(f"--pattern: has no named group (?P<{name}>...)", found=pattern)
    matches = (
        expression.search(group) or expression.search(key) for group, key in zip(rows.group, rows.key, strict=True)
    )
    return [(match[name] or "") if match else "" for match in matches]


def _of_table(path: Path, name: str, rows: Rows) -> list[str]:
    try:
        table = Table(path.read_bytes(), path.name)
        cells = [row.cells for row in table]
    except OSError as error:
        raise UsageError(f"--table: cannot be read: {error.strerror}", where=path) from None
    except UserError as error:
        raise UsageError(f"--table: cannot be read: {error}") from None
    key = next(filter(None, (names.match(one, table.columns) for one in KEYS)), None)
    column = names.match(name, table.columns)
    if key is None or column is None:
        wanted = f"a column {name}, and key or group"
        raise UsageError(
            "--table: columns are missing", where=path, expected=wanted, found=", ".join(table.columns) or "none"
        )
    values = {row[key]: row[column] for row in cells}
    if len(values) < len({(row[key], row[column]) for row in cells}):
        raise UsageError(f"--table: a {key} with two values of {name}", where=path)
    return [values.get(one, "") for one in getattr(rows, key.casefold())]


def without_value(found: NDArray[np.str_], name: str) -> str:
    """A note on the samples without a value; "" if there are none."""
    missing = int((found == "").sum())
    return f"{counted(missing, 'sample')} without a {name} left out" if missing else ""
