"""What a file lists of one or several images: shapes in the pixels that the file states, with the names that it gives.

The formats that are read by `parse(data, name) -> list[ListedImage]` share this module: it finds an image by its name,
scales its shapes, and resolves their labels.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import shapely

from dpconvert.annotations import marks
from dpconvert.annotations.frame import SCALED, factors
from dpconvert.annotations.geometry import Annotation, Annotations, Geometry
from dpconvert.annotations.label_names import of_field, only, resolved
from dpconvert.errors import ReadError
from dpconvert.names import as_folders, folded, readable

Size = tuple[int, int]
SHOWN = 3  # names in a message


def bare(name: str) -> str:
    """The last part of a name without its extension."""
    return re.sub(r"(?i)(\.ome)?\.[a-z0-9]{2,7}$", "", PurePosixPath(name).name)


WAYS: tuple[Callable[[str], str], ...] = (
    str,
    folded,
    lambda name: PurePosixPath(name).name,
    lambda name: folded(PurePosixPath(name).name),
    bare,
    lambda name: folded(bare(name)),
    lambda name: folded(readable(PurePosixPath(name).name)),
    lambda name: folded(readable(bare(name))),
)
"""How names are compared, one after the other."""


@dataclass(frozen=True)
class ListedShape:
    """A shape, or what makes one for an image of a given (width, height); its labels, and its id.

    ranked: whether the labels name one thing, the best first; else each is a separate label, and one may be known.
    """

    shape: Geometry | Callable[[Size], Geometry | None]
    labels: tuple[str, ...] = ()
    id: str = ""
    ranked: bool = True


@dataclass(frozen=True)
class ListedImage:
    """An image of a file: its name, the (width, height) that the file states, and what is drawn on it.

    aliases: other names of the image. labels: those of the whole image. remarks: what was repaired or passed over,
    counted.
    """

    name: str = ""
    size: tuple[float, float] | None = None
    drawn: list[ListedShape] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    aliases: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class NamedImage:
    """An image that a file names: all its names there, and how many annotations the file holds of it."""

    names: tuple[str, ...]
    annotations: int


class Names:
    """Names of images, as a file states them, by which the files of a source are found."""

    def __init__(self, names_here: Iterable[str]) -> None:
        self._stated = [name.replace("\\", "/") for name in names_here]
        self._places: list[dict[str, list[int]]] = []
        for way in WAYS:
            found = defaultdict(list)
            for place, name in enumerate(self._stated):
                found[way(name)].append(place)
            self._places.append(dict(found))

    def places(self, image: str) -> list[int]:
        """The places of an image's names: of its whole name, else of its last part, else of that without extension.

        Each time case and Unicode form count only where names differ in nothing else. Last, bytes that are not UTF-8
        are read as Windows-1252. Of several that end alike, those whose folders agree best with the image's.
        """
        ways = zip(WAYS, self._places, strict=True)
        found = next((places[way(image)] for way, places in ways if way(image) in places), [])
        best = max((shared_folders(self._stated[place], image) for place in found), default=0)
        return [place for place in found if shared_folders(self._stated[place], image) == best]


def shared_folders(one: str, other: str) -> int:
    """How many folders two names share, counted from the last one; an archive counts as a folder."""
    folders = (folded(as_folders(name.replace("\\", "/"))).split("/")[:-1] for name in (one, other))
    pairs = zip(*map(reversed, folders), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def matching(names: Iterable[str], image: str) -> list[int]:
    """The places of an image among some names, as `Names` finds them."""
    return Names(names).places(image)


class Index:
    """The images of a file by their names; made once for many look-ups."""

    def __init__(self, images: Sequence[ListedImage]) -> None:
        pairs = [(number, name) for number, listed in enumerate(images) for name in (listed.name, *listed.aliases)]
        self._images, self._owners = images, [number for number, _ in pairs]
        self._names = Names(name for _, name in pairs)

    def find(self, name: str, image: str) -> ListedImage:
        """Return the entry of an image; `name` is that of the file.

        Raises:
            ReadError: The file does not list the image, or lists it more than once.
        """
        found = {self._owners[place] for place in self._names.places(image)}
        if len(found) == 1:
            return self._images[found.pop()]
        if found:
            raise ReadError(f"{len(found)} images named {image!r}", where=name)
        raise ReadError(
            f"does not list the image {image!r}", where=name, found=some([listed.name for listed in self._images])
        )


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are."""
    more = f", ... ({len(names)})" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more or "no image"


def placed(listed: ListedImage, name: str, size: Size, known: Collection[str] = (), field: str = "") -> Annotations:
    """Its annotations in pixels of an image of `size` (width, height).

    field: the field of its shapes that holds their labels; '' if they have one at most.

    Raises:
        ReadError: The file states an image of another shape, or `known` lacks a label.
    """
    scale = factors(listed.size, size, name) if listed.size else (1.0, 1.0)
    items, remarks = [], Counter(listed.remarks)
    for number, drawn in enumerate(listed.drawn):
        shape = drawn.shape(size) if callable(drawn.shape) else drawn.shape
        if shape is None or shape.is_empty:
            remarks["annotation without an outline"] += 1
            continue
        if not callable(drawn.shape) and scale != (1, 1):
            shape = shapely.transform(shape, lambda xy: xy * scale)
            remarks[SCALED] += 1
        labels = of_field(drawn.labels, field)
        label = resolved(labels, known, name) if drawn.ranked else only(labels, known, name)
        items.append(Annotation(shape, label, drawn.id or str(number)))
    if listed.labels and not items and any(what.startswith(marks.UNKNOWN) for what in remarks):
        raise ReadError(
            "holds labels of whole images, and no outlines",
            where=name,
            found=", ".join(map(repr, listed.labels[:3])),
            remedy="the rules 'whole' and 'tiles' of the shape `slides` take such labels; for others, draw outlines",
        )
    return marks.check(Annotations(items, remarks), name)
