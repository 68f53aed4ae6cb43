"""Tables of known sources that say something of each image: one row for an image, whatever the table is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dpconvert.annotations.parsing.table import Cells, Table, TableRow
from dpconvert.annotations.read import unpacked
from dpconvert.errors import SourceError
from dpconvert.plural import counted
from dpconvert.readers import named_images
from dpconvert.readers.layouts.table import cell
from dpconvert.source.files import Source

Key = Callable[[TableRow, str], str | None]
"""Row, and where it is -> the image that it is about; None if it is about something else."""


class RowsByImage:
    """Image -> what the tables of a source say of it.

    needed: columns whose cells must not be empty. optional: further columns, which a table may lack.

    Raises:
        SourceError: An empty cell in a needed column, or two rows about one image that differ in these columns.
        ManifestError: A needed column is absent.
    """

    def __init__(self, source: Source, key: Key, needed: Sequence[str], optional: Sequence[str] = ()) -> None:
        self._source, self._rows = source, dict[str, Cells]()
        self._unused: dict[str, str] = {}  # image -> table
        for found in source.need("table"):
            table = Table(unpacked(source.read(found.name), found.name), found.name)
            for row in table:
                where = f"{found.name}, line {row.line}"
                if (image := key(row, where)) is not None:
                    self._add(image, _known(row, needed, optional, where), where)
                    self._unused.setdefault(image, found.name)
            source.notes += table.notes()

    def get(self, image: str) -> Cells | None:
        """Return the cells about an image; None if no row is about it."""
        self._unused.pop(image, None)
        return self._rows.get(image)

    def count_unused(self) -> None:
        """Note the rows about images that are not here.

        Raises:
            SourceError: all are.
        """
        tables = list(self._unused.values())
        if tables and len(tables) == len(self._rows):
            named_images.check_names(self._source, tables[0], list(self._rows), [])
        self._source.notes += [
            f"{counted(tables.count(table), 'row')} of {table} about no image here, the first: "
            f"{next(image for image, of in self._unused.items() if of == table)}"
            for table in dict.fromkeys(tables)
        ]

    def _add(self, image: str, cells: Cells, where: str) -> None:
        if self._rows.setdefault(image, cells) != cells:
            raise SourceError("two rows about one image, with different values", where=where, found=image)


def _known(row: TableRow, needed: Sequence[str], optional: Sequence[str], where: str) -> Cells:
    cells = Cells({name: cell(row, name, where) for name in needed})
    empty = [name for name, text in cells.items() if not text]
    if empty:
        raise SourceError(f"an empty cell in column {empty[0]!r}", where=where, expected="a value for each image")
    return Cells(cells | {name: row.cells.get(name, "") for name in optional})
