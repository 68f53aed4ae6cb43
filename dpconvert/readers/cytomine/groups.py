"""What may not be divided between splits: the patient of each slide if a file states it, else the slide."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from dpconvert import names
from dpconvert.annotations.formats import cytomine
from dpconvert.annotations.formats.cytomine import CytomineImage
from dpconvert.errors import ReadError, SourceError
from dpconvert.readers.cytomine.layout import Layout
from dpconvert.readers.layout_keys import layout_of
from dpconvert.source.files import Source

COLUMNS = ("patient", "slide", "group")


class Groups:
    """The group in the table, else the one that the manifest's `group` matches in the slide's name, else the slide."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.pattern = layout_of(source.manifest, Layout).group
        self.table = _table(source)
        self.slides = self.unsteady = 0

    def of(self, slide: CytomineImage) -> str:
        """The group of one image.

        Raises:
            SourceError: The table lacks this image.
        """
        file = PurePosixPath(slide.original_filename or "").name
        keys = [str(slide.id), str(slide.base_image), names.nfc(file), names.nfc(PurePosixPath(file).stem)]
        group = next((self.table[key] for key in keys if key in self.table), None)
        if group is not None:
            return group
        if self.table:
            table = self.source.match("groups")[0].name
            raise SourceError(
                "an image is not in this table", where=table, expected=f"{slide.id} or {file or 'its file'}"
            )
        if self.pattern and (found := re.search(self.pattern, file)):
            return found[1]
        self.slides += 1
        self.unsteady += slide.key == str(slide.id)
        return slide.key

    def tell(self) -> None:
        """Note unknown patients, and slides that only their ids in this project identify."""
        manifest = self.source.manifest
        if self.slides and manifest.group.kind == "patient":
            self.source.notes.append(
                "patients are not known here, so that slides are kept together instead; a table patients.csv with the "
                "columns image and patient tells them"
            )
        if self.unsteady and manifest.related:
            self.source.notes.append(
                "slides are distinguished only by their ids in this project: images.json, or a table slides.csv with "
                f"the columns image and slide, keeps those shared with {', '.join(manifest.related)} in the same splits"
            )


def _table(source: Source) -> dict[str, str]:
    """Map each image to its group, from all tables."""
    groups: dict[str, str] = {}
    for file in source.match("groups"):
        for image, group in _rows(source, file.name):
            if groups.setdefault(image, group) != group:
                raise SourceError(
                    f"two groups of image {image!r}", where=file.name, found=f"{groups[image]!r} and {group!r}"
                )
    return groups


def _rows(source: Source, name: str) -> list[tuple[str, str]]:
    found = []
    table = cytomine.rows(source.read(name), name)
    for row in table:
        cells = {names.folded(column): text for column, text in row.cells.items()}
        group = next((cells[column] for column in COLUMNS if cells.get(column)), None)
        if group is None or not cells.get("image"):
            raise ReadError(
                f"line {row.line}: no table of groups",
                where=name,
                expected="columns image and patient",
                found=str(row.cells)[:60],
            )
        found.append((names.file_name(cells["image"]), group))
    source.notes += table.notes()
    return found
