"""Shape "points": images with points on them, in a file for each image or in one table for all.

A file of points is delimited text, a sheet of Excel, JSON, a MATLAB array, or the output of an annotation program
(GeoJSON of QuPath, COCO, Pascal VOC, ASAP, ImageScope, LabelMe, CVAT, VIA, Label Studio, Darwin). [files.images] and
[files.points] are paired by their named group `name`. A file whose pattern has no `name` serves all images, and so does
a table with a column of images, which `image` in `names` or `columns` says; images are named by the end of their file
names, with or without the extension. [files.images] may also name `group` and `split`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from dpconvert.annotations import Annotations
from dpconvert.errors import SourceError
from dpconvert.image import Image
from dpconvert.manifest.files import FileKind
from dpconvert.plural import counted
from dpconvert.readers import named_images
from dpconvert.readers.layout_keys import Idle, layout_of
from dpconvert.readers.pairing import IMAGE, no_partner, paired, stem
from dpconvert.readers.points.layout import Layout, source_image_of
from dpconvert.readers.points.point_files import in_pixels, labelled, read_file
from dpconvert.readers.points.tables import images_of_tables, refuse_names_of_images, stored_points
from dpconvert.readers.slide_annotations import note_of_all, refuse_names_in_geojson
from dpconvert.readers.stated_images import refuse_another
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

__all__ = ["FILES", "GROUPS", "Layout", "idle", "images", "read_annotations"]

FILES = {
    "images": FileKind(pattern=rf"(?i)(?P<name>[^/]+)\.{IMAGE}$", what="images", example="images/0001.png"),
    "points": FileKind(
        pattern=r"(?i)(?P<name>[^/]+)\.(csv|tsv|txt|(geo)?json|mat|xml)$",
        what="files of points",
        example="points/0001.csv",
    ),
}
MORE_FILES = ("sets",)
GROUPS = {"images": {"name", "group", "split"}, "points": {"name"}, "sets": {"split"}}
OF_TEXT = "delimiter", "encoding", "skip", "decimal", "check_head"


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    if empty := [found.name for found in source.match("points") if source.sizes[found.name] == 0]:
        source.notes.append(f"{counted(len(empty), 'empty file')} (0 bytes), read as no points, the first: {empty[0]}")
    if layout.form().of_all_images:
        yield from images_of_tables(source, layout)
    else:
        naming = _naming(source)
        if all("name" not in found.parts for found in source.need("points")):
            yield from _of_files(source, layout, naming)
        else:
            yield from _paired(source, layout, naming)
    source.notes += layout.unmet()


def _naming(source: Source) -> named_images.Mentions:
    """Which files of points name which images here."""
    found = {found.name: named_images.images_of(source, found.name) for found in source.need("points")}
    listings = {name: named for name, named in found.items() if named is not None}
    naming = named_images.Mentions(listings, (image.name for image in source.need("images")))
    naming.check(source)
    return naming


def _of_files(source: Source, layout: Layout, naming: named_images.Mentions) -> Iterator[SourceImage]:
    """Each image with the files that name it; those that name none are about all images."""
    shared = tuple(found.name for found in source.match("points") if found.name not in naming.files)
    alone = list[str]()
    called = {name: image.name for image in source.match("images") for name in (image.name, stem(image.name))}
    for name in shared:
        refuse_names_in_geojson(source, name, called)
        refuse_names_of_images(source, name, layout)
    note_of_all(source, shared, len(source.need("images")))
    shown = set(named_images.without_unanswered(source, called.values()))
    for image in source.need("images"):
        files = (*shared, *naming.of(image.name))
        if not files and layout.missing == "error":
            raise no_partner(source, "points in the files", image, found=named_images.unanswered(source))
        if not files and (layout.missing == "skip" or image.name not in shown):
            alone.append(image.name)
        else:
            yield source_image_of(image, files, layout)
    if alone:
        source.notes.append(f"left out: {counted(len(alone), 'image')} without points, the first {alone[0]}")


def _paired(source: Source, layout: Layout, naming: named_images.Mentions) -> Iterator[SourceImage]:
    """Each image with the file of its name, else with the one that names it."""
    pairs = [
        (image, naming.of(image.name) if own is None else (own.name, *naming.of(image.name)))
        for image, own in paired(source, "images", "points", missing="none")
    ]
    of_files = {files[0]: image.name for image, files in pairs if files}
    refuse_another(source, of_files, [image.name for image, _ in pairs], layout.stated_image)
    alone = [image for image, files in pairs if not files]
    if len(alone) == len(pairs):
        raise SourceError(
            "no file of points belongs to an image",
            where=source.match("points")[0].name,
            remedy="if it is one table for all images, name its columns in [layout], as in "
            'columns = ["image", "x", "y", "label"]',
        )
    if alone and layout.missing == "error":
        what = source.manifest.files["points"].what
        raise no_partner(source, what, alone[0], found=named_images.unanswered(source))
    shown = set(named_images.without_unanswered(source, [image.name for image in alone]))
    unclear = {image.name for image in alone if layout.missing == "skip" or image.name not in shown}
    for image, files in pairs:
        if len(set(files)) > 1:
            raise SourceError("two files of points for one image", where=image.name, found=" and ".join(files[:2]))
        if files or image.name not in unclear:
            yield source_image_of(image, files[:1], layout)
    if unclear:
        source.notes.append(
            f"left out: {counted(len(unclear), 'image')} without files of points, the first {min(unclear)}"
        )


def idle(source: Source) -> Iterator[Idle]:
    endings = {PurePosixPath(found.name.removesuffix(".gz")).suffix.lower() for found in source.match("points")}
    if endings <= {".json", ".geojson", ".mat", ".xml"}:
        yield OF_TEXT, "no file of points is a table"
    if ".xlsx" not in endings:
        yield ("sheet",), "no file of points is a workbook"
    if not endings & {".mat", ".json"}:
        yield ("variable",), "no file of points is of MATLAB or JSON"
    if not endings & {".json", ".csv"}:
        yield ("label_field",), "no file of points is of VIA"
    if not endings & {".json", ".xml"}:
        yield ("stated_image",), "no file of points is JSON or XML"
    if endings <= {".geojson", ".xml"}:
        yield ("boxes",), "no file of points is a table, JSON or of MATLAB"
    if endings <= {".xml"}:
        yield ("unit",), "no file of points is a table, JSON or of MATLAB"
    if ".mat" not in endings:
        yield ("label_variable",), "no file of points is of MATLAB"


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    layout = layout_of(source.manifest, Layout)
    mpp = source.manifest.mpp
    if "points" in source_image.extra:
        name = source_image.annotations[0]
        found = Annotations(stored_points(source_image.extra["points"]))
        return labelled(in_pixels(found, layout, image, mpp, name), layout, name)
    found = Annotations([])
    for name in source_image.annotations:
        of_file = read_file(source.read(name), name, layout, source_image, image, mpp)
        found = Annotations(found.items + of_file.items, found.remarks + of_file.remarks)
    return labelled(found, layout, source_image.annotations[0]) if source_image.annotations else found
