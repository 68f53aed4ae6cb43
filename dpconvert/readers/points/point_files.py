"""A file of points, of any format, to annotations or rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import shapely

from dpconvert import names
from dpconvert.annotations import Annotation, Annotations, LabelMask, point_arrays, points, programs
from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.formats import coco
from dpconvert.annotations.parsing import matlab73
from dpconvert.annotations.parsing.units import pixels_per_unit
from dpconvert.annotations.points import PointRow
from dpconvert.errors import ReadError
from dpconvert.image import Image
from dpconvert.readers.points.layout import Layout
from dpconvert.source.record import SourceImage

MATLAB = b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file", matlab73.START


def read_file(
    data: bytes, name: str, layout: Layout, source_image: SourceImage, image: Image, mpp: float | None = None
) -> Annotations:
    """Return the annotations of one image in the content of a file; points and shapes in level-0 pixels.

    mpp: micrometres per pixel if the image states none.

    Raises:
        ReadError: the file cannot be read, is a mask, or is of a program that is not supported.
    """
    data = annotation_files.unpacked(data, name)
    if _of_a_program(data, name):
        known = list(layout.labels)
        size, origin = (image.width, image.height), image.bounds[:2] if layout.bounds is not False else (0, 0)
        if layout.boxes == "cxcywh" and is_json(data):
            raise ReadError(
                "a file of an annotation program, whose boxes are not stated by their centres",
                where=name,
                remedy='leave `boxes = "cxcywh"` out of [layout]',
            )
        boxes: coco.Boxes = "xywh" if layout.boxes == "xywh" else "xyxy" if layout.boxes == "xyxy" else ""
        subject = annotation_files.Subject(
            source_image.files[0],
            size,
            origin,
            boxes=boxes,
            label_field=layout.label_field,
            unit=layout.unit,
            per_unit=pixels_per_unit(layout.unit, (image.spacing.x, image.spacing.y), mpp, name),
        )
        found = annotation_files.read(data, name, subject, known)
        if isinstance(found, LabelMask):
            raise ReadError("an image, and no file of points", where=name)
        return found if not layout.label else replace(found, items=[_named(item, layout) for item in found.items])
    found = Annotations([row.annotation() for row in rows_of(data, name, layout)])
    return in_pixels(found, layout, image, mpp, name)


def rows_of(data: bytes, name: str, layout: Layout) -> list[PointRow]:
    """Return the points of a table, a JSON list or a MATLAB array.

    Raises:
        ReadError: the content does not hold points where the layout says.
    """
    form = layout.form()
    if data.startswith(MATLAB) or name.lower().endswith(".mat"):
        return point_arrays.read_mat_rows(data, name, form, layout.variable, layout.label_variable)
    if is_json(data):
        return point_arrays.read_json(data, name, form, layout.variable)
    return points.read_rows(data, name, form)


def is_json(data: bytes) -> bool:
    """Whether the content begins as JSON does."""
    return data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))


def _of_a_program(data: bytes, name: str) -> bool:
    """Whether a known annotation program wrote the file, not a user's own script.

    Raises:
        ReadError: The program is known, but its files are not supported.
    """
    if data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return True
    return is_json(data) and programs.is_named(data, name)


def _named(item: Annotation, layout: Layout) -> Annotation:
    return item if item.label else replace(item, label=layout.label)


def in_pixels(found: Annotations, layout: Layout, image: Image, mpp: float | None, name: str) -> Annotations:
    """Return points of a table, a list or an array in level-0 pixels of their image, by the unit and the corner that
    the layout states.

    mpp: micrometres per pixel if the image states none.

    Raises:
        ReadError: the unit is one of length, and the resolution of the image is not known; or the image has bounds, and
            the layout does not state whether coordinates start there.
    """
    origin = np.array(image.bounds[:2] if layout.bounds is not False else (0, 0))
    if origin.any() and layout.bounds is None and found.items:
        raise ReadError(
            f"on a slide whose pixels start at {tuple(origin.tolist())}: do its coordinates start there, too?",
            where=name,
            remedy="say `bounds = true` in the manifest's [layout] if they do, as QuPath's, else `bounds = false`",
        )
    factors = np.array(pixels_per_unit(layout.unit, (image.spacing.x, image.spacing.y), mpp, name))
    if (factors == 1).all() and not origin.any():
        return found
    placed = (shapely.transform(item.geometry, lambda xy: xy * factors + origin) for item in found.items)
    items = [replace(item, geometry=shape) for item, shape in zip(found.items, placed, strict=True)]
    return replace(found, items=items)


def labelled(found: Annotations, layout: Layout, name: str) -> Annotations:
    """The annotations by the names that `labels` gives to their labels."""
    if not layout.labels:
        return found
    spelt = {label: names.match(label, layout.labels) for label in {item.label for item in found.items}}
    unknown = [label for label, known in spelt.items() if known is None]
    if unknown:
        raise ReadError(f"label {min(unknown)!r} is not in `layout.labels`", where=name)
    of_label = {label: layout.labels[known] for label, known in spelt.items() if known is not None}
    return replace(found, items=[replace(item, label=of_label[item.label]) for item in found.items])
