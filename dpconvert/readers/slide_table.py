"""Names of slides, and the table with a row for each slide: its patient, set and label, for the shape "slides"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from dpconvert import names
from dpconvert.annotations.parsing.table import Table, TableRow
from dpconvert.errors import SourceError
from dpconvert.plural import counted
from dpconvert.readers.labels import InColumns, LabelColumns, check_given
from dpconvert.readers.layout_keys import Missing, SetLists, Tabular
from dpconvert.readers.layouts.table import cell, filled
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile

SLIDE = r"(?:\.ome)?\.(?:svs|ndpi|mrxs|scn|bif|svslide|vms|vmu|dcm|czi|zarr|ozx|vsi|tiff?)"
LABEL = "\0label"  # no name of a column


class SlideTable(LabelColumns, Tabular, SetLists):
    """Keys of [layout] about the table of slides."""

    slide: str = "slide"
    """Column of the table that names the slide, or a template over its columns, such as `"{slide:03}"`, which pads 7
    to 007. Empty if a row is about a patient, whom the column `group` names as the pattern's `(?P<group>...)` does: it
    holds for all of the patient's slides.
    """
    group: str = "group"
    """Column of the patient; empty if the table has none."""
    split: str = ""
    """Column of the split."""
    label: str = ""
    """Column of the slide's label. With kind `multilabel`, a cell holds any number of labels, between which is
    `separator`.
    """
    indicators: list[str] = []
    """Columns of 0 and 1 in place of `label`, one for each class in the order of `classes`, with kind `multilabel`."""
    value: str = ""
    """Column of the slide's number in place of `label`, with kind `regression`."""
    missing: Missing = "error"
    """Slides without annotations: `"error"` (or `false`) refuses them, `"skip"` (or `true`) leaves them out and counts
    them, `"none"` says that they show nothing that the rule looks for. With the kinds `multilabel` and `regression`,
    `"skip"` also leaves out slides without a label in the table.
    """


def stem(name: str) -> str:
    """Return the name of a slide's file without its folder and extension."""
    return re.sub(rf"(?i){SLIDE}$", "", PurePosixPath(name).name)


def called_as(slides: Sequence[MatchedFile]) -> dict[str, str]:
    """Map every name and alias of a slide to its name."""
    aliases = {alias: slide["name"] for slide in slides for alias in slide.aliases}
    return aliases | {slide["name"]: slide["name"] for slide in slides}


def _labels(source: Source, layout: SlideTable) -> InColumns | None:
    """Return the reader of labels that are not one class, for the rows of the table; None if no row states any.

    Raises:
        ManifestError: the keys do not suit the kind, or the rule takes classes from annotations.
        SourceError: there is no table.
    """
    manifest = source.manifest
    if manifest.target == "class":
        check_given(manifest, layout)
        return None
    if manifest.target == "labels" and not (layout.label or layout.indicators) and source.match("annotations"):
        return None
    labels = InColumns(manifest, layout, layout.decimal)
    if not source.match("table"):
        raise SourceError(
            f"no table of slides, which kind {manifest.kind!r} needs",
            where=source.root,
            expected=f"a file like {manifest.files['table'].example}",
        )
    return labels


def _label(row: TableRow, labels: InColumns, layout: SlideTable, rows: Counter[str], where: str) -> str:
    """Return the label that a row states; '' if the slide is left out."""
    cells = labels.cells(lambda column: cell(row, column, where))
    out = "that `skip` names, left out" if labels.skipped(cells) else ""
    if not out and layout.missing == "skip" and labels.lacking(cells) is not None:
        out = "without a label, left out"
    rows[out] += bool(out)
    return "" if out else labels.label(cells, where)


def rows_of(source: Source, layout: SlideTable, slides: Sequence[MatchedFile]) -> dict[str, dict[str, str]]:
    """Slide's name, folded -> what the table says of it; its label, if it is not one class, under `LABEL`.

    A row names a slide by its name, an alias, or its file; or the patient of some slides.

    Raises:
        ManifestError: the keys do not suit the kind.
        SourceError: a row states no label, two rows differ about one slide, or no name of a slide tells the patient.
    """
    labels = _labels(source, layout)
    called = _OfSlides(slides, layout) if layout.slide else _OfGroups(slides, layout)
    columns = [*filter(None, (layout.group, layout.split, layout.label))]
    by_slide: dict[str, dict[str, str]] = {}
    for found in source.match("table"):
        rows, left_out = Table(source.read(found.name), found.name, layout.dialect), Counter[str]()
        for row in rows:
            where = f"{found.name}, line {row.line}"
            known = {column: cell(row, column, where) for column in columns}
            if labels is not None:
                known[LABEL] = _label(row, labels, layout, left_out, where)
            for name in called.slides_of(row, where):
                if by_slide.setdefault(name, known) != known:
                    raise SourceError("two lines about one slide, with different values", where=where, found=name)
        source.notes += [f"{counted(n, 'row')} of {found.name} {what}" for what, n in left_out.items() if n]
        source.notes += rows.notes()
    source.notes += labels.notes() if labels is not None else []
    return by_slide


class _OfSlides:
    """The slides that rows name."""

    def __init__(self, slides: Sequence[MatchedFile], layout: SlideTable) -> None:
        self.slide = layout.slide
        self.by_name = {names.folded(alias): names.folded(name) for alias, name in called_as(slides).items()}
        self.of_file = _file_names(slides)

    def slides_of(self, row: TableRow, where: str) -> list[str]:
        """The slide of a row, folded; what the row calls it if it is not here."""
        by_template = "{" in self.slide and self.slide not in row.cells
        told = filled(self.slide, row.cells, where, "slide") if by_template else cell(row, self.slide, where)
        file = PurePosixPath(names.file_name(told)).name
        name = names.folded(stem(file))
        return [self.by_name.get(name) or self.of_file.get(names.folded(file)) or self.of_file.get(name, name)]


class _OfGroups:
    """The slides of the patients that rows name."""

    def __init__(self, slides: Sequence[MatchedFile], layout: SlideTable) -> None:
        self.column = layout.group
        self.slides: dict[str, list[str]] = {}
        for slide in slides:
            self.slides.setdefault(names.folded(slide.get("group", "")), []).append(names.folded(slide["name"]))
        if not self.column or "" in self.slides:
            raise SourceError(
                "no column names the patient of a row" if not self.column else "the name tells no patient",
                where="[layout]" if not self.column else self.slides[""][0],
                remedy='`slide = ""` in [layout] says that a row of the table is about a patient: name the column as '
                "`group` in [layout], and the patient in the pattern of [files.slides], as (?P<group>...)",
            )

    def slides_of(self, row: TableRow, where: str) -> list[str]:
        """The slides of a row's patient, folded; what the row calls the patient if none is here."""
        group = names.folded(cell(row, self.column, where))
        return self.slides.get(group, [group])


def notes_on_rows(
    table: Mapping[str, Mapping[str, str]], slides: Sequence[MatchedFile], layout: SlideTable
) -> Iterator[str]:
    """Notes of the rows about no slide here, and of those without a group. table: as `rows_of` returns it."""
    here = {names.folded(slide["name"]): slide for slide in slides}
    if absent := table.keys() - here.keys():
        yield f"{counted(len(absent), 'row')} of the table about no slide here, the first: {min(absent)}"
    alone = [
        slide.name for name, slide in here.items() if _lacks(table.get(name), layout.group) and not slide.get("group")
    ]
    if alone:
        yield (
            f"{counted(len(alone), 'slide')} without a group in the table, each a group of its own, the first: "
            f"{min(alone)}"
        )


def _lacks(row: Mapping[str, str] | None, group: str) -> bool:
    return row is not None and group != "" and not row.get(group)


def _file_names(slides: Sequence[MatchedFile]) -> dict[str, str]:
    """Map the names of files that only one slide has, with and without extension, to the slide's name; all folded."""
    files = [(name, s["name"]) for s in slides for name in {PurePosixPath(s.name).name, PurePosixPath(s.name).stem}]
    often = Counter(names.folded(file) for file, _ in files)
    return {names.folded(file): names.folded(slide) for file, slide in files if often[names.folded(file)] == 1}
