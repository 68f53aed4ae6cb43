"""What lies in a folder that nobody has described yet: images, slides, tables and files of annotations, by content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from dpconvert.annotations import programs
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.parsing.table import Table
from dpconvert.errors import ManifestError, ReadError, SourceError
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.roots import UNDESCRIBED, check_folder
from dpconvert.plural import counted
from dpconvert.readers import slide_table
from dpconvert.readers.draft import large
from dpconvert.source import unused
from dpconvert.source.files import Source

MOST_BYTES = 1 << 28  # of a file that is looked into
OUTLINES = re.compile(r"(?i)\.(xml|annotations|ndpa|(geo|nd)?json|(geo)?jsonl|csv|txt)(\.gz)?$")
TABLES = re.compile(r"(?i)\.(csv|tsv|txt|xls[xm]|jsonl|ndjson)$")
SURELY_TABLES = re.compile(r"(?i)\.(csv|tsv|xls[xm])$")
SLIDE = re.compile(rf"(?i){slide_table.SLIDE}$")
MANY_IMAGES = re.compile(r"(?i)\.(?:h5|hdf5|npy|npz|parquet)(?:\.gz)?$")  # which the shape folders does not read
TIFF = re.compile(r"(?i)\.tiff?$")


@dataclass(frozen=True)
class Draft:
    """A manifest as far as it can be told. `questions` are what could not be, and somebody must fill in.

    classes: class -> how many of `of` there are, in label order. group: what a group is, and `why`. files: kind ->
    (pattern, comment). layout, rule, split: lines of TOML, comments included; dense: with the heads of its tables.
    """

    shape: str
    kind: str = "classification"
    classes: Mapping[str, int] = field(default_factory=dict)
    of: str = "images"
    group: str = "image"
    why: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    layout: tuple[str, ...] = ()
    rule: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


@dataclass(eq=False)
class Survey:
    """A source's files by what they are; slides of several files by their main one."""

    source: Source
    root: Path

    @classmethod
    def of(cls, root: Path) -> Survey:
        """List a folder, archives included.

        Raises:
            SourceError: The folder does not exist.
        """
        check_folder(root, UNDESCRIBED)
        return cls(Source.open(root, Manifest(name="source", task="Source")), root)

    def under(self, **content: Any) -> Source:
        """The same files, read by a manifest of this content."""
        from dpconvert.readers import with_defaults

        manifest = Manifest.model_validate({"name": "source", "task": "Source", "path": self.root / "x"} | content)
        return Source.open(self.root, with_defaults(manifest))

    @cached_property
    def names(self) -> list[str]:
        """Every file but the parts of slides, in name order."""
        return [name for name in self.source.sizes if name not in self.source.slides.parts]

    @cached_property
    def slides(self) -> list[str]:
        """Files of formats that only slides have; without any, TIFFs if they are slides by their content."""
        named = [name for name in self.names if SLIDE.search(name) and not TIFF.search(name)]
        tiffs = [name for name in self.names if TIFF.search(name)]
        return named or large.slides_of(self.source, tiffs)

    @cached_property
    def images(self) -> list[str]:
        """All images that are not slides."""
        known = set(self.slides)
        return [name for name in self.names if unused.READ.search(unused.suffix(name)) and name not in known]

    @cached_property
    def outlines(self) -> dict[str, programs.Format]:
        """Files of annotation programs -> their formats. Masks are not among them."""
        return {name: found for name, found in self._programs.items() if isinstance(found, str)}

    @cached_property
    def foreign(self) -> dict[str, ReadError]:
        """Files of known programs whose formats are not supported."""
        return {name: found for name, found in self._programs.items() if isinstance(found, ReadError)}

    def not_read(self) -> list[str]:
        """What to say of files of known programs that are not read."""
        return [
            f"{counted(len(self.foreign), 'file')} of a program that is not read: {error}"
            for error in list(self.foreign.values())[:1]
        ]

    @cached_property
    def _programs(self) -> dict[str, programs.Format | programs.ForeignError]:
        found: dict[str, programs.Format | programs.ForeignError] = {}
        for name in filter(OUTLINES.search, self.names):
            if self.source.sizes[name] > MOST_BYTES:
                continue
            try:
                found[name] = programs.detect(annotation_files.unpacked(self.source.read(name), name), name)
            except programs.ForeignError as error:
                if not SURELY_TABLES.search(name):
                    found[name] = error
            except ReadError:
                continue
        return found

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Tables with a head of two columns and more -> how to read them again: `rows`."""
        found = {}
        for name in filter(TABLES.search, self.names):
            table = None if name in self.outlines else self._table(name)
            if table is not None and len([column for column in table.columns if column]) > 1:
                found[name] = table
        return found

    @cached_property
    def unread(self) -> list[str]:
        """What is wrong with CSV files and workbooks that cannot be read as tables."""
        read = {*self.tables, *self.outlines}
        return [self._wrong(name) for name in filter(SURELY_TABLES.search, self.names) if name not in read]

    def _wrong(self, name: str) -> str:
        if self.source.sizes[name] > MOST_BYTES:
            return f"{name}: larger than what is looked into"
        try:
            columns = [column for column in Table(self.source.read(name), name).columns if column]
        except (ReadError, ManifestError) as error:
            return str(error)
        return f"{name}: its first row must name two columns or more; found {', '.join(columns) or 'none'}"

    def _table(self, name: str) -> Table | None:
        if self.source.sizes[name] > MOST_BYTES:
            return None
        try:
            return Table(self.source.read(name), name)
        except (ReadError, ManifestError):
            return None

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a table.

        Raises:
            ReadError: A row cannot be read.
        """
        return [dict(row.cells) for row in Table(self.source.read(name), name)]

    def nothing(self) -> SourceError:
        """The error of a folder without any image."""
        kinds = unused.by_suffix(self.names)
        packed = unused.archives_of(self.source, self.names)
        return SourceError(
            "no images here that can be read",
            where=self.root,
            found=kinds or "no files",
            remedy=unused.remedy(packed) if packed else "name the folder that holds the images or slides",
        )


def stem(name: str) -> str:
    """The name of a file without its folder and its ending, of slides and their annotations too."""
    base = PurePosixPath(name).name
    return re.sub(rf"(?i)(?:{slide_table.SLIDE})?(?:\.[a-z0-9]+)(?:\.gz)?$", "", base) or base
