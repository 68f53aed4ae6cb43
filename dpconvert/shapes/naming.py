"""Names of pictures and splits as the shapes take them from file names."""

from __future__ import annotations

from pathlib import PurePosixPath

from dpconvert.card import Split
from dpconvert.errors import SourceError

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
