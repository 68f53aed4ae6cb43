"""The lists of an exported project in: which annotations count, with the class of each, and the slide that it is on."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TypeVar

from dpconvert.annotations.formats import cytomine
from dpconvert.annotations.formats.cytomine import CytomineAnnotation, CytomineImage, Labelled, Term
from dpconvert.annotations.parsing.json_text import Loose
from dpconvert.errors import SourceError
from dpconvert.manifest.rules import Regional
from dpconvert.readers.cytomine.layout import Layout, notes_of
from dpconvert.readers.layout_keys import layout_of
from dpconvert.source.files import Source

M = TypeVar("M", bound=Loose)
NO_SLIDES = (".json", ".csv", ".dat", ".txt", "")


@dataclass(frozen=True)
class Export:
    """The annotations of each image that has any, the images, the classes that occur, notes of what was left out.

    file: the first list of annotations, to name in errors.
    """

    by_image: dict[int, list[Labelled]]
    slides: dict[int, CytomineImage]
    classes: list[str]
    notes: list[str]
    file: str


@lru_cache(maxsize=4)
def read(source: Source) -> Export:
    """All lists of a source.

    Raises:
        ReadError: A list cannot be read.
        SourceError: The lists do not belong together, or the manifest does not know a term.
    """
    layout = layout_of(source.manifest, Layout)
    items, left_out = cytomine.current(_listed(source, "annotations", CytomineAnnotation))
    slides = {slide.id: slide for slide in _listed(source, "images", CytomineImage)}
    names = {term.id: term.name or str(term.id) for term in _listed(source, "terms", Term)}
    used = {number for item in items for number in item.term}
    names |= {number: str(number) for number in used - set(names)}
    layout.check({name for number in used for name in (str(number), names[number])}, source)
    labels = {number: layout.label(str(number), names[number]) for number in sorted(names)}
    by_image: dict[int, list[Labelled]] = defaultdict(list)
    for item in items:
        label = layout.choose(f"annotation {item.id}", [labels[number] for number in item.term], left_out)
        if label is not None:
            by_image[item.image].append(Labelled(item, label))
        elif item.term and isinstance(source.manifest.rule, Regional):  # an annotated slide, though of the other class
            by_image[item.image] += []
    found = {labelled.label for of_image in by_image.values() for labelled in of_image}
    return Export(
        dict(sorted(by_image.items())),
        _complete(source, slides, set(by_image)),
        layout.ordered(found, [label for label in labels.values() if label is not None]),
        notes_of("annotations", left_out),
        source.match("annotations")[0].name,
    )


def slide_file(source: Source, slide: CytomineImage) -> str | None:
    """The slide's file by one of its names in Cytomine, else by image id; None when there is none.

    Raises:
        SourceError: Two files match.
    """
    for name in (slide.original_filename, slide.instance_filename, slide.filename, str(slide.id)):
        found = _by_name(source).get(PurePosixPath(name or "").name, [])
        if len(found) > 1:
            raise SourceError(
                "two files of one slide's name", where=found[0], found=found[1], remedy="name them by image id"
            )
        if found:
            return found[0]
    return None


def _listed(source: Source, kind: str, model: type[M]) -> list[M]:
    files = source.match(kind)
    return [entry for file in files for entry in cytomine.listing(source.read(file.name), file.name, model)]


def _complete(source: Source, slides: dict[int, CytomineImage], wanted: set[int]) -> dict[int, CytomineImage]:
    """The listed images; without any list, those that the annotations name."""
    unlisted = sorted(wanted - set(slides))
    if slides and unlisted:
        raise SourceError(
            f"{len(unlisted)} annotated images are not listed",
            where=source.match("images")[0].name,
            expected=f"image {unlisted[0]}, which has annotations",
            remedy="export annotations and images anew",
        )
    return slides | {number: CytomineImage(id=number) for number in unlisted}


@lru_cache(maxsize=4)
def _by_name(source: Source) -> dict[str, list[str]]:
    """Files by their names, and by their names without extension where those are numbers."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in source.sizes:
        path = PurePosixPath(name)
        if path.suffix.lower() not in NO_SLIDES:
            names[path.name].append(name)
            if path.stem.isdecimal():
                names[path.stem].append(name)
    return names
