"""Files of the kind [files.sets], which list the images of each set that a release is divided into.

    train.txt                       a name on each line; the pattern has the named group `split`
    dataset.json                    an object with a list of names for each set, as MONAI's data lists have
    splits_0.csv                    a column of names for each set, as CLAM's have
    split.csv                       a row for each image, whose columns `sets` in [layout] names

Names are those of images, with or without folders and endings, or those of groups (patients, slides).
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dpconvert import names
from dpconvert.annotations.listed import Names, bare
from dpconvert.annotations.parsing.lines import lines
from dpconvert.annotations.parsing.table import Table
from dpconvert.card import Split
from dpconvert.errors import ManifestError, ReadError, SourceError, cut
from dpconvert.plural import counted
from dpconvert.readers.layout_keys import SETS, SetLists
from dpconvert.readers.pairing import IMAGE
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

OF_ONE_SET = {"", "images"}  # lists in the JSON of one set, such as COCO's
TABLE = re.compile(r"(?i)\.(csv|tsv|xls[xm])$")
FIELDS = "image", "file", "file_name", "filename", "path"  # of an object that stands for an image
FILE = re.compile(r".*\.[A-Za-z][A-Za-z0-9]{1,6}(?=[\s,;]|$)")
IMAGE_FILE = re.compile(rf"(?i).*?\.(?:{IMAGE}|svs|ndpi|mrxs|scn|bif|dcm|czi|vsi)(?=[\s,;])")
MORE = re.compile(r"[,;\t]|\s+-1$|\s{2,}1$")  # after a name without an ending


class SetEntry(NamedTuple):
    """A name that a file lists, the set that it is listed for, and the file."""

    name: str
    split: Split
    file: str


def divided(source: Source, images: list[SourceImage]) -> list[SourceImage]:
    """The images with the sets that the files of [files.sets] state; notes on names that no image has.

    Raises:
        SourceError: an image is in two sets; a name means several images; no name is that of an image.
        ManifestError: how to read such a file is not said.
        ReadError: it cannot be read.
    """
    if SETS not in source.manifest.files:
        if source.manifest.shape and SETS in source.manifest.layout:
            source.notes.append(f"not used: `{SETS}` under [layout]: no [files.{SETS}] says which files list the sets")
        return images
    layout = SetLists.model_validate(
        {key: value for key, value in source.manifest.layout.items() if key in SetLists.model_fields}
    )
    entries = [entry for found in source.need(SETS) for entry in _entries(source, found, layout)]
    homes = _homes(entries, images)
    met = {place for places in homes.values() for place in places}
    if not met:
        raise SourceError(
            "none of the names in these lists of sets is that of an image here",
            where=source.need(SETS)[0].name,
            found=", ".join(repr(cut(entry.name, 60)) for entry in entries[:3]) or "no names",
            expected=f"names like {images[0].files[0] if images else ''!r}, or those of groups",
        )
    source.notes += _not_here([entry for place, entry in enumerate(entries) if place not in met])
    return [_in_set(image, [entries[place] for place in homes[image.name]]) for image in images]


def _homes(entries: list[SetEntry], images: list[SourceImage]) -> dict[str, list[int]]:
    """Image -> the places of the entries that are about it: by its name, by that of its masks or annotations, or else
    by its group.

    Raises:
        SourceError: a name means several images that are not one group, or an image but for zeros before its number.
    """
    homes: dict[str, list[int]] = {image.name: [] for image in images}
    shared = Counter(file for image in images for file in image.annotations)
    for listed in map(Names, zip(*(readings(entry.name) for entry in entries), strict=True)):
        _find(homes, listed, entries, [(image, (image.files[0], image.name)) for image in images])
        _find(homes, listed, entries, [(i, [file for file in i.annotations if shared[file] == 1]) for i in images])
    images_of = defaultdict(list)
    for image in images:
        for place in homes[image.name]:
            images_of[place].append(image)
    for place, about in images_of.items():
        if len(about) > 1 and len({image.group for image in about}) > 1:
            raise SourceError(
                f"the name {entries[place].name!r} means several images",
                where=entries[place].file,
                found=" and ".join(image.files[0] for image in about[:2]),
                remedy="write names with the folders that tell the images apart",
            )
    groups = defaultdict(list)
    for place, entry in enumerate(entries):
        groups[names.folded(names.whole(entry.name))].append(place)
    homes = {image.name: homes[image.name] or groups.get(_group(image), []) for image in images}
    _check_zeros(entries, images, homes)
    return homes


def readings(text: str) -> tuple[str, str, str]:
    """What a name in a list may say: itself; a whole number, which programs write in decimals in a column with gaps;
    the first of several files on a line, as an image and its mask.
    """
    first = IMAGE_FILE.match(text)
    return text, names.whole(text), first[0] if first else text


def _find(
    homes: dict[str, list[int]],
    listed: Names,
    entries: list[SetEntry],
    called: list[tuple[SourceImage, Sequence[str]]],
) -> None:
    """Find the entries of images that have none so far, by what they are called. Those that agree but for an ending
    count only where they are those of no image that agrees in all.
    """
    near = {
        image.name: next(filter(None, map(listed.places, texts)), [])
        for image, texts in called
        if not homes[image.name]
    }
    taken = {place for places in homes.values() for place in places}
    for image, texts in called:
        own = {names.folded(form) for text in texts for form in (PurePosixPath(text).name, bare(text))}
        exact = [place for place in near.get(image.name, []) if names.folded(_last(entries[place].name)) in own]
        if exact:
            homes[image.name], near[image.name] = exact, []
            taken |= {*exact}
    for image, _ in called:
        if not homes[image.name]:
            homes[image.name] = [place for place in near[image.name] if place not in taken]


def _last(text: str) -> str:
    return text.replace("\\", "/").rpartition("/")[2]


def _group(image: SourceImage) -> str:
    return names.folded(names.whole(image.group))


def _check_zeros(entries: list[SetEntry], images: list[SourceImage], homes: dict[str, list[int]]) -> None:
    """Refuse names that would be those of an image or a group if a spreadsheet had not taken zeros before a number."""
    met = {place for places in homes.values() for place in places}
    here = {
        names.seen(text): text for image in images if not homes[image.name] for text in (bare(image.name), image.group)
    }
    for place, entry in enumerate(entries):
        text = names.seen(bare(names.whole(entry.name)))
        if place not in met and text in here:
            raise SourceError(
                f"no image or group here is called {entry.name!r}, and {here[text]!r} has no set",
                where=entry.file,
                remedy="write names as those of the files: spreadsheets take zeros before numbers away",
            )


def _in_set(image: SourceImage, entries: list[SetEntry]) -> SourceImage:
    """The image with the set of its entries.

    Raises:
        SourceError: they name several sets, or another one than the name of the file does.
    """
    stated = {entry.split: entry.file for entry in entries}
    if image.split is not None:
        stated.setdefault(image.split, f"the name of {image.files[0]}")
    if len(stated) > 1:
        found = " and ".join(f"{split} by {file}" for split, file in stated.items())
        raise SourceError(
            f"the image {image.name!r} is in two sets",
            where=image.files[0],
            found=found,
            remedy="correct the lists, or let the pattern of [files.sets] match only those that count",
        )
    return replace(image, split=next(iter(stated), None))


def _not_here(entries: list[SetEntry]) -> Iterator[str]:
    if entries:
        first = entries[0]
        yield (
            f"{counted(len(entries), 'name')} in lists of sets that no image here has, the first "
            f"{cut(first.name, 60)!r} in {first.file}"
        )


def _entries(source: Source, found: MatchedFile, layout: SetLists) -> Iterator[SetEntry]:
    data, of = source.read(found.name), layout.set_of(found.get("split"), found.name)
    if TABLE.search(found.name) or layout.sets:
        yield from _of_table(data, found.name, layout, of)
    elif of is not None and not found.name.lower().endswith(".json"):
        yield from (SetEntry(name, of, found.name) for name in names_in_lines(data, found.name))
    elif not found.name.lower().endswith(".json"):
        raise ManifestError(
            f"[files.sets]: nothing says which set {found.name} lists",
            where=source.manifest.path,
            remedy="name the set in the pattern, as (?P<split>train|val|test)",
        )
    else:
        lists = dict(lists_in_json(data, found.name))
        sets = {key: split for key in lists if key and (split := _known(layout, key)) is not None}
        if of is not None:
            sets |= dict.fromkeys(lists.keys() & OF_ONE_SET, of)
        if not sets:
            raise ManifestError(
                f"[files.sets]: nothing says which set {found.name} lists",
                where=source.manifest.path,
                expected="a list of names for each set, as in {'train': [...]}, or (?P<split>...) in the pattern",
                found=", ".join(repr(cut(key, 30)) for key in [*lists][:3]) or "no list",
            )
        for key, split in sets.items():
            yield from (SetEntry(name, split, found.name) for name in lists[key])


def _known(layout: SetLists, text: str) -> Split | None:
    """The set that a key or a column names; None for what is no name of a set."""
    try:
        return layout.set_of(text)
    except SourceError:
        return None


def _of_table(data: bytes, name: str, layout: SetLists, of: Split | None) -> Iterator[SetEntry]:
    """Rows of an image and its set, as `sets` in [layout] names the columns; else columns of names, one for each set;
    else, of a file of one set, the names in its first column of files, or its first one with a name.
    """
    table = Table(data, name)
    if layout.sets:
        yield from _of_rows(table, layout, of)
        return
    columns = {column: split for column in table.columns if (split := _known(layout, column)) is not None}
    if columns:
        rows = list(table)
        for column, split in columns.items():
            yield from (SetEntry(text, split, name) for row in rows if (text := row.cells[column]))
        return
    if of is None:
        raise ManifestError(
            f"[files.sets]: nothing says which columns of {name} name the image and its set",
            where=name,
            found=", ".join(map(repr, filter(None, table.columns))),
            remedy='name them in [layout], as in sets = {image = "image", split = "set"}',
        )
    rows = list(table)
    columns_of_names = [column for column in table.columns if column]  # one without a name holds the numbers of rows
    of_files = (column for column in columns_of_names if any(FILE.fullmatch(row.cells[column]) for row in rows))
    head = next(of_files, next(iter(columns_of_names), ""))
    cells = [head, *(row.cells[head] for row in rows)]  # the first row may be a name, too
    yield from (SetEntry(text, of, name) for text in cells if text)


def _of_rows(table: Table, layout: SetLists, of: Split | None) -> Iterator[SetEntry]:
    image_column, split_column = layout.sets["image"], layout.sets.get("split", "")
    for column in filter(None, (image_column, split_column)):
        if names.match(column, table.columns) is None:
            raise ReadError(
                f"no column {column!r}, which `sets` in [layout] names",
                where=table.name,
                found=", ".join(map(repr, filter(None, table.columns))),
            )
    for row in table:
        image, where = row.cells[image_column], f"{table.name}, line {row.line}"
        split = layout.set_of(row.cells[split_column], where) if split_column else of
        if image and split is not None:
            yield SetEntry(image, split, table.name)


def names_in_lines(data: bytes, name: str) -> list[str]:
    """The names that a text lists, one on a line. Labels after a name and the flags of Pascal VOC do not count.

    Raises:
        ReadError: it is no text.
    """
    found = [names.bare(line).strip('"') for line in lines(data, name) if line.strip()]
    return [of_file[0] if (of_file := FILE.match(line)) else MORE.split(line)[0] for line in found]


def lists_in_json(data: bytes, name: str) -> Iterator[tuple[str, list[str]]]:
    """Each set that JSON names, and what it lists of it; '' for a list without a name.

    Raises:
        ReadError: it is not JSON.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ReadError(f"not JSON: {error}", where=name) from None
    if isinstance(content, list):
        yield "", list(_names(content))
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, list):
            yield key, list(_names(value))


def _names(items: Iterable[Any]) -> Iterator[str]:
    """The images that elements of a list name: by themselves, by a field, or by a list of one."""
    for item in items:
        if isinstance(item, dict):
            item = next((item[key] for key in FIELDS if key in item), "")
        item = item[0] if isinstance(item, list) and len(item) == 1 else item
        if isinstance(item, str) and item:
            yield item
