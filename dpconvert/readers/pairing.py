"""What the shapes share: names of pictures and splits, files that belong together, a checked `[layout]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dpconvert.card import Split
from dpconvert.errors import ManifestError, SourceError
from dpconvert.manifest.model import Manifest
from dpconvert.source.files import Found, Source

M = TypeVar("M", bound=BaseModel)

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


def stem(name: str) -> str:
    """'a/b/c.png' -> 'a/b/c': unique where the name is, but for its extension."""
    return str(PurePosixPath(name).with_suffix(""))


def as_split(text: str) -> Split | None:
    """The split that a folder or a column names; None for an empty text.

    Raises:
        SourceError: it names none.
    """
    if not text:
        return None
    if text.lower() not in SPLIT_NAMES:
        raise SourceError("unknown split", found=repr(text), expected="train, val or test")
    return SPLIT_NAMES[text.lower()]


def paired(source: Source, one: str, other: str, *, missing: bool) -> Iterator[tuple[Found, Found | None]]:
    """Files of the kind `one`, each with the file of the kind `other` that has the same named group `name`.

    Raises:
        SourceError: two of a name, or none where `missing` is false.
    """
    partners: dict[str, Found] = {}
    for found in source.match(other):
        if found["name"] in partners:
            what = source.manifest.files[other].what
            raise SourceError(f"two {what} of one name", where=found.name, found=partners[found["name"]].name)
        partners[found["name"]] = found
    for found in source.need(one):
        if found["name"] not in partners and not missing:
            raise SourceError(f"no {source.manifest.files[other].what} for this picture", where=found.name)
        yield found, partners.get(found["name"])


def layout_of(manifest: Manifest, model: type[M]) -> M:
    """The manifest's `[layout]`, checked.

    Raises:
        ManifestError: names what is wrong in it.
    """
    try:
        return model.model_validate(manifest.layout)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(["layout", *map(str, problem["loc"])])
        raise ManifestError(f"{place}: {problem['msg']}", where=manifest.path) from None
