"""Files of a source that belong together: an image and its mask or annotations, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from dpconvert import names
from dpconvert.annotations.mask_pixels import zero_is_white
from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import is_packaged
from dpconvert.plural import counted
from dpconvert.readers.layout_keys import Idle, Missing
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

IMAGE = "(?:png|jpe?g|jpe|tiff?|bmp|gif|webp|jp2|j2[kc]|jp[fx]|p[bgnp]m|pam)"  # endings of images that are read


def stem(name: str) -> str:
    """'a/b/c.png' -> 'a/b/c': unique where the name is, but for its extension."""
    return str(PurePosixPath(name).with_suffix(""))


Key = Callable[[MatchedFile], str]


def _name(found: MatchedFile) -> str:
    return found["name"]


class ByName:
    """Files by their named group `name`; case counts only where two differ in nothing else.

    key: what else names a file.

    Raises:
        SourceError: two files of one name.
    """

    def __init__(self, found: list[MatchedFile], what: str, key: Key = _name) -> None:
        self._what, self._asked = what, set[str]()
        self._exact: dict[str, MatchedFile] = {}
        self._folded: dict[str, list[MatchedFile]] = {}
        for one in found:
            if key(one) in self._exact:
                raise SourceError(f"two {what} of one name", where=one.name, found=self._exact[key(one)].name)
            self._exact[key(one)] = one
            self._folded.setdefault(names.folded(key(one)), []).append(one)

    def get(self, name: str) -> MatchedFile | None:
        """The file of this name."""
        same = self._folded.get(names.folded(name), [])
        found = self._exact.get(name) or (same[0] if len(same) == 1 else None)
        if found is not None:
            self._asked.add(found.name)
        return found

    def notes(self) -> list[str]:
        """A note on the files that belong to no image here."""
        unused = [found.name for found in self._exact.values() if found.name not in self._asked]
        return [_of_no_image(self._what, unused)] if unused else []


def note_of_no_image(source: Source, what: str, files: Iterable[str], images: Iterable[SourceImage]) -> None:
    """Note the files that no image here uses."""
    used = {name for image in images for name in image.annotations}
    unused = [name for name in files if name not in used]
    if unused:
        source.notes.append(_of_no_image(what, unused))


def _of_no_image(what: str, unused: list[str]) -> str:
    """`what` is a plural."""
    if len(unused) == 1:
        return f"not used: {unused[0]}, one of the {what}, of no image here"
    return f"not used: {len(unused)} {what} of no image here, the first {unused[0]}"


def only_file(source: Source, found: Sequence[MatchedFile], what: str) -> MatchedFile:
    """The first of some files, the others being copies of it.

    Raises:
        SourceError: two differ.
    """
    first, *others = found
    for other in others:
        if source.read(other.name) != source.read(first.name):
            raise SourceError(f"two {what} that differ", where=other.name, found=first.name)
    return first


def no_partner(
    source: Source, what: str, image: MatchedFile, *, may_show_none: bool = True, found: str = ""
) -> SourceError:
    """The error of an image that nothing is said of. found: what there is instead."""
    if is_packaged(source.manifest):
        return SourceError(f"no {what} for this image", where=image.name, remedy=source.listed_by)
    none = ', and `missing = "none"` says that they show no object' if may_show_none else ""
    return SourceError(
        f"no {what} for this image",
        where=image.name,
        found=found or None,
        remedy=f"in the manifest's [layout], `missing = true` leaves such images out{none}",
    )


def paired(
    source: Source, one: str, other: str, *, missing: Missing, key: Key = _name
) -> Iterator[tuple[MatchedFile, MatchedFile | None]]:
    """Files of the kind `one`, each with the file of the kind `other` that has the same named group `name`, or `key`.

    What has no partner is left out and counted where `missing` is "skip", and comes alone where it is "none".

    Raises:
        SourceError: two of a name, or none where `missing` is "error".
    """
    what = source.manifest.files[other].what
    partners, images = ByName(source.match(other), what, key), source.need(one)
    alone, used = list[str](), dict[str, str]()
    for found in images:
        partner = partners.get(key(found))
        if partner is None and missing == "error":
            raise no_partner(source, what, found, may_show_none=other != "masks")
        if partner is None and missing == "skip":
            alone.append(found.name)
            continue
        if partner is not None and used.setdefault(partner.name, found.name) != found.name:
            raise SourceError("two images of one name", where=found.name, found=used[partner.name])
        yield found, partner
    if alone:
        source.notes.append(f"left out: {counted(len(alone), 'image')} without {what}, the first {alone[0]}")
    source.notes += partners.notes()


def no_white_zero(source: Source, masks: Iterable[str], given: str) -> Iterator[Idle]:
    """Say that `white_is_zero` is of no use: no mask is a TIFF whose zero is white."""
    tiffs = (name for name in masks if name.lower().endswith((".tif", ".tiff")))
    if given and not any(zero_is_white(source.read(name)) for name in tiffs):
        yield ("white_is_zero",), "no mask is a TIFF whose zero is white"
