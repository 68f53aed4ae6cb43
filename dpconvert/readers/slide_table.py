"""Names of slides, and the table with a row for each slide."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from dpconvert import names
from dpconvert.annotations.parsing.table import Dialect, Table
from dpconvert.errors import SourceError
from dpconvert.readers.layouts.table import cell
from dpconvert.source.files import MatchedFile, Source

SLIDE = r"(?:\.ome)?\.(?:svs|ndpi|mrxs|scn|bif|svslide|vms|vmu|dcm|czi|zarr|tiff?)"


@dataclass(frozen=True)
class SlideColumns:
    """The column that names the slide, and those that are read."""

    slide: str
    asked: Sequence[str]
    dialect: Dialect


def stem(name: str) -> str:
    """Return the name of a slide's file without its folder and extension."""
    return re.sub(rf"(?i){SLIDE}$", "", PurePosixPath(name).name)


def called_as(slides: Sequence[MatchedFile]) -> dict[str, str]:
    """Map every name and alias of a slide to its name."""
    aliases = {alias: slide["name"] for slide in slides for alias in slide.aliases}
    return aliases | {slide["name"]: slide["name"] for slide in slides}


def read(source: Source, slides: Sequence[MatchedFile], columns: SlideColumns) -> dict[str, dict[str, str]]:
    """Return a mapping: slide's name, folded -> what the table says of it.

    A row names a slide by its name, an alias, or its file.

    Raises:
        SourceError: two rows about one slide differ.
    """
    by_name = {names.folded(alias): names.folded(name) for alias, name in called_as(slides).items()}
    of_file = _file_names(slides)
    told: dict[str, dict[str, str]] = {}
    for found in source.match("table"):
        rows = Table(source.read(found.name), found.name, columns.dialect)
        for row in rows:
            where = f"{found.name}, line {row.line}"
            file = PurePosixPath(names.file_name(cell(row, columns.slide, where))).name
            name = names.folded(stem(file))
            name = by_name.get(name) or of_file.get(names.folded(file)) or of_file.get(name, name)
            known = {column: cell(row, column, where) for column in columns.asked}
            if told.setdefault(name, known) != known:
                raise SourceError("two lines about one slide, with different values", where=where, found=name)
        source.notes += rows.notes()
    return told


def _file_names(slides: Sequence[MatchedFile]) -> dict[str, str]:
    """Map the names of files that one slide alone has, with and without extension, to the slide's name; all folded."""
    files = [(name, s["name"]) for s in slides for name in {PurePosixPath(s.name).name, PurePosixPath(s.name).stem}]
    often = Counter(names.folded(file) for file, _ in files)
    return {names.folded(file): names.folded(slide) for file, slide in files if often[names.folded(file)] == 1}
