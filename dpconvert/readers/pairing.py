"""What the shapes share: names of images and splits, files that belong together, a checked `[layout]`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError, field_validator

from dpconvert import names
from dpconvert.annotations.mask_pixels import zero_is_white
from dpconvert.annotations.parsing.lines import checked_encoding
from dpconvert.annotations.parsing.table import Dialect
from dpconvert.card import Model, Split
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.catalog import is_packaged
from dpconvert.manifest.model import Manifest
from dpconvert.plural import counted
from dpconvert.source.files import MatchedFile, Source
from dpconvert.source.record import SourceImage
from dpconvert.validation import first_fault

Idle = tuple[tuple[str, ...], str]
"""Keys of [layout] that the files at hand leave without use, and why."""

M = TypeVar("M", bound=BaseModel)

SHOWN = 3
IMAGE = "(?:png|jpe?g|jpe|tiff?|bmp|gif|webp|jp2|j2[kc]|jp[fx]|p[bgnp]m|pam)"  # endings of images that are read
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def _as_missing(value: Any) -> Any:
    return {True: "skip", False: "error"}[value] if isinstance(value, bool) else value


Missing = Annotated[Literal["error", "skip", "none"], BeforeValidator(_as_missing)]
"""What becomes of an image that nothing is said of. "error", or false: it is refused. "skip", or true: it is left out
and counted. "none": it shows none of the objects, so that all of it is negative."""


class Tabular(Model):
    """Keys of [layout] that say how tables are written; '' is found out for each table."""

    delimiter: Literal["", ",", ";", "\t", "|"] = ""
    """Character between cells; found in the header if not given."""
    encoding: str = ""
    """Encoding of the table, such as cp1252; UTF-8 or what its byte-order mark says if not given."""
    decimal: Literal["", ".", ","] = ""
    """Decimal separator of numbers."""
    sheet: str = ""
    """Sheet of an Excel workbook; the only one that holds rows if not given."""

    _known = field_validator("encoding")(checked_encoding)

    @property
    def dialect(self) -> Dialect:
        return Dialect(self.delimiter, self.encoding, self.decimal, self.sheet)


class Attributes(Model):
    """Key of [layout]: further facts about each image, such as its centre or scanner, that its samples keep."""

    attributes: dict[str, str] = {}
    """Name of an attribute of the samples -> where it is: a named group of the pattern of [files.images] for `folders`,
    a column of the table for `table` and `arrays`. An empty value is left out.
    """

    def values_of(self, cell: Callable[[str], str]) -> dict[str, str]:
        """The attributes of one image; `cell` gives the text of a group or column."""
        found = {name: cell(where).strip() for name, where in self.attributes.items()}
        return {name: text for name, text in found.items() if text}


class SplitNames(Model):
    """Key of [layout]: what the release calls its sets, as folders or in a column -> train, val or test."""

    splits: dict[str, Split] = {}
    """The release's own name of a set -> train, val or test."""

    def set_of(self, text: str, where: str | None = None) -> Split | None:
        """The split that a folder or a column names; None for an empty text.

        Raises:
            SourceError: it names none.
        """
        known = names.match(text, self.splits) if text else None
        return self.splits[known] if known is not None else as_split(text, where, list(self.splits))


def stem(name: str) -> str:
    """'a/b/c.png' -> 'a/b/c': unique where the name is, but for its extension."""
    return str(PurePosixPath(name).with_suffix(""))


def as_split(text: str, where: str | None = None, others: Sequence[str] = ()) -> Split | None:
    """The split that a folder or a column names; None for an empty text. others: which names else are known.

    Raises:
        SourceError: it names none.
    """
    if not text:
        return None
    if text.lower() not in SPLIT_NAMES:
        raise SourceError(
            "unknown split",
            where=where,
            found=repr(text),
            expected=" or ".join(["train, val or test", *others]),
            remedy=f'if the release calls a set so, say in the manifest\'s [layout]: splits = {{"{text}" = "train"}}',
        )
    return SPLIT_NAMES[text.lower()]


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
        """A note of the files that nobody asked for."""
        unused = [found.name for found in self._exact.values() if found.name not in self._asked]
        return [f"not used: {len(unused)} {self._what} of no image here, the first {unused[0]}"] if unused else []


def note_of_no_image(source: Source, what: str, files: Iterable[str], images: Iterable[SourceImage]) -> None:
    """Note the files that no image here uses."""
    used = {name for image in images for name in image.annotations}
    unused = [name for name in files if name not in used]
    if unused:
        source.notes.append(f"not used: {len(unused)} {what} of no image here, the first {unused[0]}")


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


def refuse_missing_none(manifest: Manifest, missing: Missing) -> None:
    """Refuse `missing = "none"` for layouts whose images are labelled as a whole: they show no objects.

    Raises:
        ManifestError: it is "none".
    """
    if missing == "none":
        raise ManifestError(
            'layout.missing: "none" says that an image without annotations shows no object; these images have labels',
            where=manifest.path,
            remedy="say true to leave out what has no image or no label",
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


def never_met(key: str, given: Collection[str], met: Iterable[str]) -> list[str]:
    """A note of the values that a key of [layout] names and that no image has."""
    absent = sorted(set(given) - set(met))
    shown = ", ".join(map(repr, absent[:SHOWN])) + (f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else "")
    return [f"not used: {shown} in `{key}` under [layout], which no image has"] if absent else []


def never_named(layout: BaseModel, keys: Iterable[str], texts: Collection[str]) -> Iterator[str]:
    """Yield a note of the texts that keys of [layout] name, without regard to case, and that no image has."""
    for key in keys:
        given = getattr(layout, key)
        met = [known for text in texts if (known := names.match(text, given)) is not None]
        yield from never_met(key, given, met)


def layout_of(manifest: Manifest, model: type[M]) -> M:
    """The manifest's `[layout]`, checked.

    Raises:
        ManifestError: names what is wrong in it.
    """
    try:
        return model.model_validate(manifest.layout)
    except ValidationError as error:
        fault = first_fault(error, model)
        raise ManifestError(f"layout.{fault}", where=manifest.path, found=fault.found) from None
