"""Files that list the images of each set: Pascal VOC's ImageSets, MONAI's data lists, CLAM's tables of splits, and
tables with a row for each image and its set.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath

from dpconvert.errors import ReadError
from dpconvert.names import folded
from dpconvert.plural import counted
from dpconvert.readers.draft import naming, sets
from dpconvert.readers.draft.listings import listings
from dpconvert.readers.draft.sets_in_names import with_sets_in_names
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.tables import SETS, lists_sets
from dpconvert.readers.draft.toml import quoted, some, table
from dpconvert.readers.layout_keys import SPLIT_NAMES
from dpconvert.readers.set_entries import OF_ONE_SET, lists_in_json, names_in_lines
from dpconvert.readers.stated_sets import readings

SHAPES = "folders", "masks", "points", "slides", "table"  # that read [files.sets]
LIST = re.compile(r"(?i)\.(txt|lst|list|json)$")
TABLE = re.compile(r"(?i)\.(csv|tsv|xls[xm])$")
ONE_COLUMN = re.compile(r"\{([^{}:]+)\}(\.\w+)?")  # a template by which rows name images
LARGEST = 1 << 24  # bytes
PART = re.compile(r"(?<=[^\W_])(?=[\W_]|$)")  # the end of a word within a name
ENOUGH = 0.5  # of the lines, which name images

AROUND = re.compile(  # the name of a set, in that of a file
    r"(?i)^(?:(?:list|ids|files|images|cases|split|instances)[-_ ])|"
    r"[-_ ](?:list|ids?|files?|names?|cases|slides|patients|split)$"
)

Lists = Mapping[str, list[str]]  # what a release calls a set -> the images in it


class Called:
    """What lists may call the images here: the names of their files, or those of their groups."""

    def __init__(self, survey: Survey, found: Draft) -> None:
        images = [*survey.images, *survey.slides]
        patterns = [re.compile(pattern) for kind, (pattern, _) in found.files.items() if kind in ("images", "slides")]
        matches = [match for image in images for pattern in patterns if (match := pattern.search(image))]
        self._groups = {folded(match["group"]) for match in matches if match.groupdict().get("group")}
        self._paths = {folded(image) for image in images}
        of_images = Counter(folded(naming.stem(match.string)) for match in matches)
        self._stems = dict.fromkeys((folded(naming.stem(image)) for image in images), 1) | of_images  # masks too

    @cached_property
    def _beginnings(self) -> set[str]:
        return {stem[: end.start()] for stem in self._stems for end in PART.finditer(stem)}

    def known(self, text: str) -> str:
        """The name of the images that a text means, '' if of none, or if several files are called so."""
        for reading in readings(text.replace("\\", "/")):
            path = folded(reading).removeprefix("./")
            last = path.rpartition("/")[2]
            for form in (last, naming.stem(last) if last else ""):
                if form in self._groups or self._stems.get(form) == 1:
                    return form
            if path in self._paths:
                return path
        return ""

    def share(self, texts: Sequence[str]) -> float:
        """Which share of these texts are names of images."""
        return sum(bool(self.known(text)) for text in texts) / max(len(texts), 1)

    def begins(self, text: str) -> bool:
        """Whether names of files begin with a text, as they may with that of a patient."""
        return len(text) > 1 and folded(text) in self._beginnings


@dataclass(frozen=True)
class SetFiles:
    """Files that list sets in one way: their lists, and the columns of a table with a row for each image."""

    files: tuple[str, ...]
    lists: Lists
    columns: tuple[str, str] | None = None

    @property
    def pattern(self) -> str:
        """Of [files.sets]."""
        if len(self.files) == 1:
            return f"^{naming.escaped(self.files[0])}$"
        paths = [PurePosixPath(file) for file in self.files]
        stems = "|".join(naming.escaped(path.stem) for path in paths)
        folder = "".join(f"{naming.escaped(part)}/" for part in paths[0].parent.parts)
        return f"^{folder}(?P<split>{stems}){naming.escaped(paths[0].suffix)}$"

    @property
    def layout(self) -> tuple[str, ...]:
        """Lines of [layout]."""
        renamed = {name: str(as_set(name)) for name in self.lists if name.lower() not in SPLIT_NAMES}
        lines = [f"splits = {table(renamed)}"] if renamed else []
        if self.columns is not None:
            image, split = map(quoted, self.columns)
            lines.insert(0, f"sets = {{image = {image}, split = {split}}}  # columns of the table of sets")
        return tuple(lines)

    def shared(self, called: Called) -> list[str]:
        """The images that are in several sets."""
        homes = defaultdict(set)
        for text, images in self.lists.items():
            for name in filter(None, map(called.known, images)):
                homes[name].add(as_set(text))
        return sorted(name for name, of in homes.items() if len(of) > 1)


def with_sets(survey: Survey, found: Draft) -> Draft:
    """The draft with the sets that files list, where it knows of none and one way to read them is clear; else with a
    question about them.
    """
    if found.shape not in SHAPES or any(line.startswith("official") for line in found.split):
        return found
    called = Called(survey, found)
    ways = list(_ways(survey, called))
    if not ways:
        files = _unread(survey, found, called)
        told = f"{some(files, 3)}: may say which set each image is in; how to read it is unclear"
        return _asked(found, told) if files else with_sets_in_names(survey, found)
    if len(ways) > 1:
        files = [file for way in ways for file in way.files]
        return _asked(found, f"{some(files, 3)}: lists of the images of each set. Which ones count is unclear")
    (way,) = ways
    if shared := way.shared(called):
        what = counted(len(shared), "image")
        return _asked(
            found, f"{some(list(way.files), 3)}: lists of the images of each set, {what} in several ({some(shared, 3)})"
        )
    about = "; ".join(f"{counted(len(images), 'name')} for {name}" for name, images in way.lists.items())
    return replace(
        found,
        files={**found.files, "sets": (way.pattern, about)},
        layout=(*way.layout, *found.layout),
        split=sets.policy(to for name in way.lists if (to := as_set(name))),
    )


def _asked(found: Draft, what: str) -> Draft:
    question = (
        f"{what}. To keep these sets, let [files.sets] match the lists that count, and say `official = true` under "
        "[split.strict]; if they need not be kept, nothing need change"
    )
    return replace(found, questions=(*found.questions, question))


def _ways(survey: Survey, called: Called) -> Iterator[SetFiles]:
    """Each way in which files here list images of several sets."""
    texts: defaultdict[tuple[PurePosixPath, str], dict[str, list[str]]] = defaultdict(dict)
    for file in _lists_here(survey):
        path = PurePosixPath(file)
        found = {to: of for to, of in _lists(survey, file) if of and called.share(of) >= ENOUGH}
        if list(found) == [path.stem]:
            texts[path.parent, path.suffix] |= found
        elif _are_several(found):
            yield SetFiles((file,), found)
    for (folder, suffix), lists in texts.items():
        if _are_several(lists):
            yield SetFiles(tuple(str(folder / f"{name}{suffix}") for name in lists), lists)
    yield from _of_rows(survey, called)


def _lists_here(survey: Survey) -> list[str]:
    """The files that may list images, those of annotations of a set included."""
    small = [file for file in survey.names if survey.source.sizes[file] <= LARGEST]
    return [file for file in small if file not in survey.outlines or as_set(PurePosixPath(file).stem)]


def _of_rows(survey: Survey, called: Called) -> Iterator[SetFiles]:
    """Tables with a column of images or groups and one of sets, and no labels."""
    found = listings(survey)[0]
    for listing in found:
        split, column = sets.split_column(listing, SETS), ONE_COLUMN.fullmatch(listing.template)
        if not split or column is None or not lists_sets(listing):
            continue
        lists = defaultdict(list)
        for row, image in zip(listing.rows, listing.images, strict=True):
            if image and row[split]:
                lists[row[split]].append(image)
        if _are_several(lists):
            yield SetFiles((listing.file,), lists, (column[1], split))
    for file in survey.tables.keys() - {listing.file for listing in found}:
        rows = _rows(survey, file)
        divides = _columns_of_sets(rows)
        of_names = [name for name in survey.tables[file].columns if name and _named(rows, name, called)]
        if len(divides) == len(of_names) == 1:
            lists = defaultdict(list)
            for row in rows:
                lists[row[divides[0]]].append(row[of_names[0]])
            yield SetFiles((file,), lists, (of_names[0], divides[0]))


def _rows(survey: Survey, file: str) -> list[dict[str, str]]:
    try:
        return survey.rows(file)
    except ReadError:
        return []


def _columns_of_sets(rows: list[dict[str, str]]) -> list[str]:
    """The columns of which each cell names one of several sets."""
    return [name for name in rows[0] if name and _are_sets([row[name] for row in rows])] if rows else []


def _are_sets(cells: list[str]) -> bool:
    return all(map(as_set, cells)) and _are_several(cells)


def _named(rows: list[dict[str, str]], column: str, called: Called) -> bool:
    cells = [row[column] for row in rows]
    return all(cells) and called.share(cells) >= ENOUGH


def _unread(survey: Survey, found: Draft, called: Called) -> list[str]:
    """Files that seem to say which set each image is in, in a form that is not read or under other names."""
    patterns = [re.compile(pattern) for pattern, _ in found.files.values()]
    files = [file for file in _lists_here(survey) if not any(pattern.search(file) for pattern in patterns)]
    lists: dict[str, str] = {}
    told = []
    for file in files:
        texts = _texts(survey, file)
        if as_set(stem := naming.stem(file)) or naming.like_sets([stem]):
            if sum(bool(called.known(text)) or called.begins(text) for text in texts) >= ENOUGH * len(texts) > 0:
                lists[file] = stem
        elif file.lower().endswith(".json"):
            told += [file] if _are_several(filter(as_set, texts)) and any(map(called.known, texts)) else []
        elif file in survey.tables:
            told += [file] if _columns_of_sets(_rows(survey, file)) else []
    return [*(lists if len(lists) > 1 else ()), *told]


def _texts(survey: Survey, file: str) -> list[str]:
    """The lines of a list, or all texts in a JSON file."""
    try:
        if file.lower().endswith(".json"):
            return list(_inside(json.loads(survey.source.read(file).decode("utf-8-sig"))))
        if LIST.search(file) or TABLE.search(file):
            return names_in_lines(survey.source.read(file), file)
    except (ReadError, ValueError, RecursionError):
        pass
    return []


def _inside(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        yield from content
        for value in content.values():
            yield from _inside(value)
    elif isinstance(content, list):
        for value in content:
            yield from _inside(value)


def _are_several(lists: Iterable[str]) -> bool:
    return len({as_set(name) for name in lists} - {None}) > 1


def _lists(survey: Survey, file: str) -> Iterator[tuple[str, list[str]]]:
    """What the release calls each set in a file, and the names in it."""
    stem = PurePosixPath(file).stem
    try:
        if TABLE.search(file):
            yield from _columns(survey, file)
        elif file.lower().endswith(".json"):
            lists = dict(lists_in_json(survey.source.read(file), file))
            yield from ((name, of) for name, of in lists.items() if as_set(name))
            if as_set(stem):
                yield from ((stem, lists[name]) for name in OF_ONE_SET if name in lists)
        elif LIST.search(file) and as_set(stem):
            yield stem, names_in_lines(survey.source.read(file), file)
    except ReadError:
        return


def _columns(survey: Survey, file: str) -> Iterator[tuple[str, list[str]]]:
    """The columns of a table that are called as sets."""
    if file in survey.tables:
        for column in filter(as_set, survey.tables[file].columns):
            yield column, [text for row in survey.rows(file) if (text := row[column])]


def as_set(text: str) -> str | None:
    """Return train, val or test if a list has such a name, as train, val_ids or list_test."""
    return naming.as_set(AROUND.sub("", text))
