"""What HDF5 and NumPy files say of each of their images, in arrays beside them, or in files and tables of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dpconvert.errors import ReadError
from dpconvert.plural import counted
from dpconvert.readers.array_values import named
from dpconvert.readers.draft.held import label_files
from dpconvert.readers.draft.held.containers import Held, Values, of_folders, splits_of
from dpconvert.readers.draft.held.label_files import LabelFiles
from dpconvert.readers.draft.survey import Survey
from dpconvert.readers.draft.toml import quoted
from dpconvert.readers.layout_keys import SPLIT_NAMES
from dpconvert.readers.layouts import arrays
from dpconvert.readers.values import decoded
from dpconvert.source.arrays import elements
from dpconvert.source.arrays.elements import Element
from dpconvert.source.arrays.stacks import Array, Stacks, enumeration

WORD = re.compile(r"[A-Za-z]+")
LABEL = "label"  # what the only array of a file of labels is called here


def of_arrays(survey: Survey) -> Held | None:
    files = [name for name in survey.images if re.search(arrays.FILES["images"].pattern, name)]
    if not files or len(files) != len(survey.images) or survey.slides:
        return None
    apart = label_files.paired(files, list(survey.tables))
    if survey.tables and apart is None:
        return None
    values: Values = {}
    classes: dict[str, list[str]] = {}
    keys: set[tuple[str, ...]] = set()
    image, question, counts = "", "", list[int]()
    files = files if apart is None else apart.images
    for file in files:
        stacks = survey.source.stacks(file)
        shapes = stacks.names()
        several = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
        if apart is None and (found := of_sets(several)) is not None:
            return _of_sets(survey, files, found) if len(files) == 1 else None
        if len(several) != 1:
            return None
        (image,) = several
        beside = _beside(stacks, shapes[image][0]) if apart is None else {}
        keys.add((image, *beside))
        counts += [shapes[image][0]] if len(shapes[image]) == 4 else []  # else perhaps a single image
        question = question or _question(stacks, image)
        for name, array in (beside if apart is None else _labels_of(survey, apart, file)).items():
            values.setdefault(name, []).extend(_listed(array, f"{file}/{name}"))
            if known := enumeration(array):
                classes.setdefault(name, [*known.values()])
        for name, cells in _columns_of(survey, apart, file, shapes[image][0]).items():
            values.setdefault(name, []).extend(cells)
    if len(keys) != 1 or len({*map(len, values.values())}) > 1:
        return None
    line = (f"images = {quoted(image)}",) if image or apart is None else ()
    held = Held("arrays", files, values, "labels", line, classes, questions=(question,) if question else ())
    if apart is not None:
        return _held_apart(survey, apart, held)
    folders = of_folders(files, counts, values) if len(counts) == len(files) else ()
    return replace(held, splits=splits_of(files, arrays.FILES["images"].pattern), folders=folders)


def of_sets(arrays_of_images: Sequence[str]) -> tuple[str, dict[str, str]] | None:
    """What is equal in the names of arrays of several sets, with {split}, and set -> array; None for other names."""
    found: dict[str, str] = {}
    called = set[str]()
    for name in arrays_of_images:
        words = [word for word in WORD.finditer(name) if word[0].lower() in SPLIT_NAMES]
        if len(words) != 1:
            return None
        called.add(f"{name[: words[0].start()]}{arrays.SPLIT}{name[words[0].end() :]}")
        found[words[0][0]] = name
    if len(called) != 1 or len(found) != len(arrays_of_images) or len(found) < 2:
        return None
    return called.pop(), found


def _of_sets(survey: Survey, files: list[str], found: tuple[str, dict[str, str]]) -> Held | None:
    """What a file says that holds the images of several sets; None where not all sets have the same arrays."""
    template, by_set = found
    stacks = survey.source.stacks(files[0])
    values: Values = {}
    places: dict[str, str] = {}
    classes: dict[str, list[str]] = {}
    keys, count, question = set[frozenset[str]](), 0, ""
    for word, image in by_set.items():
        length = stacks.names()[image][0]
        of_set = {}
        for name, array in _beside(stacks, length).items():
            place = re.sub(rf"(?<![A-Za-z]){word}(?![A-Za-z])", arrays.SPLIT, name)
            if arrays.SPLIT in place:
                of_set[place] = array
        for place, array in of_set.items():
            short = re.sub(r"[-_./ ]*\{split\}[-_./ ]*", "", place) or place
            places[short] = place
            values.setdefault(short, []).extend(_listed(array, f"{files[0]}/{place}"))
            if known := enumeration(array):
                classes.setdefault(short, [*known.values()])
        keys.add(frozenset(of_set))
        count += length
        question = question or _question(stacks, image)
    if len(keys) != 1 or not values or {*map(len, values.values())} != {count}:
        return None
    line = (f"images = {quoted(template)}",)
    questions = (question,) if question else ()
    return Held("arrays", files, values, "labels", line, classes, [*by_set], places=places, questions=questions)


def _beside(stacks: Stacks, count: int) -> dict[str, Array]:
    """The arrays of a value, or of a row, for each of the images of a file."""
    shapes = stacks.names().items()
    return {name: stacks.array(name) for name, shape in shapes if len(shape) in (1, 2) and shape[0] == count}


def _labels_of(survey: Survey, apart: LabelFiles, file: str) -> dict[str, Array]:
    """The array of labels in the file beside that of images, if it holds nothing else.

    Raises:
        ReadError: it does.
    """
    if file not in apart.labels:
        return {}
    stacks = survey.source.stacks(apart.labels[file])
    shapes = list(stacks.names().items())
    if len(shapes) != 1 or (len(shapes[0][1]) > 2 and max(shapes[0][1][1:]) > 1):
        raise ReadError("not labels alone", where=apart.labels[file], found=stacks.listed())
    return {LABEL: stacks.array(shapes[0][0])}


def _columns_of(survey: Survey, apart: LabelFiles | None, file: str, count: int) -> dict[str, list[str]]:
    """The columns of the table beside a file of images.

    Raises:
        ReadError: it has not a row for each image.
    """
    if apart is None or file not in apart.tables:
        return {}
    rows, taken = survey.rows(apart.tables[file]), [LABEL] * bool(apart.labels)
    if len(rows) != count:
        raise ReadError("not one row per image", where=apart.tables[file], expected=count, found=len(rows))
    return {column: [row[column] for row in rows] for column in rows[0] if column and column not in taken}


def _held_apart(survey: Survey, apart: LabelFiles, held: Held) -> Held:
    """What files of images, of labels and tables say together."""
    kinds = {
        "images": sorted({*apart.labels, *apart.tables}),
        "labels": [*apart.labels.values()],
        "table": [*apart.tables.values()],
    }
    about = {kind: f"{counted(len(files), 'file')}, like {min(files)}" for kind, files in kinds.items() if files}
    if apart.labels:
        (key,) = survey.source.stacks(min(apart.labels.values())).names()
        held = replace(held, places={LABEL: key or LABEL})
    else:
        held = replace(held, label="label")
    rows = "The rows of the table are taken in the order of the images, which nothing but their number tells."
    return replace(
        held,
        splits=apart.splits,
        patterns={kind: (pattern, about[kind]) for kind, pattern in apart.patterns.items()},
        remarks=(rows,) if apart.tables else (),
    )


def _question(stacks: Stacks, key: str) -> str:
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
