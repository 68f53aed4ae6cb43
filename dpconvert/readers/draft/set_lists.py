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
Lists = dict[str, list[str]]


def set_lists(survey: Survey) -> list[str]:
    """The files here that list which images are in which of several sets."""
    stems = {names.stem(name).casefold() for name in survey.images}
    found = []
    for file in survey.names:
        if not LIST.search(file) or survey.source.sizes[file] > LARGEST or file in survey.outlines:
            continue
        lists = [line for line in _lists(survey, file) if line]
        named = [text for some in lists for text in some]
        known = sum(names.stem(text.replace("\\", "/")).casefold() in stems for text in named)
        if named and known >= ENOUGH * len(named):
            found.append(file)
    return found


def _lists(survey: Survey, file: str) -> Iterator[list[str]]:
    """What the file lists of each set."""
    try:
        text = survey.source.read(file).decode("utf-8-sig")
    except (ReadError, UnicodeError):
        return
    if not file.lower().endswith(".json"):
        if names.as_set(PurePosixPath(file).stem):
            yield [line.split()[0].split(",")[0] for line in text.splitlines() if line.strip()]
        return
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(content, dict):
        for key, value in content.items():
            if names.as_set(key) and isinstance(value, list):
                yield [name for one in value if (name := _name(one))]


def _name(one: Any) -> str:
    """The image that an element of a list names."""
    if isinstance(one, dict):
        one = next((one[key] for key in ("image", "file", "file_name", "filename", "path") if key in one), "")
    one = one[0] if isinstance(one, list) and len(one) == 1 else one
    return one if isinstance(one, str) else ""
