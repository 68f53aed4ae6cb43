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
    to 007.
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

    A row names a slide by its name, an alias, or its file.

    Raises:
        ManifestError: the keys do not suit the kind.
        SourceError: a row states no label, or two rows differ about one slide.
    """
    labels = _labels(source, layout)
    by_name = {names.folded(alias): names.folded(name) for alias, name in called_as(slides).items()}
    of_file = _file_names(slides)
    columns = [*filter(None, (layout.group, layout.split, layout.label))]
    by_slide: dict[str, dict[str, str]] = {}
    for found in source.match("table"):
        rows, left_out = Table(source.read(found.name), found.name, layout.dialect), Counter[str]()
        for row in rows:
            where = f"{found.name}, line {row.line}"
            file = PurePosixPath(names.file_name(_slide_of(row, layout.slide, where))).name
            name = names.folded(stem(file))
            name = by_name.get(name) or of_file.get(names.folded(file)) or of_file.get(name, name)
            known = {column: cell(row, column, where) for column in columns}
            if labels is not None:
                known[LABEL] = _label(row, labels, layout, left_out, where)
            if by_slide.setdefault(name, known) != known:
                raise SourceError("two lines about one slide, with different values", where=where, found=name)
        source.notes += [f"{counted(n, 'row')} of {found.name} {what}" for what, n in left_out.items() if n]
        source.notes += rows.notes()
    source.notes += labels.notes() if labels is not None else []
    return by_slide


def _slide_of(row: TableRow, slide: str, where: str) -> str:
    """The slide that a row names, by a column or a template."""
    return (
        filled(slide, row.cells, where, "slide") if "{" in slide and slide not in row.cells else cell(row, slide, where)
    )


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
