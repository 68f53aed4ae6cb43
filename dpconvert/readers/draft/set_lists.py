"""Files that list the images of each set: Pascal VOC's ImageSets, MONAI's data lists, CLAM's tables of splits, and
tables with a row for each image and its set.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from dpconvert.errors import ReadError
from dpconvert.plural import counted
from dpconvert.readers.draft import names, sets
from dpconvert.readers.draft.listings import listings
from dpconvert.readers.draft.sets_in_names import in_names, meaning
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.tables import SETS, lists_sets
from dpconvert.readers.draft.toml import quoted, some, table
from dpconvert.readers.layout_keys import SPLIT_NAMES
from dpconvert.readers.stated_sets import lists_in_json, names_in_lines

SHAPES = "folders", "masks", "points", "slides", "table"  # that read [files.sets]
LIST = re.compile(r"(?i)\.(txt|lst|list|json)$")
TABLE = re.compile(r"(?i)\.(csv|tsv|xls[xm])$")
ONE_COLUMN = re.compile(r"\{([^{}:]+)\}(\.\w+)?")  # a template by which rows name images
LARGEST = 1 << 24  # bytes
ENOUGH = 0.5  # of the lines, which name images

AROUND = re.compile(  # the name of a set, in that of a file
    r"(?i)^(?:(?:list|ids|files|images|cases|split)[-_ ])|[-_ ](?:list|ids?|files?|names?|cases|slides|patients|split)$"
)

Lists = Mapping[str, list[str]]  # what a release calls a set -> the images in it


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
            return f"^{names.escaped(self.files[0])}$"
        paths = [PurePosixPath(file) for file in self.files]
        stems = "|".join(names.escaped(path.stem) for path in paths)
        folder = "".join(f"{names.escaped(part)}/" for part in paths[0].parent.parts)
        return f"^{folder}(?P<split>{stems}){names.escaped(paths[0].suffix)}$"

    @property
    def layout(self) -> tuple[str, ...]:
        """Lines of [layout]."""
        renamed = {name: str(as_set(name)) for name in self.lists if name.lower() not in SPLIT_NAMES}
        lines = [f"splits = {table(renamed)}"] if renamed else []
        if self.columns is not None:
            image, split = map(quoted, self.columns)
            lines.insert(0, f"sets = {{image = {image}, split = {split}}}  # columns of the table of sets")
        return tuple(lines)

    def shared(self) -> list[str]:
        """The images that are in several sets."""
        homes = defaultdict(set)
        for text, images in self.lists.items():
            for name in images:
                homes[_stem(name)].add(as_set(text))
        return sorted(name for name, of in homes.items() if len(of) > 1)


def with_sets(survey: Survey, found: Draft) -> Draft:
    """The draft with the sets that files list, where it knows of none and one way to read them is clear; else with a
    question about them.
    """
    if found.shape not in SHAPES or any(line.startswith("official") for line in found.split):
        return found
    ways = list(_ways(survey))
    if not ways:
        return _named(survey, found)
    if len(ways) > 1:
        files = [file for way in ways for file in way.files]
        return _asked(found, f"{some(files, 3)}: lists of the images of each set. Which ones count is unclear")
    (way,) = ways
    if shared := way.shared():
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


def _named(survey: Survey, found: Draft) -> Draft:
    """The draft with the sets that the names of images tell; with a question if not all of them do."""
    ways = list(in_names(survey, found))
    if not ways:
        return found
    way = ways[0]
    words = ", ".join(f"{word} {count}" for word, count in sorted(way.counts.items()))
    if len(ways) > 1 or not way.whole:
        question = (
            f"Some images have the names of sets in theirs ({words}), which are not kept: if these are the sets of the "
            "release, name them `split` in the pattern; if not, nothing need change"
        )
        return replace(found, questions=(*found.questions, question))
    renamed = [f"splits = {table(way.renamed())}"] if way.renamed() else []
    return replace(
        found,
        files={**found.files, way.kind: (way.pattern, found.files[way.kind][1])},
        layout=(*renamed, *found.layout),
        split=sets.policy(str(meaning(word)) for word in way.counts),
        remarks=(*found.remarks, f"Sets by the names of images: {words}"),
    )


def _asked(found: Draft, what: str) -> Draft:
    question = (
        f"{what}. To keep these sets, let [files.sets] match the lists that count, and say `official = true` under "
        "[split.strict]; if they need not be kept, nothing need change"
    )
    return replace(found, questions=(*found.questions, question))


def _ways(survey: Survey) -> Iterator[SetFiles]:
    """Each way in which files here list images of several sets."""
    stems = {_stem(name) for name in (*survey.images, *survey.slides)}
    texts: defaultdict[tuple[PurePosixPath, str], dict[str, list[str]]] = defaultdict(dict)
    for file in survey.names:
        if survey.source.sizes[file] > LARGEST or file in survey.outlines:
            continue
        path = PurePosixPath(file)
        found = {to: of for to, of in _lists(survey, file) if of and _known(of, stems) >= ENOUGH * len(of)}
        if LIST.search(file) and path.suffix.lower() != ".json":
            texts[path.parent, path.suffix] |= found
        elif _are_several(found):
            yield SetFiles((file,), found)
    for (folder, suffix), lists in texts.items():
        if _are_several(lists):
            yield SetFiles(tuple(str(folder / f"{name}{suffix}") for name in lists), lists)
    yield from _of_rows(survey)


def _of_rows(survey: Survey) -> Iterator[SetFiles]:
    """Tables with a column of images and one of sets, and no labels."""
    for listing in listings(survey)[0]:
        split, column = sets.split_column(listing, SETS), ONE_COLUMN.fullmatch(listing.template)
        if not split or column is None or not lists_sets(listing):
            continue
        lists = defaultdict(list)
        for row, image in zip(listing.rows, listing.images, strict=True):
            if image and row[split]:
                lists[row[split]].append(image)
        if _are_several(lists):
            yield SetFiles((listing.file,), lists, (column[1], split))


def _are_several(lists: Iterable[str]) -> bool:
    return len({as_set(name) for name in lists} - {None}) > 1


def _known(listed: list[str], stems: set[str]) -> int:
    return sum(_stem(text) in stems for text in listed)


def _stem(name: str) -> str:
    return names.stem(name.replace("\\", "/")).casefold()


def _lists(survey: Survey, file: str) -> Iterator[tuple[str, list[str]]]:
    """What the release calls each set in a file, and the names in it."""
    stem = PurePosixPath(file).stem
    try:
        if TABLE.search(file):
            yield from _columns(survey, file)
        elif file.lower().endswith(".json"):
            yield from (one for one in lists_in_json(survey.source.read(file), file) if as_set(one[0]))
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
    return names.as_set(AROUND.sub("", text))
