"""Tables whose columns are added to those of the table of images, row by row, by a column that both have."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from dpconvert import names
from dpconvert.annotations.parsing.table import Cells, Dialect, Table, TableRow, column
from dpconvert.errors import ManifestError, SourceError
from dpconvert.plural import counted
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile


@dataclass
class JoinedTables:
    """The rows of the tables that [files.joined] names, by their cells in the column `by`.

    rows: key -> the cells of a row, and where it stands. spellings: a key as it is compared -> the keys as they are
    written. columns: those that the rows may add. used: the keys of rows that were added. bare: the number of rows of
    images to which nothing was added.
    """

    by: str = ""
    rows: dict[str, tuple[Cells, str]] = field(default_factory=dict)
    spellings: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    columns: dict[str, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    bare: int = 0

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
        before = self.rows.setdefault(text, (cells, where))
        self.spellings[_compared(text)].add(text)
        if before[0] != cells:
            raise SourceError(
                f"two rows differ about one {self.by!r}", where=where, found=f"{text}, also in {before[1]}"
            )
        self.columns |= dict.fromkeys(cells)

    def added(self, row: TableRow, where: str) -> TableRow:
        """A row of the table of images with the columns that are added to it; they are empty if no row has its key.

        Raises:
            ManifestError: the row has no such column.
            SourceError: A column has another value in the table of images.
        """
        if not self.by:
            return row
        wanted = row.cells[column(row, self.by, where)]
        near = self.spellings.get(_compared(wanted), set())
        key = wanted if wanted in self.rows else "".join(near) if len(near) == 1 else ""
        cells, place = self.rows.get(key, (Cells(), ""))
        self.used.add(key)
        self.bare += not place
        for name, text in cells.items():
            if name in row.cells and names.alike(row.cells[name]) != names.alike(text):
                raise SourceError(
                    f"column {name!r} differs from the one of the joined table",
                    where=where,
                    found=f"{row.cells[name]!r}, and {text!r} in {place}",
                    remedy="correct one of the tables, or rename the column in one of them",
                )
        return TableRow(row.line, Cells({**dict.fromkeys(self.columns, ""), **cells, **row.cells}))

    def notes(self) -> list[str]:
        """What a user should know once all rows of images are read."""
        found = [f"{counted(self.bare, 'row')} without a partner in the joined table"] if self.bare else []
        unused = self.rows.keys() - self.used
        if unused:
            first = min(self.rows[key][1] for key in unused)
            found.append(f"{counted(len(unused), 'row')} of the joined table not used, the first {first}")
        return found


def _compared(text: str) -> str:
    """A key without regard to case and to the decimals of whole numbers: programs write 1 as 1.0 beside a gap."""
    number = names.WHOLE.fullmatch(text)
    return number[1] if number else names.folded(text)


def tables_of(source: Source) -> list[MatchedFile]:
    """The tables of images: those that [files.table] matches and [files.joined] does not."""
    joined = {found.name for found in source.match("joined")} if "joined" in source.manifest.files else set()
    return [found for found in source.need("table") if found.name not in joined]
