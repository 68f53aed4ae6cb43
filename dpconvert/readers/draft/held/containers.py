"""What files that hold many images say of each: Parquet files and tar shards, looked into."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from dpconvert.readers.draft.held.partitions import partitions
from dpconvert.readers.draft.survey import Survey
from dpconvert.readers.draft.toml import quoted, some, strings
from dpconvert.readers.layouts import parquet, webdataset
from dpconvert.readers.values import decoded
from dpconvert.source.pixel_lists import holds_pixels

IMAGE = re.compile(r"(?i)(?:image|img|picture|tile|patch|pixel|pixel_value)s?")
SMALL = 1 << 20  # bytes of a field that may be a label
Values = dict[str, list[Any]]  # name of a place -> value of each image


@dataclass(frozen=True)
class Held:
    """What files of one shape say of each image.

    label: the key of [layout] for one class. images: line that names the images. classes: place -> names of its
    numbers. splits: the set of each file, as its name states it. places: name -> place, where they differ.
    questions: what the first image leaves open. folders: names of places that are levels of folders. patterns: kind of
    file -> pattern and comment, where the names of files tell the kinds.
    """

    shape: str
    files: Sequence[str]
    values: Values
    label: str = "label"
    images: tuple[str, ...] = ()
    classes: Mapping[str, list[str]] = field(default_factory=dict)
    splits: Sequence[str] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    questions: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    patterns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def of_parquet(survey: Survey) -> Held | None:
    files = _only(survey, parquet.FILES["tables"].pattern)
    if not files:
        return None
    schemas = [survey.source.columns(name).schema for name in files]
    first = survey.source.columns(files[0])
    images = [one.name for one in schemas[0] if _of_images(one.type)]
    images = images if len(images) < 2 else [name for name in images if not _of_texts(first.values(name))]
    named = [name for name in images if IMAGE.fullmatch(name)]
    unread = [name for name in images if name not in named] if len(named) == 1 < len(images) else []
    images = named if unread else images
    if len(images) != 1 or any(schema.names != schemas[0].names for schema in schemas):
        return None
    values: Values = {name: [] for name in schemas[0].names if name not in (images[0], *unread)}
    for file in files:
        columns = survey.source.columns(file)
        for name, found in values.items():
            found += map(decoded, columns.values(name))
    classes = {name: labels for name in values if (labels := first.label_names(name))}
    folders = of_folders(files, [survey.source.columns(name).rows for name in files], values)
    line = () if images[0] == "image" else (f"image = {quoted(images[0])}",)
    splits = splits_of(files, parquet.FILES["tables"].pattern)
    masks = f"Not read: the images in the column {', '.join(map(repr, unread))}. If they are masks, save them as files"
    remarks = (f"{masks} beside the images, for the shape masks.",) if unread else ()
    return Held("parquet", files, values, "label", line, classes, splits, folders=folders, remarks=remarks)


def of_folders(files: Sequence[str], counts: Sequence[int], values: Values) -> tuple[str, ...]:
    """Add what levels of folders say of the images of each file, and return how it is called.

    counts: how many images each file holds.
    """
    found = {place: of for place, of in partitions(files).items() if place not in values}
    for place, of in found.items():
        values[place] = [value for value, count in zip(of, counts, strict=True) for _ in range(count)]
    return tuple(found)


def _of_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or holds_pixels(kind))


def _of_texts(values: Sequence[Any]) -> bool:
    """Whether a column of bytes holds texts."""
    present = [value for value in values if value is not None]
    return all(isinstance(value, bytes) and value.isascii() and b"\0" not in value for value in present)


def of_shards(survey: Survey) -> Held | None:
    pattern = re.compile(webdataset.FILES["members"].pattern)
    found = [match for name in survey.names if (match := pattern.search(name))]
    if len(survey.images) != sum(webdataset.may_be_image(match["field"]) for match in found):
        return None
    samples: dict[str, Values] = {}
    shards: dict[str, str] = {}
    fields = [match["field"].lower() for match in found]
    for match in found:
        shards[match.string.rpartition("/")[0]] = match["split"] or ""
        row = samples.setdefault(match["name"], {})
        if not webdataset.may_be_image(match["field"]) and survey.source.sizes[match.string] <= SMALL:
            row |= dict(_fields(match["field"].lower(), survey.source.read(match.string)))
    every = dict.fromkeys(place for row in samples.values() for place in row)
    if not every:
        return None
    short = _short(every)
    values = {short[place]: [row.get(place) for row in samples.values()] for place in every}
    splits = list(shards.values()) if all(shards.values()) else []
    places = {short[place]: place for place in every}
    line, question = _image_field(fields, len(samples))
    return Held("webdataset", list(shards), values, images=line, places=places, splits=splits, questions=question)


def _image_field(fields: Sequence[str], samples: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The line that names the field of the image, where it is not called by a format alone; else a question."""
    if any(name in webdataset.SUFFIXES for name in fields):
        return (), ()
    counts = Counter(filter(webdataset.may_be_image, fields))
    if len(counts) == 1 and samples == counts.total():
        return (f"image = {strings(counts)}",), ()
    return (), (f"Fields that may be the image: {some(counts)}. Say in [layout] which one is `image`, as a list",)


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


def splits_of(files: Sequence[str], pattern: str) -> list[str]:
    """The set of each file; nothing if the name of one states none."""
    found = [match["split"] or "" for name in files if (match := re.search(pattern, name))]
    return found if all(found) else []
