"""What the folders of files that hold many images say of all images of a file.

Hive, Spark and pyarrow write columns into folders, as in `split=train/label=tumour/part-0.parquet`; others call a
folder by its class or set alone. What varies is judged as a column of a table (`dpconvert.readers.draft.tables`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dpconvert.readers.draft import naming
from dpconvert.readers.layout_keys import SPLIT_NAMES

KEY = re.compile(r"(?P<key>[^\W\d]\w*)=(?P<value>.+)")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions(files: Sequence[str]) -> dict[str, list[str]]:
    """Name of what a level of folders states -> its value for each file; nothing if the files differ in depth."""
    stated = {}
    for at, folders in enumerate(_levels(files)):
        key, values = _stated(at, folders)
        if len(set(folders)) > 1:
            stated[key] = values
    return stated


def pattern(files: Sequence[str], roles: Mapping[str, str]) -> str:
    """A regular expression of the files, in which levels of folders are named groups.

    roles: name of what a level states -> group.
    """
    parts = []
    for at, folders in enumerate(_levels(files)):
        key, values = _stated(at, folders)
        before = naming.escaped(f"{key}=") if values != folders else ""
        inner = f"{before}[^/]+" if len(set(folders)) > 1 else naming.escaped(folders[0])
        parts.append(f"{before}(?P<{roles[key]}>[^/]+)/" if key in roles else f"{inner}/")
    endings = sorted({ending[0] for file in files if (ending := re.search(r"\.\w+(\.gz)?$", file))})
    listed = "|".join(map(re.escape, endings))
    return f"^{''.join(parts)}[^/]+{listed if len(endings) == 1 else f'(?:{listed})'}$"


def _levels(files: Sequence[str]) -> list[list[str]]:
    """The folders of each level; nothing if the files differ in depth."""
    paths = [file.split("/")[:-1] for file in files]
    return [list(folders) for folders in zip(*paths, strict=True)] if len({*map(len, paths)}) == 1 else []


def _stated(at: int, folders: list[str]) -> tuple[str, list[str]]:
    """What a level of folders is called, and the value of each folder."""
    found = [KEY.fullmatch(folder) for folder in folders]
    keys = {match["key"] for match in found if match}
    if all(found) and len(keys) == 1:
        return keys.pop(), ["" if match["value"] == HIVE_NULL else match["value"] for match in found if match]
    is_set = all(folder.lower() in SPLIT_NAMES for folder in folders)
    return "split" if is_set else f"folder {at + 1}", folders
