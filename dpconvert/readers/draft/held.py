"""Files that hold many images with their labels: Parquet, HDF5 and NumPy files, and tar shards.

What stands beside the images is read as the columns of a table, and judged as one (`dpconvert.readers.draft.tables`).
Labels in a file of their own, and files of different columns, are left to somebody who knows them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dpconvert.errors import ReadError, UserError
from dpconvert.plural import counted
from dpconvert.readers.array_values import named
from dpconvert.readers.draft import names, sets, tables, targets
from dpconvert.readers.draft.listings import Listing
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import ALONE, SHARE, quoted
from dpconvert.readers.layouts import arrays, parquet, webdataset
from dpconvert.readers.values import decoded, name_in
from dpconvert.source import elements
from dpconvert.source.elements import Element
from dpconvert.source.stacks import Array, Stacks, enumeration

PLACES = re.compile("(labels?|value|indicators|group|split) = ")
SMALL = 1 << 20  # bytes of a field that may be a label
Values = dict[str, list[Any]]  # name of a place -> value of each image


@dataclass(frozen=True)
class Held:
    """What files of one shape say of each image.

    label: the key of [layout] for one class. images: line that names the images. classes: place -> names of its
    numbers. splits: the set of each file, as its name states it. places: name -> place, where they differ. asked: what
    the first image leaves open.
    """

    shape: str
    files: Sequence[str]
    values: Values
    label: str = "label"
    images: tuple[str, ...] = ()
    classes: Mapping[str, list[str]] = field(default_factory=dict)
    splits: Sequence[str] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    asked: tuple[str, ...] = ()


def draft(survey: Survey) -> Draft | None:
    """A manifest of files that hold images; None where something else lies there, or they cannot be read alike."""
    for look in (_parquet, _arrays, _shards):
        try:
            held = look(survey)
        except UserError:
            continue
        if held is not None and held.values:
            return _draft(held)
    return None


def _parquet(survey: Survey) -> Held | None:
    files = _only(survey, parquet.FILES["tables"].pattern)
    if not files:
        return None
    schemas = [survey.source.columns(name).schema for name in files]
    first = survey.source.columns(files[0])
    images = [one.name for one in schemas[0] if _of_images(one.type)]
    images = images if len(images) < 2 else [name for name in images if not _of_texts(first.values(name))]
    if len(images) != 1 or any(schema.names != schemas[0].names for schema in schemas):
        return None
    values: Values = {name: [] for name in schemas[0].names if name != images[0]}
    for file in files:
        columns = survey.source.columns(file)
        for name, found in values.items():
            found += map(decoded, columns.values(name))
    classes = {name: told for name in values if (told := first.label_names(name))}
    line = () if images[0] == "image" else (f"image = {quoted(images[0])}",)
    return Held("parquet", files, values, "label", line, classes, _splits(files, parquet.FILES["tables"].pattern))


def _of_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _of_texts(values: Sequence[Any]) -> bool:
    """Whether a column of bytes holds texts."""
    told = [value for value in values if value is not None]
    return all(isinstance(value, bytes) and value.isascii() and b"\0" not in value for value in told)


def _arrays(survey: Survey) -> Held | None:
    files = _only(survey, arrays.FILES["images"].pattern)
    if not files:
        return None
    values: Values = {}
    classes: dict[str, list[str]] = {}
    keys: set[tuple[str, ...]] = set()
    image, asked = "", ""
    for file in files:
        stacks = survey.source.stacks(file)
        shapes = stacks.names()
        several = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
        if len(several) != 1:
            return None
        (image,) = several
        beside = [name for name, shape in shapes.items() if len(shape) in (1, 2) and shape[0] == shapes[image][0]]
        keys.add((image, *beside))
        asked = asked or _asked(stacks, image)
        for name in beside:
            array = stacks.array(name)
            values.setdefault(name, []).extend(_listed(array, f"{file}/{name}"))
            if known := enumeration(array):
                classes.setdefault(name, [*known.values()])
    if len(keys) != 1:
        return None
    line = f"images = {quoted(image)}"
    splits = _splits(files, arrays.FILES["images"].pattern)
    return Held("arrays", files, values, "labels", (line,), classes, splits, asked=(asked,) if asked else ())


def _asked(stacks: Stacks, key: str) -> str:
    """What must be said of the first image, such as the order of its axes, or which samples are white."""
    found = Element(stacks.name, key, 0)
    try:
        elements.image(elements.one(found, stacks.array(key)), found.name, "", (), None)
    except ReadError as error:
        return str(error)
    return ""


def _listed(array: Array, where: str) -> list[Any]:
    """Values of an array: numbers, texts, or lists of numbers; a single column counts as values."""
    values = np.asarray(array)
    if values.ndim == 2 and values.shape[1] > 1:
        return list(map(decoded, values.tolist()))
    return list(map(decoded, named(array, values.reshape(-1).tolist(), where)))


def _shards(survey: Survey) -> Held | None:
    pattern = re.compile(webdataset.FILES["members"].pattern)
    found = [match for name in survey.names if (match := pattern.search(name))]
    if len(survey.images) != sum(match["field"].lower() in webdataset.SUFFIXES for match in found):
        return None
    samples: dict[str, Values] = {}
    shards: dict[str, str] = {}
    for match in found:
        shards[match.string.rpartition("/")[0]] = match["split"] or ""
        row = samples.setdefault(match["name"], {})
        if match["field"].lower() not in webdataset.SUFFIXES and survey.source.sizes[match.string] <= SMALL:
            row |= dict(_fields(match["field"].lower(), survey.source.read(match.string)))
    every = dict.fromkeys(place for row in samples.values() for place in row)
    if not every:
        return None
    short = _short(every)
    values = {short[place]: [row.get(place) for row in samples.values()] for place in every}
    splits = list(shards.values()) if all(shards.values()) else []
    places = {short[place]: place for place in every}
    return Held("webdataset", list(shards), values, places=places, splits=splits)


def _short(places: Iterable[str]) -> dict[str, str]:
    """Place -> the last part of its name, by which it is judged; the whole name where parts are alike."""
    last = {place: re.split("[:.]", place)[-1] for place in places}
    often = Counter(last.values())
    return {place: name if often[name] == 1 else place for place, name in last.items()}


def _fields(name: str, data: bytes) -> Iterator[tuple[str, Any]]:
    """The values of a field of text, or of the members of a field of JSON."""
    try:
        text = data.decode("utf-8-sig").strip()
        if name == "json":
            yield from _members("json:", json.loads(text))
        elif text and "\n" not in text:
            yield name, text
    except (UnicodeError, ValueError, RecursionError):
        return


def _members(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    for key, member in value.items() if isinstance(value, dict) else ():
        if isinstance(member, dict):
            yield from _members(f"{prefix}{key}.", member)
        else:
            yield f"{prefix}{key}", member


def _only(survey: Survey, pattern: str) -> list[str]:
    """The files of this pattern, if nothing else here holds images or may hold labels."""
    files = [name for name in survey.images if re.search(pattern, name)]
    return files if len(files) == len(survey.images) and not survey.tables and not survey.slides else []


def _splits(files: Sequence[str], pattern: str) -> list[str]:
    """The set of each file; nothing if the name of one states none."""
    found = [match["split"] or "" for name in files if (match := re.search(pattern, name))]
    return found if all(found) else []


def _draft(held: Held) -> Draft:
    lists = {place: of for place, of in held.values.items() if any(isinstance(value, list) for value in of)}
    cells = {
        place: [_cell(value, held.classes.get(place, ())) for value in of]
        for place, of in held.values.items()
        if place not in lists
    }
    count = len(next(iter(held.values.values())))
    rows = [{place: of[number] for place, of in cells.items()} for number in range(count)]
    table = Listing(held.files[0], "", rows, ["image"] * count)
    kind, classes, lines, remarks, questions = _labels(held, table, lists)
    group, split = tables.group_of(table, questions), sets.split_column(table, tables.SETS)
    lines += [f"group = {quoted(group)}"] if group else []
    lines += [f"split = {quoted(split)}"] if split else []
    named = table.values(split) if split else held.splits
    others = ", ".join(place for place in held.values if place not in {group, split})
    return Draft(
        held.shape,
        kind=kind,
        classes=classes,
        group=tables.group_kind(group) if group else "image",
        why=(tables.why_grouped(table, group),)
        if group
        else (f"{ALONE}name the place of the patient as `group` in [layout]. Beside the images: {others}.",),
        layout=(
            f"# {counted(len(held.files), 'file')} of {counted(count, 'image')}",
            *held.images,
            *(_placed(held, line) for line in lines),
        ),
        split=sets.policy(named) if named else (SHARE,),
        remarks=tuple(remarks),
        questions=(*questions, *held.asked),
    )


Labels = tuple[str, Mapping[str, int], list[str], list[str], list[str]]
"""Kind, number of images of each class, lines of [layout], remarks, and questions."""


def _labels(held: Held, table: Listing, lists: Values) -> Labels:
    columns = tables.label_columns(table)
    label, questions, _ = tables.label_of(table)
    if len(held.classes) == 1 and not (tables.NAMED.fullmatch(label) and label not in held.classes):
        (label,) = held.classes
    if label in held.classes:
        known = held.classes[label]
        return _of_list(held, label, known) if label in lists else _of_names(held, table, label, known)
    if len(lists) == 1 and not label:
        return _of_list(held, next(iter(lists)), [])
    told = targets.other_labels(columns, label)
    if told is not None:
        lines = [_key(held, line) for line in told.lines] + _missing(told.missing)
        return told.kind, told.classes, lines, list(told.remarks), []
    questions = [*questions, *targets.questions(columns, label)]
    if not label:
        return "classification", {}, [f"# {held.label} = ..."], [], questions
    counts = Counter(value for value in table.values(label) if value)
    without = table.values(label).count("")
    if held.shape == "parquet" and parquet.UNLABELLED in held.values[label]:
        without += counts.pop(str(parquet.UNLABELLED), 0)
    classes = {value: counts[value] for value in sorted(counts, key=names.natural)}
    lines = [f"{held.label} = {quoted(label)}", *_missing(without)]
    return "classification", classes, lines, targets.remarks(columns, label), questions


def _placed(held: Held, line: str) -> str:
    """A line of [layout] with the places of the names in it."""
    if PLACES.match(line):
        for name, place in held.places.items():
            line = line.replace(quoted(name), quoted(place))
    return line


def _key(held: Held, line: str) -> str:
    """A line of [layout] by the name that the shape has for the place of a class."""
    return re.sub(r"^label = ", f"{held.label} = ", line)


def _missing(number: int) -> list[str]:
    return [f"missing = true  # {counted(number, 'image')} without a label: left out and counted"] if number else []


def _of_names(held: Held, table: Listing, place: str, known: list[str]) -> Labels:
    """The class that a number counts among those that the file names."""
    counts, without = Counter(table.values(place)), table.values(place).count("")
    remark = f"The file names the classes of the column {place!r}."
    lines = [f"{held.label} = {quoted(place)}", *_missing(without)]
    return "classification", {name: counts[name] for name in known}, lines, [remark], []


def _of_list(held: Held, place: str, known: list[str]) -> Labels:
    """Any number of classes, from lists of texts or of numbers."""
    lists = [value for value in held.values[place] if isinstance(value, list)]
    flat = [one for value in lists for one in value]
    lines = [f"{held.label} = {quoted(place)}", *_missing(sum(value is None for value in held.values[place]))]
    empty = lists.count([])
    lines += [f'none = [""]  # {counted(empty, "empty list")}: an image with none of the classes'] if empty else []
    remark = f"The place {place!r} holds lists: an image has any number of classes."
    if flat and all(isinstance(one, str) for one in flat):
        counts = Counter(one for value in lists for one in set(value))
        return "multilabel", {name: counts[name] for name in sorted(counts, key=names.natural)}, lines, [remark], []
    if known:
        counts = Counter(
            known[one] for value in lists for one in set(value) if isinstance(one, int) and 0 <= one < len(known)
        )
        return "multilabel", {name: counts[name] for name in known}, lines, [remark], []
    widths = {len(value) for value in lists}
    if len(widths) == 1 and set(flat) <= {0, 1}:
        if all(sum(value) == 1 for value in lists):
            counts = Counter(str(value.index(1)) for value in lists)
            every = {str(number): counts[str(number)] for number in range(widths.pop())}
            return (
                "classification",
                every,
                lines,
                [f"Each row of {place!r} has a single 1: the number of a class."],
                [f"Name the classes 0 to {len(every) - 1} of {place!r} in their order, in `classes`"],
            )
        (width,) = widths
        question = f"Name the {counted(width, 'class')} of the 0 and 1 of {place!r} in their order, in `classes`"
    else:
        question = f"Name the classes that the numbers of {place!r} count, in their order, in `classes`"
    return "multilabel", {}, lines, [remark], [question]


def _cell(value: Any, known: Sequence[str] = ()) -> str:
    """A value as the text of a cell, or the class that it counts among those that the file names; '' for none."""
    text = name_in(value)
    if isinstance(value, str) or not known or not text.lstrip("-").isdecimal():
        return text
    return known[int(text)] if 0 <= int(text) < len(known) else ""
