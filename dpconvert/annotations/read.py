"""Reads an annotation file of any known format, recognized by its content, as geometries or as a mask."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from dpconvert import names
from dpconvert.annotations import listed, masks
from dpconvert.annotations.formats import (
    asap,
    coco,
    cvat,
    darwin,
    dsa,
    hubmap,
    imagescope,
    label_studio,
    labelme,
    labelme_xml,
    ndpa,
    nucls,
    qupath,
    sliderunner,
    via,
    via3,
    voc,
    yolo,
)
from dpconvert.annotations.formats.ndpa import Glass
from dpconvert.annotations.frame import once
from dpconvert.annotations.geometry import Annotation, Annotations
from dpconvert.annotations.label_names import field_of, of_field
from dpconvert.annotations.masks import LabelMask
from dpconvert.annotations.parsing.units import MICROMETRES, Unit, not_in_pixels
from dpconvert.annotations.parsing.utf8 import in_utf8
from dpconvert.annotations.parsing.workbook import is_workbook
from dpconvert.annotations.programs import Format, detect
from dpconvert.errors import ReadError

ANOTHER = "file that names a different image than its own file name does"
UNPACKED = 1 << 28
TEXT = re.compile(r"(?i)\.txt(\.gz)?$")  # of the formats here, YOLO's alone
MANY = 4  # files for many images that are kept: one, or one per label
coco_file = lru_cache(maxsize=MANY)(coco.parse)
OF_ONE: dict[Format, Callable[[bytes, str], list[listed.ListedImage]]] = {
    "labelme": labelme.parse,
    "labelme_xml": labelme_xml.parse,
    "darwin": darwin.parse,
    "dsa": dsa.parse,
    "nucls": nucls.parse,
    "hubmap_outlines": hubmap.parse_outlines,
}
OF_SEVERAL: dict[Format, Callable[[bytes, str], list[listed.ListedImage]]] = {
    "cvat": cvat.parse,
    "via": via.parse,
    "via3": via3.parse,
    "label_studio": label_studio.parse,
    "hubmap": hubmap.parse,
    "sliderunner": sliderunner.parse,
}
DAMAGED = (OSError, zipfile.BadZipFile, RuntimeError, ValueError, KeyError, EOFError, zlib.error)


@dataclass(frozen=True)
class Subject:
    """The image that annotations belong to, as far as formats need to know it.

    file: its name, by which COCO knows it. origin: the corner that QuPath counts from, in level-0 pixels.
    glass: what NDPA needs, or why it is not known. values, threshold, instances, white_is_zero: how a mask is to be
    read. boxes: what COCO's boxes hold. label_field: the field that holds labels, if several do. unit, per_unit: the
    unit of GeoJSON's coordinates, and level-0 pixels of it along x and y.
    """

    file: str
    size: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    glass: Glass | str = "not a slide of Hamamatsu's"
    values: Mapping[int | str, str] = field(default_factory=dict)
    threshold: int | None = None
    instances: bool = False
    white_is_zero: masks.WhiteIsZero = ""
    boxes: coco.Boxes = ""
    label_field: str = ""
    unit: Unit = ""
    per_unit: tuple[float, float] = (1, 1)


def read(data: bytes, name: str, subject: Subject, known: Collection[str] = ()) -> Annotations | LabelMask:
    """The annotations of one image in a file of any format, packed by gzip or zip or not.

    Raises:
        ReadError: of no known format, damaged, in another unit, or with a label that `known` does not have.
    """
    data = unpacked(data, name)
    if not data.strip() and TEXT.search(name):
        return yolo.read(data, name, subject.size)
    kind = detect(data, name)
    if subject.unit in MICROMETRES and kind not in {"qupath", "mask"}:
        raise not_in_pixels(subject.unit, name)
    match kind:
        case "asap":
            found = asap.read(data, name, known)
        case "imagescope":
            found = imagescope.read(data, name, known)
        case "qupath":
            found = qupath.read(data, name, known, subject.origin, subject.unit, subject.per_unit)
        case "coco":
            found = coco.shapes(coco_file(data, name), name, subject.file, subject.size, known, subject.boxes)
        case "ndpa":
            found = ndpa.read(data, name, _glass(subject, name), known)
        case "voc":
            found = voc.read(data, name, subject.size, known)
            _count_another(voc.image_of(data, name), subject, found)
        case "yolo":
            found = yolo.read(data, name, subject.size, known)
        case "mask":
            return masks.read(
                data,
                name,
                subject.values,
                subject.size,
                threshold=subject.threshold,
                instances=subject.instances,
                white_is_zero=subject.white_is_zero,
            )
        case _:
            images = listed_file(kind, data, name)
            image = images[0] if kind in OF_ONE else _index(kind, data, name).find(name, subject.file)
            field = _field_of_shapes(kind, data, name, tuple(known), subject.label_field)
            found = listed.placed(image, name, subject.size, known, field)
            if kind in OF_ONE:
                _count_another(image.name, subject, found)
    found = once(found)  # before ids that occur twice become two
    return Annotations(_told_apart(found.items), +found.remarks)


def _count_another(stated: str, subject: Subject, found: Annotations) -> None:
    """Count a file about one image that states the name of another."""
    found.remarks[ANOTHER] += bool(stated) and not listed.matching([stated], subject.file)


@lru_cache(maxsize=MANY)
def listed_file(kind: Format, data: bytes, name: str) -> list[listed.ListedImage]:
    """Return the images that a file of a multi-image format lists.

    Raises:
        ReadError: The file is damaged.
    """
    return (OF_ONE | OF_SEVERAL)[kind](data, name)


@lru_cache(maxsize=MANY)
def _index(kind: Format, data: bytes, name: str) -> listed.Index:
    return listed.Index(listed_file(kind, data, name))


def images_named(data: bytes, name: str) -> list[listed.NamedImage] | None:
    """Return the images that the content annotates by their names, or None if its format names none.

    Raises:
        ReadError: The format is unknown, or the file is damaged.
    """
    match kind := detect(data, name):
        case "coco":
            return coco_file(data, name).named
        case _ if kind in OF_SEVERAL:
            images = listed_file(kind, data, name)
            return [
                listed.NamedImage((one.name, *one.aliases), len(one.drawn) + sum(map(bool, one.labels)))
                for one in images
            ]
    return None


def image_stated(data: bytes, name: str) -> str:
    """Return the name of the image that the content of a file about one image states; '' if it states none.

    Raises:
        ReadError: The format is unknown, or the file is damaged.
    """
    kind = detect(data, name)
    if kind == "voc":
        return voc.image_of(data, name)
    return listed_file(kind, data, name)[0].name if kind in OF_ONE else ""


def unanswered(data: bytes, name: str) -> dict[str, list[tuple[str, ...]]]:
    """Return why the content holds no annotations of images that it lists -> all names of each of them.

    Raises:
        ReadError: The format is unknown, or the file is damaged.
    """
    return label_studio.unanswered(data, name) if detect(data, name) == "label_studio" else {}


@lru_cache(maxsize=MANY)
def _field_of_shapes(kind: Format, data: bytes, name: str, known: tuple[str, ...], chosen: str) -> str:
    drawn = (one.labels for image in listed_file(kind, data, name) for one in image.drawn if not one.ranked)
    return field_of(drawn, known, name, chosen)


@lru_cache(maxsize=1)
def _field_of_images(kind: Format, data: bytes, name: str, known: tuple[str, ...], chosen: str) -> str:
    return field_of((image.labels for image in listed_file(kind, data, name)), known, name, chosen)


def labels_of_image(
    data: bytes, name: str, image: str, known: Collection[str] = (), label_field: str = ""
) -> tuple[str, ...]:
    """Return the labels that the content gives to an image as a whole; none if its format has no such labels.

    label_field: the field that holds the labels; '' to take the one that holds some of `known`.

    Raises:
        ReadError: The format is unknown, the file is damaged, it does not list the image, or several of its fields
            hold known labels.
    """
    kind = detect(data, name)
    if kind not in OF_ONE and kind not in OF_SEVERAL:
        return ()
    images = listed_file(kind, data, name)
    found = (images[0] if kind in OF_ONE else _index(kind, data, name).find(name, image)).labels
    return of_field(found, _field_of_images(kind, data, name, tuple(known), label_field))


def unpacked(data: bytes, name: str) -> bytes:
    """The content of a gzip file, or of a zip archive of one file; anything else, workbooks too, as it is. JSON and XML
    are in UTF-8.

    Raises:
        ReadError: damaged, of several files, or of more than 256 MiB.
    """
    try:
        if data.startswith(b"\x1f\x8b"):
            stream = zlib.decompressobj(wbits=31)
            data = stream.decompress(data, UNPACKED)
            if not stream.eof:
                raise ReadError("a gzip file that is cut, or of more than 256 MiB", where=name)
        elif data.startswith(b"PK\x03\x04") and not is_workbook(data):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [
                    m
                    for m in archive.infolist()
                    if not m.filename.endswith("/") and not m.filename.startswith("__MACOSX/")
                ]
                if len(members) != 1 or members[0].file_size > UNPACKED:
                    raise ReadError("not an archive of one file of at most 256 MiB", where=name, found=len(members))
                data = archive.read(members[0])
    except DAMAGED as error:
        raise ReadError(f"cannot be unpacked: {error}", where=name) from None
    return in_utf8(data)


def _glass(subject: Subject, name: str) -> Glass:
    if isinstance(subject.glass, str):
        raise ReadError(f"its nanometres cannot be placed on the slide: {subject.glass}", where=name)
    return subject.glass


def _told_apart(items: list[Annotation]) -> list[Annotation]:
    """Return the annotations with unique ids, as sample keys are built from the ids, and labels in one Unicode form."""
    items = [
        item if (label := names.bare(names.nfc(item.label))) == item.label else replace(item, label=label)
        for item in items
    ]
    often = Counter(item.id for item in items)
    return [replace(item, id=f"{item.id}-{i}") if often[item.id] > 1 else item for i, item in enumerate(items)]
