"""Annotations, terms and images of a Cytomine project as its clients and its server write them (JSON with WKT, y up).

Cytomine's y axis points up from the bottom of the image: y_down = height - y_up.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import shapely

from dpconvert.annotations.geometry import Annotation, Annotations, mend
from dpconvert.errors import ReadError

WKT_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One annotation as listed: its image's id, its terms' ids in order, its outline in WKT."""

    id: int
    image: int
    terms: tuple[int, ...]
    location: str


def collection(data: bytes, name: str) -> list[dict[str, Any]]:
    """The objects of a listing: a bare list, or the server's {"collection": [...]}.

    Raises:
        ReadError: not JSON, or not a list of objects.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"not JSON: {error}", where=name) from None
    items = body.get("collection") if isinstance(body, dict) else body
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ReadError("no list of objects", where=name, expected='[...] or {"collection": [...]}')
    return items


def items(data: bytes, name: str) -> list[Item]:
    """The annotations with at least one term, in order of id; of a reviewed annotation only the reviewed copy.

    Raises:
        ReadError: an entry without id, image, or geometry (an export without showWKT has none).
    """
    listed = collection(data, name)
    replaced = {entry["parentIdent"] for entry in listed if isinstance(entry.get("parentIdent"), int)}
    found = [_item(entry, name) for entry in listed if entry.get("id") not in replaced]
    return sorted((item for item in found if item.terms), key=lambda item: item.id)


def shapes(found: list[Item], labels: dict[int, str], size: tuple[int, int], name: str) -> Annotations:
    """Annotations of one image of `size` (width, height): flipped to y down, clipped, labelled by their first term.

    An annotation wholly outside its image is dropped and counted.

    Raises:
        ReadError: WKT that cannot be read, or a term that `labels` does not have.
    """
    width, height = size
    frame = shapely.box(0, 0, width, height)
    mended: Counter[str] = Counter()
    result = []
    for item in found:
        if item.terms[0] not in labels:
            raise ReadError(f"annotation {item.id} has the unknown term {item.terms[0]}", where=name)
        shape = _shape(item, height, mended, name)
        clipped = None if shape is None else shapely.intersection(shape, frame)
        if clipped is None or clipped.is_empty:
            mended["outside its image"] += 1
        else:
            result.append(Annotation(clipped, labels[item.terms[0]], str(item.id)))
    return Annotations(result, mended)


def _item(entry: dict[str, Any], name: str) -> Item:
    terms = entry.get("term") or []
    terms = terms if isinstance(terms, list) else [terms]
    number, image, location = entry.get("id"), entry.get("image"), entry.get("location")
    if not (isinstance(number, int) and isinstance(image, int) and all(isinstance(term, int) for term in terms)):
        raise ReadError("an annotation without id, image or terms", where=name, found=str(entry)[:60])
    if not isinstance(location, str):
        raise ReadError(
            f"annotation {number} has no geometry", where=name, remedy="export with showWKT=true and showTerm=true"
        )
    return Item(number, image, tuple(terms), location)


def _shape(item: Item, height: int, mended: Counter[str], name: str) -> Any:
    if len(item.location) > WKT_LIMIT:
        raise ReadError(f"annotation {item.id}: {len(item.location)} characters of WKT", where=name)
    try:
        up = shapely.from_wkt(item.location)
        down = shapely.transform(up, lambda xy: xy * [1, -1] + [0, height])
    except (shapely.errors.GEOSException, ValueError, TypeError) as error:
        raise ReadError(f"annotation {item.id}: not WKT: {error}", where=name) from None
    return mend(down, mended)
