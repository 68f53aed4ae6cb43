"""SICAPv2: patches in one folder; grades, sets and folds in Excel workbooks; patients in another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dpconvert.annotations.parsing.table import Table, TableRow
from dpconvert.card import Split
from dpconvert.errors import SourceError
from dpconvert.plural import counted
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts.table import cell
from dpconvert.readers.nearby import Endings
from dpconvert.source.files import MatchedFile, Source
from dpconvert.source.record import SourceImage

COLUMNS = ("NC", "G3", "G4", "G5")
HEAD = ("image_name", *COLUMNS, "G4C")
VALIDATION = "1"  # the fold


def images(source: Source) -> Iterator[SourceImage]:
    images = {found.name: found for found in source.need("images")}
    endings, patients = Endings(iter(images)), _patients(source)
    grades: dict[str, str] = {}
    sets: dict[str, Split] = {}
    about: dict[str, dict[str, str]] = {}
    for table in source.need("tables"):
        for row in Table(source.read(table.name), table.name):
            where = f"{table.name}, line {row.line}"
            file = _file(row, endings, where)
            label = _grade(row, where)
            if grades.setdefault(file, label) != label:
                raise SourceError("two tables state different grades for this patch", where=where, found=grades[file])
            about.setdefault(file, {})["cribriform"] = cell(row, "G4C", where) or "0"
            _take_set(table, file, sets, about[file])
    if unlisted := len(images) - len(grades):
        source.notes.append(f"not used: {counted(unlisted, 'patch')} in no table")
    for file, label in sorted(grades.items()):
        found = images[file]
        group = patients.get(found["slide"], found["slide"])
        yield SourceImage(
            found["name"], (file,), group, label=label, split=sets.get(file, "train"), attributes=about[file]
        )


def _take_set(table: MatchedFile, file: str, sets: dict[str, Split], about: dict[str, str]) -> None:
    if table["split"] != "Test":
        return
    if not table["fold"]:
        sets[file] = "test"
    else:
        about["fold"] = table["fold"]
        if table["fold"] == VALIDATION:
            sets[file] = "val"


def _file(row: TableRow, endings: Endings, where: str) -> str:
    name = cell(row, "image_name", where)
    found = endings.find(f"images/{name}")
    if len(found) != 1:
        raise SourceError("no image of this name", where=where, expected=f"images/{name}")
    return found[0]


def _grade(row: TableRow, where: str) -> str:
    grades = [column for column in COLUMNS if cell(row, column, where) == "1"]
    if len(grades) != 1:
        raise SourceError(
            "not exactly one grade", where=where, expected=f"a 1 in one of {', '.join(COLUMNS)}", found=grades
        )
    return grades[0]


def _patients(source: Source) -> dict[str, str]:
    """Slide -> patient."""
    tables = [Table(source.read(found.name), found.name) for found in source.match("patients")]
    if not tables:
        source.notes.append("wsi_labels.xlsx is missing: groups are slides, and a patient may be in two sets")
    rows = [(row, f"{table.name}, line {row.line}") for table in tables for row in table]
    return {cell(row, "slide_id", where): f"patient {cell(row, 'patient_id', where)}" for row, where in rows}


def fake(tree: FakeTree) -> None:
    rows: dict[str, list[Sequence[object]]] = {"Test/Train": [], "Test/Test": []}
    slides: list[Sequence[object]] = []
    for number in range(10):
        slide = f"16B00018{50 + number}"
        slides.append((slide, number // 2, 3 + number % 3, 4))
        for look, label in enumerate(tree.manifest.classes):
            name = f"{slide}_Block_Region_1_0_{look}_xini_{6803 + 1024 * look}_yini_59786.jpg"
            tree.save(f"SICAPv2/images/{name}", tree.coarse(512, 512, look), quality=80)
            hot = [int(column == label) for column in COLUMNS]
            line = (name, *hot, int(label == "G4" and number % 2))
            rows["Test/Test" if number > 7 else "Test/Train"].append(line)
            for fold in range(1, 5) if number <= 7 else ():
                of = "Test" if number // 2 + 1 == fold else "Train"
                rows.setdefault(f"Validation/Val{fold}/{of}", []).append(line)
    tree.save("SICAPv2/images/16B0001899_Block_Region_1_0_0_xini_1_yini_1.jpg", tree.coarse(512, 512), quality=80)
    for name, lines in rows.items():
        tree.save_workbook(f"SICAPv2/partition/{name}.xlsx", [HEAD, *lines])
    head = ("slide_id", "patient_id", "Gleason_primary", "Gleason_secondary")
    tree.save_workbook("SICAPv2/wsi_labels.xlsx", [head, *slides])
