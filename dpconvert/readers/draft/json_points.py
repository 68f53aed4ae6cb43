"""One JSON file with the points of several images: which key of it names the image, x, y and the label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpconvert.annotations.point_arrays import content_of
from dpconvert.annotations.points import KEYS, LABELS
from dpconvert.errors import ReadError
from dpconvert.readers.draft.survey import MOST_BYTES, Survey
from dpconvert.readers.endings import Endings

JSON = (".json", ".jsonl", ".ndjson")
IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
COVERED = 0.9  # of the images, or of the names in the file
Members = Mapping[str, Any]


@dataclass(frozen=True)
class JsonPoints:
    """A file of points: the key that names an image (`KEYS` for those of the whole object), and the points' keys.

    points: those of the images here. empty: images that the file names without any point.
    """

    file: str
    image: str
    keys: tuple[str, ...]
    points: tuple[Members, ...]
    empty: frozenset[str]


def found_in(survey: Survey) -> JsonPoints | None:
    """The first file that names images here with a list of points each, or points with an image each."""
    endings = Endings(iter(survey.images))
    for file in survey.names:
        known = file in survey.outlines or file in survey.foreign
        if known or not file.lower().endswith(JSON) or survey.source.sizes[file] > MOST_BYTES:
            continue
        try:
            content = content_of(survey.source.read(file), file)
        except ReadError:
            continue
        for image, lists in _ways(content):
            if (found := _judged(file, image, lists, endings, len(survey.images))) is not None:
                return found
    return None


def _ways(content: Any) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """(key of the image, [(image, its list of points)]) for each way to read the content."""
    if isinstance(content, dict):
        yield KEYS, [(key, _only_list(value)) for key, value in content.items()]
        content = _only_list(content)
    elements = [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    for key in elements[0] if elements and len(elements) == len(content) else ():
        named = [(name, one) for one in elements if isinstance(name := one.get(key), str)]
        if len(named) < len(elements):
            continue
        lists = [[value for value in one.values() if isinstance(value, list)] for _, one in named]
        nested = all(len(some) == 1 for some in lists)
        yield key, [(name, some[0] if nested else [one]) for (name, one), some in zip(named, lists, strict=True)]


def _only_list(value: Any) -> Any:
    """The list that a value is, or the only one that it holds."""
    lists = [one for one in value.values() if isinstance(one, list)] if isinstance(value, dict) else []
    return lists[0] if len(lists) == 1 else value


def _judged(
    file: str, image: str, lists: Sequence[tuple[str, Any]], endings: Endings, images: int
) -> JsonPoints | None:
    """The points by this way to read them; None where names are not those of images, or lists not of points."""
    names = {name: found[0] for name, _ in lists if len(found := endings.find(name) or _stems(name, endings)) == 1}
    if len(names) < 2 or len(set(names.values())) < COVERED * min(images, len({name for name, _ in lists})):
        return None
    if not all(isinstance(of, list) for _, of in lists):
        return None
    points = [point for name, of in lists if name in names for point in of]
    empty = {names[name] for name, of in lists if name in names and not of}
    if not points or not all(isinstance(point, dict | list) for point in points):
        return None
    keys = tuple(points[0]) if isinstance(points[0], dict) else ()
    members = tuple(point for point in points if isinstance(point, dict))
    return JsonPoints(file, image, tuple(key for key in keys if key != image), members, frozenset(empty))


def _stems(name: str, endings: Endings) -> list[str]:
    return next((found for suffix in IMAGES if len(found := endings.find(name + suffix)) == 1), [])


def label_of(found: JsonPoints) -> tuple[str, tuple[str, ...]]:
    """The key of the label, or '' and those that may be."""
    named = [key for key in found.keys if key.casefold() in LABELS]
    few = [key for key in found.keys if _has_few(found, key)]
    if len(named) == 1:
        return named[0], ()
    return (few[0], ()) if len(few) == 1 and not named else ("", tuple(named or few))


def _has_few(found: JsonPoints, key: str) -> bool:
    values = [point.get(key) for point in found.points]
    return all(isinstance(value, str) for value in values) and 1 < len(set(values)) <= max(2, len(values) // 2)
