"""Files that list the images of each set, as Pascal VOC's ImageSets/Main/train.txt and MONAI's data lists do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from dpconvert.errors import ReadError
from dpconvert.readers.draft import names
from dpconvert.readers.draft.survey import Survey

LIST = re.compile(r"(?i)\.(txt|lst|list|json)$")
LARGEST = 1 << 24  # bytes
ENOUGH = 0.5  # of the lines, which name images


def set_lists(survey: Survey) -> list[str]:
    """The files here that list which images are in which of several sets."""
    stems = {names.stem(name).casefold() for name in survey.images}
    found: dict[str, set[str]] = {}
    for file in survey.names:
        if not LIST.search(file) or survey.source.sizes[file] > LARGEST or file in survey.outlines:
            continue
        lists = dict(_lists(survey, file))
        sets = {to for to, of in lists.items() if of and _known(of, stems) >= ENOUGH * len(of)}
        if sets:
            found[file] = sets
    return list(found) if len(set().union(*found.values())) > 1 else []


def _known(listed: list[str], stems: set[str]) -> int:
    return sum(names.stem(text.replace("\\", "/")).casefold() in stems for text in listed)


def _lists(survey: Survey, file: str) -> Iterator[tuple[str, list[str]]]:
    """Each set, and what the file lists of it."""
    try:
        text = survey.source.read(file).decode("utf-8-sig")
    except (ReadError, UnicodeError):
        return
    if not file.lower().endswith(".json"):
        if to := names.as_set(PurePosixPath(file).stem):
            yield to, [line.split()[0].split(",")[0] for line in text.splitlines() if line.strip()]
        return
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, list) and (to := names.as_set(key)):
            yield to, [name for one in value if (name := _name(one))]


def _name(one: Any) -> str:
    """The image that an element of a list names."""
    if isinstance(one, dict):
        one = next((one[key] for key in ("image", "file", "file_name", "filename", "path") if key in one), "")
    one = one[0] if isinstance(one, list) and len(one) == 1 else one
    return one if isinstance(one, str) else ""
