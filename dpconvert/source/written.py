"""Folders of tasks that a conversion has written among the files of a source: they are no part of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from dpconvert.card import FILE_NAME, INDEX_NAME, WORK

OF_SHARDS = "webdataset", "parquet"  # that read shards, and so may be about these
CARD_KEYS = {"digest", "request", "shards"}
SHOWN = 3


def is_written(folder: Path) -> bool:
    """Whether a folder holds a task that a conversion has finished, or begun."""
    if (folder / WORK / "request.json").is_file():
        return True
    if not (folder / FILE_NAME).is_file() or not (folder / INDEX_NAME).is_file():
        return False
    try:
        card = json.loads((folder / FILE_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(card, dict) and card.keys() >= CARD_KEYS


def said(folders: Sequence[str]) -> Iterator[str]:
    """Yield what is said of such folders: 'not read: shards/Lung, which dpconvert has written'."""
    more = f" and {len(folders) - SHOWN} more" if len(folders) > SHOWN else ""
    if folders:
        yield f"not read: {', '.join(folders[:SHOWN])}{more}, which dpconvert has written"
