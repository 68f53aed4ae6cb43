"""Keys of `[layout]` that several layouts share, the names of splits, and the check of the whole table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, PrivateAttr, ValidationError, field_validator

from dpconvert import names
from dpconvert.annotations.parsing.lines import checked_encoding
from dpconvert.annotations.parsing.table import Dialect
from dpconvert.card import Model, Split
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.model import Manifest
from dpconvert.validation_errors import first_fault

Idle = tuple[tuple[str, ...], str]
"""Keys of [layout] that the files at hand leave without use, and why."""
M = TypeVar("M", bound=BaseModel)
SHOWN = 3
SETS = "sets"  # the kind of files that list the images of each set
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "entraînement": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "validierung": "val",
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
        found = {name: names.whole(cell(where).strip()) for name, where in self.attributes.items()}
        return {name: text for name, text in found.items() if text}


class SplitNames(Model):
    """Key of [layout]: what the release calls its sets, as folders or in a column -> train, val or test."""

    splits: dict[str, Split] = {}
    """The release's own name of a set -> train, val or test."""

    _met: set[str] = PrivateAttr(default_factory=set)

    def set_of(self, text: str, where: str | None = None) -> Split | None:
        """The split that a folder or a column names; None for an empty text.

        Raises:
            SourceError: it names none.
        """
        known = names.match(text, self.splits) if text else None
        if known is not None:
            self._met.add(known)
        return self.splits[known] if known is not None else as_split(text, where, list(self.splits))

    def unmet(self) -> list[str]:
        """A note of the names in `splits` that `set_of` has met on no image."""
        return never_met("splits", self.splits, self._met)


class SetLists(SplitNames):
    """Keys of [layout] about the files of [files.sets]."""

    sets: dict[Literal["image", "split"], str] = {}
    """Columns of tables of [files.sets] with a row for each image or group, such as `{image = "image", split = "set"}`;
    without `split`, the pattern of [files.sets] tells the set.
    """

    @field_validator("sets")
    @classmethod
    def _names_images(cls, columns: dict[str, str]) -> dict[str, str]:
        if columns and not columns.get("image"):
            raise ValueError("`image` is needed: the column that names the image or the group")
        return columns

    _listed: bool = PrivateAttr(default=False)  # sets are also named by files that are read after the images

    def unmet(self) -> list[str]:
        """A note of the names in `splits` that no image has had, unless they may be those of lists."""
        return [] if self._listed else super().unmet()


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
        found = model.model_validate(manifest.layout)
    except ValidationError as error:
        fault = first_fault(error, model)
        raise ManifestError(f"layout.{fault}", where=manifest.path, found=fault.found) from None
    if isinstance(found, SetLists):
        found._listed = SETS in manifest.files
    return found
