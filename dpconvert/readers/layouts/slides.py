r"""Shape "slides": whole slides (or large pictures), and for each a file of annotations in any format known here.

[files.slides] and [files.annotations] are paired by their named group `name`. A COCO file serves every slide that it
names; so does any file of annotations where the pattern names no `name`. [files.slides] may name `group` (patient),
`split` and `class` too; else a table [files.table] tells them, a line a slide. [layout] takes
  labels     the files' labels -> class names; a label that it lacks is an error, those listed in `skip` are left out
  missing    true: a slide without annotations is taken as one that has none
  values, threshold, instances   how masks are read: value -> class name; values made 0 or 1 first; values are numbers
             of objects, whose classes [files.classes] tells (lines `1,tumour`, paired by `name`)
  slide, group, split, label     columns of the table; "" for one that it does not have
  bounds     false: QuPath counted from the corner of the whole slide, not of its bounds
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from dpconvert.annotations import Annotations, LabelMask, coco, masks
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.ndpa import Glass
from dpconvert.card import Model
from dpconvert.errors import SourceError
from dpconvert.image import Image
from dpconvert.manifest.model import FileKind, Manifest, Regional
from dpconvert.plural import counted
from dpconvert.readers.layouts import table
from dpconvert.readers.pairing import as_split, layout_of
from dpconvert.source.files import Found, Source
from dpconvert.source.record import Picture

SLIDE = r"(?:\.ome)?\.(?:svs|ndpi|mrxs|scn|bif|svslide|vms|vmu|dcm|tiff?)"
FILES = {
    "slides": FileKind(
        pattern=rf"(?i)(?:^|/)(?P<name>[^/]+?)(?<![._-]mask)(?<![._-]labels){SLIDE}$",
        what="slides",
        example="patient7/slide-1.svs",
    ),
    "annotations": FileKind(
        pattern=rf"(?i)(?:^|/)(?P<name>[^/]+?)(?:{SLIDE})?"
        r"(?:(?<![._-]classes)\.(?:xml|ndpa|(?:geo)?json)(?:\.gz)?|[._-](?:mask|labels)\.(?:png|tiff?|bmp))$",
        what="files of annotations",
        example="patient7/slide-1.xml",
        optional=True,
    ),
    "table": FileKind(
        pattern=r"(?i)^slides\.(?:csv|tsv)$", what="table of slides", example="slides.csv", optional=True
    ),
    "classes": FileKind(
        pattern=r"(?i)(?:^|/)(?P<name>[^/]+?)[._-]classes\.(?:csv|json)$",
        what="classes of a mask's objects",
        example="slide-1_classes.csv",
        optional=True,
    ),
}
OFFSET = "hamamatsu.XOffsetFromSlideCentre", "hamamatsu.YOffsetFromSlideCentre"


class Layout(Model):
    """`[layout]` of a manifest of this shape."""

    labels: dict[str, str] = {}
    skip: list[str] = []
    missing: bool = False
    values: dict[int, str] = {}
    threshold: int | None = None
    instances: bool = False
    slide: str = "slide"
    group: str = "group"
    split: str = ""
    label: str = ""
    bounds: bool = True


def pictures(source: Source) -> Iterator[Picture]:
    layout, slides = layout_of(source.manifest, Layout), source.need("slides")
    outlines = _outlines(source, _called(slides))
    classes = {_called(slides).get(found["name"], found["name"]): found.name for found in source.match("classes")}
    told = _table(source, layout, _called(slides))
    for slide in slides:
        name = slide["name"]
        files = outlines.of(slide)
        if not files and not layout.missing and source.match("annotations"):
            raise SourceError(
                "no annotations for this slide", where=slide.name,
                remedy="if it holds nothing to annotate, say `missing = true` in the manifest's [layout]",
            )  # fmt: skip
        if told and name not in told:
            raise SourceError("no line of the table is about this slide", where=slide.name)
        yield _picture(slide, layout, told.get(name, {}), files, classes.get(name, ""))


def _called(slides: list[Found]) -> dict[str, str]:
    """Everything that a slide is called -> its name."""
    aliases = {alias: slide["name"] for slide in slides for alias in slide.aliases}
    return aliases | {slide["name"]: slide["name"] for slide in slides}


def read_annotations(source: Source, picture: Picture, image: Image) -> Annotations | LabelMask:
    layout = layout_of(source.manifest, Layout)
    if not picture.annotations:
        return Annotations([])
    name = picture.annotations[0]
    subject = annotation_files.Subject(
        file=picture.files[0],
        size=(image.width, image.height),
        origin=image.bounds[:2] if layout.bounds else (0, 0),
        glass=_glass(image, source.manifest.mpp),
        values=layout.values | _object_classes(source, picture),
        threshold=layout.threshold,
        instances=layout.instances,
    )
    found = annotation_files.read(source.read(name), name, subject, _known(source.manifest, layout))
    if isinstance(found, LabelMask):
        return found
    kept = [item for item in found.items if item.label not in layout.skip]
    return Annotations([replace(i, label=layout.labels.get(i.label, i.label)) for i in kept], found.mended)


class _Outlines:
    """Which files of annotations belong to a slide."""

    def __init__(self, own: dict[str, str], shared: list[str], pictured: dict[str, coco.File]) -> None:
        self.own, self.shared, self.pictured = own, shared, pictured

    def of(self, slide: Found) -> tuple[str, ...]:
        if slide["name"] in self.own:
            return (self.own[slide["name"]],)
        naming = [name for name, file in self.pictured.items() if coco.named(file, slide.name)]
        found = [*self.shared, *naming]
        if len(found) > 1:
            raise SourceError("two files of annotations for one slide", where=slide.name, found=" and ".join(found[:2]))
        return tuple(found)


def _outlines(source: Source, slides: dict[str, str]) -> _Outlines:
    own: dict[str, str] = {}
    shared, pictured, alone = [], {}, []
    for found in source.match("annotations"):
        name = slides.get(found.get("name"), found.get("name"))
        if name in own:
            raise SourceError("two files of annotations for one slide", where=found.name, found=own[name])
        if name in slides.values():
            own[name] = found.name
        elif (file := _coco(source, found.name)) is not None:
            pictured[found.name] = file
        elif name:
            alone.append(found.name)
        else:
            shared.append(found.name)
    if alone:
        source.notes.append(f"{counted(len(alone), 'file')} of annotations on no slide here, the first: {alone[0]}")
    return _Outlines(own, shared, pictured)


def _coco(source: Source, name: str) -> coco.File | None:
    if not re.search(r"(?i)\.json(\.gz)?$", name):
        return None
    data = annotation_files.unpacked(source.read(name), name)
    return annotation_files.coco_file(data, name) if annotation_files.detect(data, name) == "coco" else None


def _picture(slide: Found, layout: Layout, row: dict[str, str], files: tuple[str, ...], classes: str) -> Picture:
    return Picture(
        slide["name"],
        (slide.name,),
        group=row.get(layout.group) or slide.get("group") or slide["name"],
        label=row.get(layout.label) or slide.get("class") or None,
        split=as_split(row.get(layout.split, "") or slide.get("split")),
        annotations=files,
        extra={"classes": classes} if classes else {},
    )


def _table(source: Source, layout: Layout, slides: dict[str, str]) -> dict[str, dict[str, str]]:
    """Slide's name -> its line."""
    told: dict[str, dict[str, str]] = {}
    for found in source.match("table"):
        for number, row in enumerate(table.rows(source, found.name), start=2):
            where = f"{found.name}, line {number}"
            name = PurePosixPath(table.cell(row, layout.slide, where).replace("\\", "/")).name
            for column in filter(None, (layout.group, layout.split, layout.label)):
                table.cell(row, column, where)
            name = re.sub(rf"(?i){SLIDE}$", "", name)
            name = slides.get(name, name)
            if name in told:
                raise SourceError("two lines about one slide", where=where, found=name)
            told[name] = row
    return told


def _known(manifest: Manifest, layout: Layout) -> list[str]:
    if layout.labels:
        return [*layout.labels, *layout.skip]
    return [*manifest.rule.known(), *layout.skip] if isinstance(manifest.rule, Regional) else []


def _object_classes(source: Source, picture: Picture) -> dict[int, str]:
    name = picture.extra.get("classes", "")
    return masks.class_table(source.read(name), name) if name else {}


def _glass(image: Image, told: float | None) -> Glass | str:
    """Where the slide lies on its glass, or what is missing to know it."""
    try:
        x, y = (float(image.properties[name]) for name in OFFSET)
    except (KeyError, ValueError):
        return f"the slide does not state {OFFSET[0]}"
    across, down = image.spacing.x or told, image.spacing.y or told
    if across is None or down is None:
        return "the slide states no resolution: give it with --mpp, or as `mpp` in the manifest"
    return Glass((image.width, image.height), (across, down), (x, y))
