"""The files of a source on disk: sorted names, with the fields that the patterns of the manifest find in them.

Names are relative to the folder, with '/' between parts. A zip or tar archive counts as a folder of its own name, so
that `IDC.zip` with a member `8863/0/a.png` gives the name `IDC.zip/8863/0/a.png`, read in place without unpacking.
Compressed tars (.tgz), 7-Zip files and archives inside archives would have to be read from their start for every file;
they are unpacked once into a cache (`dpconvert.source.packed`). Names are normalized by `dpconvert.names.file_name`,
whatever the system or the archive writes.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpconvert.errors import SourceError, UserError, printable
from dpconvert.image import Image, open_image
from dpconvert.image.depth import takes_range
from dpconvert.manifest.catalog import typed
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.roots import check_root
from dpconvert.plural import counted
from dpconvert.source import packed, unused
from dpconvert.source.arrays import elements
from dpconvert.source.arrays.columns import Columns
from dpconvert.source.arrays.elements import Element
from dpconvert.source.arrays.stacks import Stacks
from dpconvert.source.copies import ComparedFiles, copies, is_unpacked
from dpconvert.source.folder import Folder
from dpconvert.source.listing import Place, check_names, without_written
from dpconvert.source.matched import MatchedFile
from dpconvert.source.name_encoding import NameEncoding
from dpconvert.source.slides.slide_files import SlideFiles, slide_files
from dpconvert.source.slides.slide_links import linked, open_slide
from dpconvert.source.stamps import Stamps


class ArchiveMember(io.BytesIO):
    """The bytes of an archive's member, with its name."""

    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(data)
        self.name = str(path)


class Source(Folder):
    """The files under one folder, with what the manifest says about them: kinds of files, arrays, slides and images.

    The last image stays open, because inspecting an image and making each of its samples follow one another.

    Readers of the source add notes for the user to `notes`, which go into task.json.
    """

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        sizes: dict[str, int],
        places: dict[str, Place],
        slides: SlideFiles | None = None,
    ) -> None:
        super().__init__(root, sizes, places)
        self.manifest = manifest
        self.slides = slides or SlideFiles()
        self.encoding, self.written = NameEncoding(), list[str]()
        self._links: Path | None = None  # for slides whose files are not in one folder
        self.notes: list[str] = [*self.slides.notes]
        self._stacks: dict[str, Stacks] = {}
        self._columns: dict[str, Columns] = {}
        self._image: tuple[tuple[str, ...], Image] | None = None

    @classmethod
    def open(cls, root: Path, manifest: Manifest) -> Source:
        """List the files under `root`. Files unpacked beside their archive are listed once, folders that conversions
        have `written` not at all.

        Raises:
            SourceError: the folder does not exist.
        """
        check_root(root, manifest)
        hidden: list[str] = []
        encoding = NameEncoding(manifest.file_names or "")
        here, written = without_written(root, manifest.shape, hidden, encoding)
        found, packed_notes = packed.expanded(root, here, encoding)
        listed = sorted(found, key=lambda file: file[:2])
        check_names(listed, root)
        everything = {name: size for name, size, _ in listed}
        sizes = {name: size for name, size in everything.items() if not is_unpacked(name, everything)}
        places = {name: place for name, _, place in listed if place and name in sizes}
        slides = slide_files(root, sizes)
        source = cls(root, manifest, sizes, places, slides)
        source.notes += [*packed_notes, *_hidden(hidden), *encoding.notes()]
        source.encoding, source.written = encoding, written
        source._links = linked(root, slides)
        if source._links is not None:
            weakref.finalize(source, shutil.rmtree, source._links, ignore_errors=True)
        source._pass_over_copies()
        return source

    def _pass_over_copies(self) -> None:
        """List each file once if the source holds it twice."""
        single = {name: size for name, size in self.sizes.items() if name not in self.slides.parts}
        zipped = {(_base(name), self.sizes[name]) for name, place in self.places.items() if place.member is not None}
        content = cache(lambda name: self.checksum(name, whole=(_base(name), self.sizes[name]) in zipped))
        found, notes = copies(ComparedFiles(self.manifest, single, self.is_packed, content))
        self.sizes = {name: size for name, size in self.sizes.items() if name not in found}
        self.notes += notes

    def match(self, kind: str) -> list[MatchedFile]:
        """Return all files of one kind of the manifest's `[files]` in name order; a slide gives only its main file."""
        pattern, slides = re.compile(self.manifest.files[kind].pattern), self.slides.slides
        matched = []
        for name in self.sizes:
            if name in self.slides.parts:
                continue
            slide = slides.get(name)
            found = next(filter(None, map(pattern.search, slide.names if slide else (name,))), None)
            if found is not None:
                parts = {part: text or "" for part, text in found.groupdict().items()}
                matched.append(MatchedFile(name, parts, slide.aliases if slide else frozenset()))
        return matched

    def need(self, kind: str) -> list[MatchedFile]:
        """Like `match`, for a kind of files that the conversion requires.

        Raises:
            SourceError: no file matches; the message shows an example of a name that would.
        """
        found = self.match(kind)
        if not found:
            spec = self.manifest.files[kind]
            raise SourceError(
                f"no matching {spec.what} here",
                where=self.root,
                expected=f"names like '{spec.example}'" if spec.example else f"names that match '{spec.pattern}'",
                found=unused.by_suffix(self.sizes) or "no file",
                remedy=self._unpacking(spec.what) or "; ".join([self.listed_by, *self.slides.notes]),
            )
        return found

    @property
    def listed_by(self) -> str:
        """The command that lists the files of the source and those that are missing, as a remedy."""
        check = f"dpconvert check {typed(self.manifest)} --source {shlex.quote(str(self.root))}"
        return f"`{check}` lists the existing and the missing files"

    def _unpacking(self, what: str) -> str:
        packed = unused.archives_of(self, self.sizes)
        if packed:
            return unused.remedy(packed)
        return unused.zarr_out_of_place(self) or (unused.tables_of(self.sizes) if "table" in what else "")

    def read(self, name: str) -> bytes:
        """Return the bytes of one file.

        Raises:
            ReadError: the file cannot be read, or an archive's member is damaged.
        """
        found = elements.element(name, self.sizes)
        if found is not None and found.encoded:
            return self.columns(found.file).images(found.key).bytes_of(found.number)
        return super().read(name)

    def file(self, name: str) -> Path | io.BytesIO:
        """Return what an image reader opens: the path, or the bytes of an archive's member.

        Raises:
            ReadError: the archive cannot be read.
        """
        place = self.places.get(name, Place(name))
        packed_in = place.packed or elements.element(name, self.sizes) is not None
        return ArchiveMember(self.read(name), self.root / name) if packed_in else self.root / place.file

    def stacks(self, name: str) -> Stacks:
        """Return the arrays of a file, which stays open."""
        if name not in self._stacks:
            self._stacks[name] = elements.stacks(self, name)
        return self._stacks[name]

    def is_array(self, name: str) -> bool:
        """Whether an image is an element of an array, not a separate file."""
        found = elements.element(name, self.sizes)
        return found is not None and not found.encoded

    def takes_range(self, name: str) -> bool:
        """Whether the samples of an image need a range of values to become pixels of 8 bits."""
        found = elements.element(name, self.sizes)
        if found is None or found.encoded:
            return takes_range(self.file(name))
        holder = elements.single(self, found) if self._holds_one else self.stacks(found.file).array(found.key)
        return bool(holder.dtype != np.uint8)

    def columns(self, name: str) -> Columns:
        """Return the columns of a Parquet file, which stays open."""
        if name not in self._columns:
            self._columns[name] = elements.columns(self, name)
        return self._columns[name]

    def samples(self, found: Element) -> NDArray[Any]:
        """Return the samples of an element of an array, or the whole array if each file holds a single image.

        Raises:
            ReadError: there is no such element, or it is damaged.
        """
        if self._holds_one:
            return elements.single(self, found)
        return elements.one(found, self.stacks(found.file).array(found.key))

    @property
    def _holds_one(self) -> bool:
        """Whether each array holds a single image, as the axes of the manifest say."""
        axes = str(self.manifest.layout.get("axes", ""))
        return bool(axes) and not axes.startswith("N")

    def open_image(self, files: tuple[str, ...], columns: int) -> Image:
        """Open an image of one file, or of several in `columns` columns; it is valid until another one is opened.

        Raises:
            ReadError: the image is absent, damaged, or of a format that is not supported.
        """
        if self._image is None or self._image[0] != files:
            self.close()
            self._image = files, self.opened(files, columns)
        return self._image[1]

    def opened(self, files: tuple[str, ...], columns: int) -> Image:
        """Open an image as `open_image` does; the caller closes it."""
        slide = self.slides.slides.get(files[0])
        found = elements.element(files[0], self.sizes)
        if found is not None and not found.encoded:
            layout = self.manifest.layout
            axes, channels = str(layout.get("axes", "")).removeprefix("N"), layout.get("channels", ())
            image = elements.image(self.samples(found), found.name, axes, channels, self.manifest.pixels.range)
        elif slide is not None and slide.staged:
            image = open_slide(self.root, slide, self._links)
        else:
            image = open_image([self.file(name) for name in files], columns, self.manifest.pixels.range)
        if self.manifest.mpp_override is not None:
            image.restate(self.manifest.mpp_override)
        return image

    def reason(self, error: UserError) -> str:
        """Return the text of an error for a card: files have their names in the source, wherever the source lies."""
        text = str(error)
        for root in {str(self.root), str(self.root.absolute()), str(self.root.resolve())} - {"."}:
            text = re.sub(rf"(?<![\w./-]){re.escape(printable(root))}/", "", text)
        return text

    def used(self) -> set[str]:
        """Return the files that a pattern of the manifest matches, and all files of slides that consist of several."""
        return {*self.slides.parts, *(found.name for kind in self.manifest.files for found in self.match(kind))}

    def stamps(self) -> Stamps:
        """Return the states of the files, as they are now."""
        return Stamps(lambda name: self.root / self.lies(name if name in self.sizes else self._holder(name)).file)

    def _holder(self, name: str) -> str:
        found = elements.element(name, self.sizes)
        return name if found is None else found.file

    def close(self) -> None:
        """Close the open image."""
        if self._image is not None:
            with suppress(OSError):
                self._image[1].close()
            self._image = None

    def __del__(self) -> None:  # in a worker, nothing else says that the source is no longer needed
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_stacks": {}, "_columns": {}, "_image": None}


def _hidden(files: list[str]) -> Iterator[str]:
    """Yield a note on the images among files in folders that begin with a dot."""
    if images := sorted(name for name in files if unused.READ.search(unused.suffix(name))):
        yield (
            f"not read: {counted(len(images), 'image')} in folders whose names begin with a dot, the first "
            f"{images[0]}; rename these folders if they belong to the source"
        )


def _base(name: str) -> str:
    return name.rpartition("/")[2]
