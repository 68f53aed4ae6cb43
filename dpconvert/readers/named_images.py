"""Files that name the images that they are about: which image here each of them names, and what names none of them.

One rule for every source: what a file says of images that are not here is counted and noted, and a source whose files
name no image here at all is refused.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from weakref import WeakKeyDictionary

from dpconvert.annotations import programs
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.listed import NamedImage, Names, shared_folders, some
from dpconvert.errors import ReadError, SourceError
from dpconvert.plural import counted
from dpconvert.readers.nearby import Nearby
from dpconvert.source.files import Source

_contents: WeakKeyDictionary[Source, tuple[str, bytes]] = WeakKeyDictionary()  # the last file of each source
UNANSWERED = "not annotated"
_unanswered: WeakKeyDictionary[Source, list[str]] = WeakKeyDictionary()  # names of images that nobody annotated
SEVERAL = re.compile(r"(?i)\.(xml|(nd)?json|jsonl|csv|sqlite|db)(\.gz)?$")  # files that may be about several images


def content(source: Source, name: str) -> bytes:
    """Return the unpacked content of a file of annotations, which is read once for images that follow one another.

    Raises:
        ReadError: the file cannot be read or unpacked.
    """
    if (last := _contents.get(source)) is None or last[0] != name:
        last = _contents[source] = name, annotation_files.unpacked(source.read(name), name)
    return last[1]


def images_of(source: Source, name: str) -> list[NamedImage] | None:
    """The images that a file of annotations names, or None if it names none; a note of those that nobody annotated.

    Raises:
        ReadError: it is of a known format, but damaged.
    """
    if not SEVERAL.search(name):
        return None
    try:
        data = content(source, name)
        programs.detect(data, name)
    except ReadError:  # a file of another kind, which is about no image
        return None
    for why, images in annotation_files.unanswered(data, name).items():
        first = next(iter(images[0]), "without a name")
        source.notes.append(f"{name}: {counted(len(images), 'image')} {UNANSWERED}, {why}; the first: {first}")
        _unanswered.setdefault(source, []).extend(one for called in images for one in called)
    return annotation_files.images_named(data, name)


def without_unanswered(source: Source, images: Iterable[str]) -> list[str]:
    """Return the images but those that files list as not annotated, whose content is unknown."""
    names = Names(_unanswered.get(source, []))
    return [image for image in images if not names.places(image)]


def unanswered(source: Source) -> str:
    """What the notes of a source say of images that its files name, and that nobody annotated."""
    return "; ".join(note for note in source.notes if f" {UNANSWERED}, " in note)


class Mentions:
    """Which files name an image here.

    listings: file -> the images that it names. images: names of the files of images here.

    Raises:
        SourceError: an entry fits several images here, or two files name one image, which lies near one of them only.
    """

    def __init__(self, listings: Mapping[str, Sequence[NamedImage]], images: Iterable[str]) -> None:
        self._of: dict[str, list[str]] = defaultdict(list)
        self._absent: dict[str, list[NamedImage]] = {}
        images = list(images)
        nearby = Nearby.of(listings)
        for file, named in listings.items():
            meant = _meant(_claims(named, images), named, nearby[file], file)
            for image in meant.values():
                self._of[image].append(file)
            self._absent[file] = [one for entry, one in enumerate(named) if entry not in meant]
        for image, files in self._of.items():
            _check_files(image, list(dict.fromkeys(files)), nearby)
        self.naming_none = [file for file, named in listings.items() if named and len(self._absent[file]) == len(named)]

    @property
    def files(self) -> Collection[str]:
        """The files that name images."""
        return self._absent.keys()

    @property
    def found(self) -> bool:
        """Whether a file names an image here."""
        return bool(self._of)

    def of(self, image: str) -> tuple[str, ...]:
        """The files that name an image."""
        return tuple(dict.fromkeys(self._of.get(image, ())))

    def notes(self) -> list[str]:
        """A note of each file that names images that are not here."""
        return [absent_note(file, absent) for file, absent in self._absent.items() if absent]

    def check(self, source: Source) -> None:
        """Note what names images that are not here.

        Raises:
            SourceError: no file names an image here.
        """
        if self.naming_none and not self.found:
            file = self.naming_none[0]
            raise _no_image(file, [_name(one) for one in self._absent[file]])
        source.notes += self.notes()


def absent_note(file: str, absent: Sequence[NamedImage]) -> str:
    """A note of the images that a file names and that are not here."""
    lost = counted(sum(one.annotations for one in absent), "annotation")
    first = next((one for one in absent if one.annotations), absent[0])
    images = counted(len(absent), "image")
    return f"{file} names {images} of which no file is here, with {lost}; the first: {_name(first)}"


def check_names(source: Source, file: str, names: Collection[str], used: Collection[str]) -> None:
    """Note the images that a table or list names and that are not here.

    names: the images that it names. used: those of them that are here.

    Raises:
        SourceError: none is.
    """
    absent = [name for name in names if name not in used]
    if absent and len(absent) == len(names):
        raise _no_image(file, absent)
    if absent:
        source.notes.append(
            f"{file} names {counted(len(absent), 'image')} of which no file is here, the first: {absent[0]}"
        )


def _claims(named: Sequence[NamedImage], images: Sequence[str]) -> dict[int, list[str]]:
    """Entry of a file -> the images here that it fits."""
    owners = [entry for entry, one in enumerate(named) for _ in one.names]
    known = Names(name for one in named for name in one.names)
    claims: dict[int, list[str]] = defaultdict(list)
    for image in images:
        for entry in dict.fromkeys(owners[place] for place in known.places(image)):
            claims[entry].append(image)
    return dict(claims)


def _meant(claims: dict[int, list[str]], named: Sequence[NamedImage], nearby: Nearby, file: str) -> dict[int, str]:
    """Entry of a file -> the image that it means."""
    found: dict[int, str] = {}
    for entry, images in sorted(claims.items(), key=lambda claim: -len(claim[1])):  # those of several images first
        best = _best(images, named[entry], nearby)
        if len(best) > 1:
            raise SourceError(
                f"the name {_name(named[entry])!r} fits several images",
                where=file,
                found=", ".join(best[:3]),
                remedy="let the file name them with their folders and endings, or narrow the pattern of the images",
            )
        if len(images) > 1 or best[0] in named[entry].names or not nearby.is_elsewhere(best[0]):
            found[entry] = best[0]
    return found


def _best(images: list[str], entry: NamedImage, nearby: Nearby) -> list[str]:
    """The image that an entry means: the only one, or that whose name agrees best; several if they agree equally."""
    if len(images) == 1:
        return images
    close = [max(shared_folders(name, image) for name in entry.names) for image in images]
    best = [image for image, score in zip(images, close, strict=True) if score == max(close)]
    near = nearby.choose(best) if len(best) > 1 else best
    exact = [image for image in images if image in entry.names]
    return near if len(near) == 1 and (not exact or max(close) == 0) else exact or best


def _check_files(image: str, files: list[str], nearby: Mapping[str, Nearby]) -> None:
    for one, other in itertools.permutations(files, 2):
        if nearby[one].nearer(image, nearby[other]):
            raise SourceError(
                "two files name this image, which lies near one of them only",
                where=image,
                found=f"{one} and {other}",
                remedy="let the files name images with their folders, or narrow the pattern of the files",
            )


def _no_image(file: str, absent: Sequence[str]) -> SourceError:
    return SourceError(
        "names no image that is here",
        where=file,
        expected="names of files of images",
        found=some(absent),
        remedy="check that the images and this file belong together, and that the pattern of the images matches them",
    )


def _name(one: NamedImage) -> str:
    """The first name of an image that looks like a file's, else the first."""
    return next((name for name in one.names if PurePosixPath(name).suffix), one.names[0])
