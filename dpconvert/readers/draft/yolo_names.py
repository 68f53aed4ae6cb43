"""What the numbers of classes in files of YOLO are called: by data.yaml, classes.txt, obj.names or _darknet.labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from dpconvert.errors import ReadError
from dpconvert.readers.draft.survey import Survey
from dpconvert.readers.draft.toml import some, table

LARGEST = 1 << 16  # bytes
LISTED = re.compile(r"(?i)(?:classes|class_names|predefined_classes|labels)\.txt|.*\.names|_darknet\.labels")
YAML = re.compile(r"(?i).*\.ya?ml")
POSES = re.compile(rb"^kpt_shape\s*:", re.MULTILINE)
INLINE = re.compile(r"^names\s*:\s*(?P<open>[\[{])(?P<items>[^\]}]*)[\]}]", re.MULTILINE)
BLOCK = re.compile(r"^names\s*:\s*(?:#.*)?\n(?P<items>(?:[ \t]*(?:-|\d+\s*:).*(?:\n|\Z))+)", re.MULTILINE)
ITEM = re.compile(r"(?:-\s+|(?P<number>\d+)\s*:\s*)?(?P<quote>['\"]?)(?P<name>.*?)(?P=quote)\s*(?:#.*)?")


def are_yolo(survey: Survey) -> bool:
    """Whether the files of annotations are those of YOLO."""
    return {*survey.outlines.values()} == {"yolo"}


def classes(survey: Survey, drawn: Counter[str]) -> tuple[list[str], list[str]]:
    """The line of [layout] that names the classes, which `drawn` counts by their numbers and then by their names; or a
    question, if nothing here names them.
    """
    if (poses := _of_poses(survey)) is not None:
        return [], [f"{poses} states key points (kpt_shape): files of poses are not read, but look like outlines"]
    found = class_names(survey, drawn)
    if found is None:
        numbers = sorted(drawn, key=int)
        question = (
            f"The classes in the files of YOLO are the numbers {some(numbers)}, and no data.yaml or classes.txt here "
            f'names them: name them under [layout], as in labels = {{"{numbers[0]}" = "tumour"}}, and in `classes`'
        )
        return [], [question]
    file, called = found
    counts = {called[number]: count for number, count in drawn.items()}
    drawn.clear()
    drawn.update(counts)
    return [f"labels = {table(called)}  # as {file} says"], []


def _of_poses(survey: Survey) -> str | None:
    """The data.yaml that says that files hold poses: with two numbers per key point they look like outlines."""
    for file in filter(YAML.fullmatch, survey.names):
        if survey.source.sizes[file] <= LARGEST and POSES.search(survey.source.read(file)):
            return file
    return None


def class_names(survey: Survey, numbers: Iterable[str]) -> tuple[str, dict[str, str]] | None:
    """The file that names all these classes, and their names; None if none does, or if two disagree."""
    wanted = sorted(numbers, key=int)
    files = [file for file in survey.names if survey.source.sizes[file] <= LARGEST]
    listed = {file: names for file in files if (names := _names(survey, file)) and {*wanted} <= names.keys()}
    found = [(file, {number: names[number] for number in wanted}) for file, names in listed.items()]
    agree = len({tuple(names.items()) for _, names in found}) == 1
    return found[0] if agree and len({*found[0][1].values()}) == len(wanted) else None


def _names(survey: Survey, file: str) -> dict[str, str]:
    """Number -> name of each class that a file lists; nothing for another file."""
    base = PurePosixPath(file).name
    if not (LISTED.fullmatch(base) or YAML.fullmatch(base)):
        return {}
    try:
        text = survey.source.read(file).decode("utf-8-sig").replace("\r\n", "\n")
    except (ReadError, UnicodeError):
        return {}
    lines = list(_of_yaml(text) if YAML.fullmatch(base) else text.rstrip().split("\n"))
    items = [ITEM.fullmatch(line.strip()) for line in lines]
    named = {match["number"] or str(at): match["name"].strip() for at, match in enumerate(items) if match}
    return named if len(named) == len(lines) and all(named.values()) else {}


def _of_yaml(text: str) -> Iterator[str]:
    """The items of `names` in a data.yaml, in one line or one a line."""
    if (inline := INLINE.search(text)) is not None:
        yield from (item for item in inline["items"].replace("\n", " ").split(",") if item.strip())
    elif (block := BLOCK.search(text)) is not None:
        yield from (line for line in block["items"].split("\n") if line.strip())
