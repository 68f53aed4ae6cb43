"""Files of images and files of their labels that differ in one word of their names, as train_x.h5 and train_y.h5 do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dpconvert.readers.draft import naming
from dpconvert.readers.layout_keys import SPLIT_NAMES

ENDING = re.compile(r"(?i)\.(?:h5|hdf5|npy|npz|csv|tsv|txt|xlsx|xlsm)(?:\.gz)?$")
APART = re.compile(r"([/_\-. ]+)")
OF_IMAGES = {"x", "images", "image", "imgs", "img", "patches", "tiles", "data"}
OF_LABELS = {"y", "labels", "label", "targets", "target", "classes", "class", "gt"}
Words = tuple[str, ...]
Key = tuple[Words, Words]
"""What stands before and after a word of a name: words, with what divides them between."""


@dataclass(frozen=True)
class LabelFiles:
    """Files of images -> files of their labels, and of tables, which may be none; by kind, a pattern of their names.

    splits: the set that each name states, if all do.
    """

    labels: Mapping[str, str]
    tables: Mapping[str, str]
    patterns: Mapping[str, str]
    splits: tuple[str, ...]

    @property
    def images(self) -> list[str]:
        """The files of images, in name order."""
        return sorted({*self.labels, *self.tables})


def paired(files: Sequence[str], tables: Sequence[str]) -> LabelFiles | None:
    """Return which files are of images, and which of their labels; None if names do not tell it of each file."""
    images = {key: file for file in files for key in _keys(file, OF_IMAGES)}
    labels = {key: file for file in files for key in _keys(file, OF_LABELS)}
    of_tables = {key: file for file in tables for key in _keys(file)}
    both = [key for key in images if key in labels and key in of_tables] if tables else []
    keys = both or [key for key in images if key in (labels if set(labels) & set(images) else of_tables)]
    of_labels = {images[key]: labels[key] for key in keys if key in labels}
    of_rows = {images[key]: of_tables[key] for key in keys if key in of_tables}
    used = [images[key] for key in keys] + [*of_labels.values(), *of_rows.values()]
    if not keys or sorted(used) != sorted([*files, *tables]):
        return None
    if any(found and len(found) != len(keys) for found in (of_labels, of_rows)):
        return None
    varied = _varied(keys)
    if varied is None:
        return None
    kinds = {"images": [images[key] for key in keys], "labels": [*of_labels.values()], "table": [*of_rows.values()]}
    patterns = {kind: _pattern(keys, some, varied) for kind, some in kinds.items() if some}
    found = [re.search(patterns["images"], file) for file in kinds["images"]]
    if any(pattern == "" for pattern in patterns.values()) or not all(found):
        return None
    stated = [match["split"] for match in found if match and "split" in match.re.groupindex]
    return LabelFiles(of_labels, of_rows, patterns, tuple(stated))


def _keys(file: str, words: set[str] | None = None) -> Iterator[Key]:
    """What stands before and after each of these words (each word at all) in the name of a file."""
    parts = APART.split(ENDING.sub("", file))
    for at in range(0, len(parts), 2):
        if words is None or parts[at].casefold() in words:
            yield tuple(parts[:at]), tuple(parts[at + 1 :])


def _varied(keys: Sequence[Key]) -> int | None:
    """Whether names differ before (0) or after (1) the word; None if they do in both places."""
    before, after = ({key[side] for key in keys} for side in (0, 1))
    if len(after) == 1 and (len(before) > 1 or before != {()}):
        return 0
    return 1 if len(before) == 1 else None


def _pattern(keys: Sequence[Key], files: Sequence[str], varied: int) -> str:
    """A pattern of the files, one for each key, with the part that varies as the group `name`; '' if there is none."""
    words = {APART.split(ENDING.sub("", file))[len(before)] for (before, _), file in zip(keys, files, strict=True)}
    endings = sorted({found[0] for file in files if (found := ENDING.search(file))})
    if len(words) != 1 or not endings:
        return ""
    before, after = ("".join(map(naming.escaped, keys[0][side])) for side in (0, 1))
    name = _name([key[varied] for key in keys])
    before, after = (name, after) if varied == 0 else (before, name)
    listed = "|".join(map(re.escape, endings))
    return f"^{before}{naming.escaped(words.pop())}{after}{listed if len(endings) == 1 else f'(?:{listed})'}$"


def _name(several: Sequence[Words]) -> str:
    """The group `name` of what varies, without what divides it from the rest; the group `split` in it, if it is one."""
    if len({*map(len, several)}) > 1:
        return "(?P<name>.*)"
    columns = list(zip(*several, strict=True))
    first = columns[0][0] if columns and APART.fullmatch(columns[0][0]) else ""
    last = columns[-1][0] if columns and APART.fullmatch(columns[-1][0]) else ""
    inner = columns[bool(first) : len(columns) - bool(last)]
    sets = [
        set(column) for column in inner if len({*column}) > 1 and {word.lower() for word in column} <= {*SPLIT_NAMES}
    ]
    parts = [_column(column, is_set=sets == [set(column)]) for column in inner]
    return f"{naming.escaped(first)}(?P<name>{''.join(parts)}){naming.escaped(last)}"


def _column(column: Sequence[str], *, is_set: bool) -> str:
    if len({*column}) == 1:
        return naming.escaped(column[0])
    return f"(?P<split>{'|'.join(sorted({*column}))})" if is_set else "[^/]+?"
