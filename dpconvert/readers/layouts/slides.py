"""Shape "slides": whole slides or large images, each with a file of annotations in any format that can be read.

[files.slides] and [files.annotations] are paired by their named group `name`. A COCO file serves every slide that it
names, and so does any file of annotations whose pattern has no `name`. [files.slides] may also name `group` (the
patient), `split` and `class`; a table [files.table] with a row for each slide may state them instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from dpconvert import names
from dpconvert.annotations import Annotations, LabelMask, masks
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.formats import coco
from dpconvert.annotations.formats.ndpa import Glass
from dpconvert.annotations.label_names import only, resolved
from dpconvert.annotations.mask_pixels import Value
from dpconvert.annotations.parsing.units import Unit, pixels_per_unit
from dpconvert.errors import SourceError
from dpconvert.image import Image
from dpconvert.manifest.files import FileKind
from dpconvert.manifest.rules import Tiles, Whole
from dpconvert.plural import counted
from dpconvert.readers import named_images, siblings, slide_table
from dpconvert.readers.labels import ALL
from dpconvert.readers.layout_keys import Idle, Missing, Tabular, layout_of
from dpconvert.readers.pairing import no_white_zero
from dpconvert.readers.slide_annotations import annotations_of_slides, check_alone, layer_of
from dpconvert.readers.slide_labels import check_mask, check_skipped, joined, known_labels, mask_of_layer, of_layer
from dpconvert.readers.slide_table import SLIDE, SlideTable, called_as, stem
from dpconvert.readers.stated_images import StatedImage, refuse_another
from dpconvert.source import target
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

FILES = {
    "slides": FileKind(
        pattern=rf"(?i)(?:^|/)(?P<name>[^/]+?)(?<![._-]mask)(?<![._-]labels){SLIDE}$",
        what="slides",
        example="patient7/slide-1.svs",
    ),
    "annotations": FileKind(
        pattern=rf"(?i)(?:^|/)(?P<name>[^/]+?)(?:{SLIDE})?"
        r"(?:(?<![._-]classes)\.(?:xml|annotations|ndpa|(?:geo|nd)?json|(?:geo)?jsonl)(?:\.gz)?|[._-](?:mask|labels)\.(?:png|tiff?|bmp|gif|webp|jp2|p[bgnp]m|pam))$",
        what="files of annotations",
        example="patient7/slide-1.xml",
        optional=True,
    ),
    "table": FileKind(
        pattern=r"(?i)^slides\.(?:csv|tsv|xls[xm])$", what="table of slides", example="slides.csv", optional=True
    ),
    "classes": FileKind(
        pattern=r"(?i)(?:^|/)(?P<name>[^/]+?)[._-]classes\.(?:csv|json)$",
        what="classes of a mask's objects",
        example="slide-1_classes.csv",
        optional=True,
    ),
}
MORE_FILES = ("sets",)
GROUPS = {
    "sets": {"split"},
    "slides": {"name", "group", "split", "class"},
    "annotations": {"name", "label"},
    "table": set[str](),
    "classes": {"name"},
}
TARGETS = ALL
MASK = re.compile(r"(?i)\.(png|tiff?|bmp|gif|webp|jp2|p[bgnp]m|pam)$")
OFFSET = "hamamatsu.XOffsetFromSlideCentre", "hamamatsu.YOffsetFromSlideCentre"


class Layout(SlideTable):
    """`[layout]` of a manifest of this shape."""

    labels: dict[str, str] = {}
    """Label in the annotations -> class name; a label without an entry is an error unless `skip` lists it."""
    skip: list[str] = []
    """Labels that are left out."""
    values: dict[Value, str] = {}
    """Value or colour of a mask -> class name."""
    threshold: int | None = None
    """Mask values above it become 1, others 0. A mask of 0 and 1 with a higher threshold than 0 is refused."""
    white_is_zero: masks.WhiteIsZero = ""
    """Which values count of TIFF masks whose zero is white: `"shown"`, as viewers show them, or `"stored"`; masks that
    allow both are refused if not given.
    """
    instances: bool = False
    """Whether mask values number objects, whose classes [files.classes] holds."""
    bounds: bool = True
    """Whether QuPath's coordinates start at the slide's bounds; `false` if at the corner of the whole slide. Masks that
    may cover the bounds alone are refused unless it is `false`.
    """
    label_field: str = ""
    """Attribute of VIA, or choices of Label Studio (`name` of the control, the `from_name` of the export), that holds
    the labels; files with labels in several are refused if not given.
    """
    stated_image: StatedImage = ""
    """`"ignore"`: a file of LabelMe, Pascal VOC or Darwin is about the slide with its name, although it states the
    name of another slide that is here; refused if not given.
    """
    boxes: coco.Boxes = ""
    """What COCO boxes hold: `"xywh"`, or `"xyxy"` for two corners; boxes that fit only as corners are refused if not
    given.
    """
    unit: Unit = ""
    """Unit of coordinates in GeoJSON: `"px"`, or `"um"`, `"mm"` or `"nm"`, which the resolution of the slide converts
    to pixels. If not given they are pixels, and a file that states another unit is refused.
    """


def images(source: Source) -> Iterator[SourceImage]:
    layout, slides = layout_of(source.manifest, Layout), source.need("slides")
    check_skipped(source.manifest, layout.labels, layout.skip)
    called = called_as(slides)
    siblings.refuse_two_roles(source, "slides", "annotations")
    outlines = annotations_of_slides(source, slides, called)
    classes = {called.get(found["name"], found["name"]): found.name for found in source.match("classes")}
    table = slide_table.rows_of(source, layout, slides)
    missing = _missing(source, layout)
    of_slide = {slide.name: outlines.of(slide) for slide in slides}
    pairs = {file: slide for slide, files in of_slide.items() for file in files if file not in outlines.shared}
    refuse_another(source, pairs, list(of_slide), layout.stated_image)
    bare = [slide for slide in slides if source.manifest.reads_annotations and not of_slide[slide.name]]
    siblings.report_unused(
        source, set(map(stem, of_slide)), {stem(slide.name) for slide in bare}, _used(source, of_slide)
    )
    siblings.refuse_dicom(source, bare)
    siblings.refuse_label_images(source, bare)
    check_alone(source, outlines, called)
    alone = []
    shown = set(named_images.without_unanswered(source, [slide.name for slide in slides if not of_slide[slide.name]]))
    for slide in slides:
        name, files = slide["name"], of_slide[slide.name]
        lacking = outlines.lacking(files, layout.skip) if files else []
        shows_none = missing == "none" and (bool(files) or slide.name in shown)
        if (not files or lacking) and not shows_none and _needs_annotations(source):
            _check_missing(source, slide, layout, lacking)
            alone.append(slide.name)
            continue
        row = table.get(names.folded(name))
        if table and row is None:
            raise SourceError("no line of the table is about this slide", where=slide.name)
        if row is not None and row.get(slide_table.LABEL) == "":
            continue
        of_class = source.manifest.target == "class"
        found = _source_image(slide, layout, row or {}, files, classes.get(name, ""), of_class=of_class)
        if found.label is None and isinstance(source.manifest.rule, Whole | Tiles):
            found = _labelled(source, layout, found)
        yield found
    if alone:
        source.notes.append(f"left out: {counted(len(alone), 'slide')} without annotations, the first {alone[0]}")
    source.notes += [*slide_table.notes_on_rows(table, slides, layout), *layout.unmet()]


def idle(source: Source) -> Iterator[Idle]:
    files = [found.name for found in source.match("annotations")]
    if not any(map(MASK.search, files)):
        yield ("values", "threshold", "instances", "white_is_zero"), "no file of annotations is a mask"
    else:
        drawn = (name for name in files if MASK.search(name))
        yield from no_white_zero(source, drawn, layout_of(source.manifest, Layout).white_is_zero)
    if not any(re.search(r"(?i)json(\.gz)?$", name) for name in files):
        yield ("boxes", "unit"), "no file of annotations is JSON"
    if not any(named_images.SEVERAL.search(name) for name in files):
        yield ("label_field", "stated_image"), "no file of annotations is JSON, XML or a table"
    if not files:
        yield ("labels", "skip", "bounds"), "there is no file of annotations"
    if not source.match("table"):
        yield (
            ("slide", "group", "split", "label", "indicators", "value", *Tabular.model_fields),
            "there is no table of slides",
        )


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations | LabelMask:
    layout = layout_of(source.manifest, Layout)
    found = {name: _read(source, source_image, image, name, layout) for name in source_image.annotations}
    return joined(found) if found else Annotations([])


def _read(
    source: Source, source_image: SourceImage, image: Image, name: str, layout: Layout
) -> Annotations | LabelMask:
    subject = annotation_files.Subject(
        file=source_image.files[0],
        size=(image.width, image.height),
        origin=image.bounds[:2] if layout.bounds else (0, 0),
        glass=_glass(image, source.manifest.mpp),
        values={**layout.values, **_object_classes(source, source_image)},
        threshold=layout.threshold,
        instances=layout.instances,
        white_is_zero=layout.white_is_zero,
        boxes=layout.boxes,
        label_field=layout.label_field,
        unit=layout.unit,
        per_unit=pixels_per_unit(layout.unit, (image.spacing.x, image.spacing.y), source.manifest.mpp, name),
    )
    data = source.read(name) if MASK.search(name) else named_images.content(source, name)
    layer = layer_of(source, name)
    known = known_labels(source.manifest, layout.labels, layout.skip)
    found = annotation_files.read(data, name, subject, [*known, ""] if known and layer else known)
    if isinstance(found, LabelMask):
        if layer:
            raise mask_of_layer(layer, name)
        if layout.bounds:
            check_mask(found, image.bounds, name)
        return found
    found = of_layer(found, layer, known, name) if layer else found
    kept = [item for item in found.items if item.label not in layout.skip]
    return Annotations([replace(i, label=layout.labels.get(i.label, i.label)) for i in kept], found.remarks)


def _needs_annotations(source: Source) -> bool:
    """Whether the rule asks what is drawn on a slide, or files of annotations are here."""
    return source.manifest.reads_annotations or bool(source.match("annotations"))


def _missing(source: Source, layout: Layout) -> Missing:
    """What becomes of a slide without annotations; of a source that has none at all, no slide is left out."""
    if layout.missing == "skip" and not source.match("annotations") and _needs_annotations(source):
        source.notes.append("no file of annotations in the source: every slide is taken to show nothing of the rule's")
        return "none"
    return layout.missing


def _check_missing(source: Source, slide: MatchedFile, layout: Layout, lacking: list[str]) -> None:
    if layout.missing == "error":
        raise SourceError(
            f"no file of {lacking[0]!r} for this slide" if lacking else "no annotations for this slide",
            where=slide.name,
            found=named_images.unanswered(source) or None,
            remedy='if it shows nothing of what the rule looks for, say `missing = "none"` in [layout]; '
            "`missing = true` leaves such slides out",
        )


def _used(source: Source, of_slide: dict[str, tuple[str, ...]]) -> set[str]:
    """Every file that the conversion uses."""
    others = {found.name for kind in source.manifest.files if kind != "annotations" for found in source.match(kind)}
    return {*others, *source.slides.parts, *(name for files in of_slide.values() for name in files)}


def _source_image(
    slide: MatchedFile, layout: Layout, row: dict[str, str], files: tuple[str, ...], classes: str, *, of_class: bool
) -> SourceImage:
    return SourceImage(
        slide["name"],
        (slide.name,),
        group=row.get(layout.group) or slide.get("group") or slide["name"],
        label=row.get(slide_table.LABEL) or (of_class and (row.get(layout.label) or slide.get("class"))) or None,
        split=layout.set_of(row.get(layout.split, "") or slide.get("split"), slide.name),
        annotations=files,
        extra={"classes": classes} if classes else {},
    )


def _labelled(source: Source, layout: Layout, image: SourceImage) -> SourceImage:
    """The image with the label that its file of annotations gives to it as a whole, as tags and choices do."""
    if len(image.annotations) != 1 or MASK.search(image.annotations[0]):
        return image
    name, manifest = image.annotations[0], source.manifest
    known = [*layout.labels] or manifest.classes
    found = annotation_files.labels_of_image(
        named_images.content(source, name), name, image.files[0], known, layout.label_field
    )
    if not found:
        return image
    kept = image.annotations if manifest.dense is not None else ()
    if manifest.target == "labels":
        several = [resolved([one], known, name) for one in found]
        label = target.of_labels(layout.labels.get(one, one) for one in several)
        return replace(image, label=label, annotations=kept)
    label = only(found, known, name)
    return replace(image, label=layout.labels.get(label, label), annotations=kept)


def _object_classes(source: Source, image: SourceImage) -> dict[int | str, str]:
    name = image.extra.get("classes", "")
    return cast(dict[int | str, str], masks.class_table(source.read(name), name)) if name else {}


def _glass(image: Image, given: float | None) -> Glass | str:
    """The position of the slide on its glass, or the reason why it is unknown; by the file's own resolution, as the
    program that drew the annotations knows no other.
    """
    try:
        x, y = (float(image.properties[name]) for name in OFFSET)
    except (KeyError, ValueError):
        return f"the slide does not state {OFFSET[0]}"
    spacing = image.spacing if image.stated is None or image.stated.x is None else image.stated
    across, down = spacing.x or given, spacing.y or given
    if across is None or down is None:
        return "the slide states no resolution: give it with --mpp, or as `mpp` in the manifest"
    return Glass((image.width, image.height), (across, down), (x, y))
