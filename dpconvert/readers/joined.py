"""Tables whose columns are added to those of the table of images, row by row, by a column that both have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from dpconvert import names
from dpconvert.annotations.parsing.table import Cells, Dialect, Table, TableRow, column
from dpconvert.errors import ManifestError, SourceError
from dpconvert.plural import counted
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile


@dataclass
class JoinedTables:
    """The rows of the tables that [files.joined] names, by their cells in the column `by`.

    rows: key -> the cells of its rows, and where the first stands. spellings: a key as it is compared -> the keys as
    they are written. looks: the same for keys as people see them. columns: those that the rows may add. used: the keys
    of rows that were added. bare: where a row of images is to which nothing was added -> its key.
    """

    by: str = ""
    rows: dict[str, tuple[Cells, str]] = field(default_factory=dict)
    spellings: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    looks: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    columns: dict[str, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    bare: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Source, by: str, dialect: Dialect) -> JoinedTables:
        """Read the tables.

        Raises:
            ManifestError: only one of `join` and [files.joined] is stated, or a table lacks the column.
            SourceError: no file is such a table, or two rows differ about one key.
        """
        if bool(by) != ("joined" in source.manifest.files):
            raise ManifestError(
                "[files.joined] and `join` in [layout] are stated together",
                where=source.manifest.path,
                expected='a table [files.joined] with a pattern, and join = "COLUMN"',
            )
        joined = cls(by)
        for found in source.need("joined") if by else ():
            table = Table(source.read(found.name), found.name, dialect)
            key = column(table, by, found.name)
            for row in table:
                joined._add(row, key, f"{found.name}, line {row.line}")
            source.notes += table.notes()
        return joined

    def _add(self, row: TableRow, key: str, where: str) -> None:
        cells = Cells({name: text for name, text in row.cells.items() if name and name != key})
        if not (text := row.cells[key]):
            return
        known, place = self.rows.setdefault(text, (cells, where))
        shared = _shared(cells, known)
        self.spellings[_compared(text)].add(text)
        self.looks[names.seen(text)].add(text)
        for name, same in shared.items():
            if cells[name] != known[same]:
                raise SourceError(
                    f"two rows differ about one {self.by!r}",
                    where=where,
                    found=f"{text}, also in {place}: column {name!r} holds {cells[name]!r} and {known[same]!r}",
                )
        known.update({name: text for name, text in cells.items() if name not in shared})
        self.columns |= dict.fromkeys(cells)

    def added(self, row: TableRow, where: str) -> TableRow:
        """A row of the table of images with the columns that are added to it; they are empty if no row has its key.

        Raises:
            ManifestError: the row has no such column.
            SourceError: A column has another value in the table of images, or a key only looks like that of the row.
        """
        if not self.by:
            return row
        wanted = row.cells[column(row, self.by, where)]
        near = self.spellings.get(_compared(wanted), set())
        key = wanted if wanted in self.rows else "".join(near) if len(near) == 1 else ""
        cells, place = self.rows.get(key, (Cells(), ""))
        self.used.add(key)
        if not place:
            self._refuse_changed(wanted, where)
            self.bare[where] = wanted
        for name, own in _shared(cells, row.cells).items():
            if names.alike(row.cells[own]) != names.alike(cells[name]):
                raise SourceError(
                    f"column {name!r} differs from the one of the joined table",
                    where=where,
                    found=f"{row.cells[own]!r}, and {cells[name]!r} in {place}",
                    remedy="correct one of the tables, or rename the column in one of them",
                )
        added = {**dict.fromkeys(self.columns, ""), **cells}
        twice = _shared(added, row.cells)
        return TableRow(row.line, Cells({name: added[name] for name in added if name not in twice} | row.cells))

    def _refuse_changed(self, wanted: str, where: str) -> None:
        """Refuse a key of a row of images that the joined table writes in another way, as a spreadsheet might."""
        if wanted and (near := sorted(self.looks.get(names.seen(wanted), ()))):
            raise SourceError(
                f"the joined table has no row of this {self.by!r}, but one that looks alike",
                where=where,
                found=f"{wanted!r}, and {near[0]!r} in {self.rows[near[0]][1]}",
                remedy="write it alike in both tables (spreadsheets take zeros before numbers away), or, if they are "
                "two, add a row of the former to the joined table",
            )

    def check(self, rows: int) -> None:
        """Check that one of so many rows of images has a partner.

        Raises:
            SourceError: none has.
        """
        if self.by and rows and len(self.bare) == rows:
            where, wanted = next(iter(self.bare.items()))
            dates = any(map(names.reads_date, (wanted, *self.rows)))
            raise SourceError(
                "no row has a partner in the joined table",
                where=where,
                expected=f"a {self.by!r} such as {', '.join(map(repr, list(self.rows)[:3]))}" if self.rows else None,
                found=repr(wanted),
                remedy="a spreadsheet took some for dates: format their column as text before they are entered again"
                if dates
                else "let `join` name a column whose values both tables write in the same way",
            )

    def notes(self) -> list[str]:
        """What a user should know once all rows of images are read."""
        found = [f"{counted(len(self.bare), 'row')} without a partner in the joined table"] if self.bare else []
        unused = self.rows.keys() - self.used
        if unused:
            first = min(self.rows[key][1] for key in unused)
            found.append(f"{counted(len(unused), 'row')} of the joined table not used, the first {first}")
        return found


def _shared(cells: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """The columns that both have, as the one and the other write them: case counts only where two differ in it."""
    return _columns_of_both(tuple(cells), tuple(others))


@cache
def _columns_of_both(columns: tuple[str, ...], others: tuple[str, ...]) -> dict[str, str]:
    found = {name: names.match(name, others) for name in columns}
    return {name: same for name, same in found.items() if same is not None}


def _compared(text: str) -> str:
    """A key without regard to case and to the decimals of whole numbers: programs write 1 as 1.0 beside a gap."""
    number = names.WHOLE.fullmatch(text)
    return number[1] if number else names.folded(text)


def tables_of(source: Source) -> list[MatchedFile]:
    """The tables of images: those that [files.table] matches and [files.joined] does not."""
    joined = {found.name for found in source.match("joined")} if "joined" in source.manifest.files else set()
    return [found for found in source.need("table") if found.name not in joined]
