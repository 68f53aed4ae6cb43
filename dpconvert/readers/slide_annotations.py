"""Which files of annotations belong to a slide: by its name, by what they say, or because they are about all slides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dpconvert import names
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.listed import NamedImage
from dpconvert.errors import ReadError, SourceError
from dpconvert.plural import counted
from dpconvert.readers import named_images
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile

ONE = "put all annotations of the slide into one file, or let the pattern of [files.annotations] leave out the other"
GEOJSON = re.compile(r"(?i)\.(geo)?json(\.gz)?$")


@dataclass(frozen=True)
class SlideAnnotations:
    """Which files of annotations belong to a slide: of its name, naming it, or of all slides; `alone` are of none.

    own: a slide's name -> its file, or its files of one label each. layers: file -> the label that its name states, ''
    if none.
    """

    own: dict[str, tuple[str, ...]]
    shared: list[str]
    naming: named_images.Mentions
    alone: list[str]
    layers: dict[str, str]
    fold: Callable[[str], str]

    def lacking(self, files: tuple[str, ...], skipped: Sequence[str]) -> list[str]:
        """Return the labels that files of other slides are about, and none of these files; without skipped ones.

        A file without a label in its name may be about all.
        """
        here = {names.folded(self.layers.get(name, "")) for name in files}
        if "" in here:
            return []
        others = {names.folded(label): label for label in self.layers.values() if label}
        return sorted(label for folded, label in others.items() if folded not in {*here, *map(names.folded, skipped)})

    def of(self, slide: MatchedFile) -> tuple[str, ...]:
        """Return the file of a slide, if it has one, or those of one label each.

        Raises:
            SourceError: two files are about the slide.
        """
        own = self.own.get(self.fold(slide["name"]))
        found = tuple(dict.fromkeys([*(self.shared if own is None else own), *self.naming.of(slide.name)]))
        labels = {names.folded(self.layers[name]) for name in found}
        if len(found) > 1 and ("" in labels or len(labels) < len(found)):
            raise SourceError(
                "two files of annotations for one slide",
                where=slide.name,
                found=" and ".join(found[:2]),
                remedy=f"{ONE}, or move it away; if each is about one label, name it in the pattern of "
                "[files.annotations], as in '(?P<label>[^/_]+)\\.json$'",
            )
        return found


def annotations_of_slides(source: Source, slides: list[MatchedFile], called: dict[str, str]) -> SlideAnnotations:
    """Find the files of annotations of each slide. called: every name of a slide -> its `name`.

    Raises:
        SourceError: two files have the name of one slide, or those that name images name none that is here.
    """
    own: dict[str, tuple[str, ...]] = {}
    layers: dict[str, str] = {}
    fold = _folding(set(called.values()))
    by_name = {fold(alias): fold(name) for alias, name in called.items()}
    shared, listings, alone = list[str](), dict[str, list[NamedImage]](), list[str]()
    for found in source.match("annotations"):
        name = fold(found.get("name"))
        name = by_name.get(name, name)
        layer = found.get("label")
        layers[found.name] = layer
        taken = {names.folded(layers[other]) for other in own.get(name, ())}
        if taken and (not layer or taken & {"", names.folded(layer)}):
            raise SourceError(
                "two files of annotations for one slide",
                where=found.name,
                found=own[name][0],
                remedy=f"{ONE}; if each is about one label, name it in the pattern of [files.annotations], as in "
                "'(?P<name>[^/]+)_(?P<label>[^/_]+)\\.geojson$'; if they are about two slides of one name, let `name` "
                "take in the folder in the patterns of [files.slides] and [files.annotations], as "
                "'(?P<name>[^/]+/[^/]+)' does",
            )
        if (named := named_images.images_of(source, found.name)) is not None:
            listings[found.name] = named
        if name in by_name.values():
            own[name] = (*own.get(name, ()), found.name)
        elif named is None:
            (alone if name else shared).append(found.name)
    for name in shared:
        refuse_names_in_geojson(source, name, called)
    note_of_all(source, shared, sum(fold(slide["name"]) not in own for slide in slides))
    naming = named_images.Mentions(listings, (slide.name for slide in slides))
    if not own:
        naming.check(source)
    else:
        source.notes += naming.notes()
    return SlideAnnotations(own, shared, naming, alone, layers, fold)


def layer_of(source: Source, name: str) -> str:
    """Return the label that the name of a file gives to its annotations; '' if it names none."""
    found = re.search(source.manifest.files["annotations"].pattern, name)
    return (found.groupdict().get("label") or "") if found else ""


def refuse_names_in_geojson(source: Source, name: str, called: dict[str, str]) -> None:
    """Refuse a GeoJSON file that would be about all images, although a property of its features names one of them.

    called: every name of an image -> the image.

    Raises:
        SourceError: there is such a property.
    """
    slides = {names.folded(alias) for alias in called}
    values: dict[str, list[str]] = {}
    for feature in _features(source, name) if len(set(called.values())) > 1 else []:
        properties = feature.get("properties") if isinstance(feature, dict) else None
        for key, value in properties.items() if isinstance(properties, dict) else ():
            if isinstance(value, str) and value:
                values.setdefault(key, []).append(value)
    for key, some in values.items():
        paths = [PurePosixPath(names.folded(names.file_name(value))) for value in some]
        if sum(path.name in slides or path.stem in slides for path in paths) * 2 >= len(some):
            raise SourceError(
                f"the property {key!r} names an image for each object, while all objects would be on all images",
                where=name,
                found=", ".join(sorted(set(some))[:3]),
                remedy="write a GeoJSON file for each image, of its name, or one COCO file for all",
            )


def note_of_all(source: Source, files: Sequence[str], images: int) -> None:
    """Note that files which name no image are about all of these images."""
    if files and images > 1:
        more = f" and {counted(len(files) - 1, 'file')} more" if len(files) > 1 else ""
        source.notes.append(f"on all {images} images, as the file names none: the annotations of {files[0]}{more}")


def _features(source: Source, name: str) -> list[Any]:
    """The features of a GeoJSON file; nothing of other files, and of those that its reader reports."""
    if not GEOJSON.search(name):
        return []
    try:
        document = json.loads(annotation_files.unpacked(source.read(name), name))
    except (ReadError, ValueError, RecursionError):
        return []
    found = document.get("features") if isinstance(document, dict) else document
    return found if isinstance(found, list) else []


def check_alone(source: Source, outlines: SlideAnnotations, called: dict[str, str]) -> None:
    """Note the files of annotations that belong to no slide here.

    Raises:
        SourceError: all do, and the rule needs annotations.
    """
    alone = outlines.alone
    if alone and not (outlines.own or outlines.shared or outlines.naming.found) and source.manifest.reads_annotations:
        raise SourceError(
            "no file of annotations belongs to a slide here",
            where=alone[0],
            expected=f"a name like {min(called)!r}" if called else None,
            found=counted(len(alone), "file"),
            remedy="name files of annotations like their slides, or change the patterns of [files]",
        )
    if alone:
        source.notes.append(f"{counted(len(alone), 'file')} of annotations on no slide here, the first: {alone[0]}")


def _folding(slides: set[str]) -> Callable[[str], str]:
    """How names are compared: without regard to case, unless two slides differ in nothing else."""
    return names.folded if len({names.folded(name) for name in slides}) == len(slides) else names.nfc
