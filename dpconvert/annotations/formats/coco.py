"""COCO JSON: pixels from the top left; polygons, run-length masks (column by column), boxes (x, y, width, height), and
single key points.

https://cocodataset.org/#format-data

One file may hold many images: the one wanted is found by the end of its file name. A label is its category's name,
else its supercategory. What was drawn on a smaller copy is scaled by the stated size; a run-length mask of any size
covers the whole image. Some sets (MIDOG++) write boxes as x1, y1, x2, y2: `boxes` says so, and boxes that leave their
images but fit them so are refused. A box that CVAT's `attributes` state a `rotation` of is turned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, TypeAdapter
from shapely import affinity

from dpconvert.annotations import listed
from dpconvert.annotations.formats import coco_runs
from dpconvert.annotations.formats.coco_runs import Rle, Side
from dpconvert.annotations.frame import NEAR, SCALED, factors
from dpconvert.annotations.geometry import Annotation, Annotations, Geometry, polygon
from dpconvert.annotations.label_names import resolved
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, parsed
from dpconvert.errors import ReadError
from dpconvert.plural import counted

Boxes = Literal["", "xywh", "xyxy"]
BoxNumbers = NDArray[np.float64]
Id = Annotated[str, BeforeValidator(lambda value: _id(value))]


def _id(value: object) -> object:
    """An id as text: 1, 1.0 (as pandas writes numbers beside a missing one) and "1" are equal."""
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return value


MOSTLY = 0.9  # of the boxes of a file


class CocoImage(Loose):
    id: Id
    file_name: str = ""
    width: Side | None = None
    height: Side | None = None


class Category(Loose):
    id: Id
    name: str = ""
    supercategory: str | None = None


def _as_polygons(value: Any) -> Any:
    """Wrap a single polygon that is not inside a list of polygons; a list of nothing but empty ones is none."""
    if isinstance(value, list) and all(part == [] for part in value):
        return []
    flat = isinstance(value, list) and len(value) >= 6 and not any(isinstance(part, list) for part in value)
    return [value] if flat else value


Segmentation = Annotated[list[list[Coordinate]] | Rle, BeforeValidator(_as_polygons)]


class CocoAnnotation(Loose):
    id: Id = ""
    image_id: Id
    category_id: Id | None = None
    segmentation: Segmentation | None = None
    bbox: Annotated[list[Coordinate], Field(max_length=4)] | None = None
    keypoints: list[Coordinate] | None = None
    iscrowd: Any = None
    attributes: Any = None

    @property
    def boxed(self) -> bool:
        """Whether the annotation has a box but no other outline."""
        return not self.segmentation and self.bbox is not None and len(self.bbox) == 4 and min(self.bbox[2:]) > 0

    @property
    def rotation(self) -> float:
        """Degrees by which the box is turned about its centre, from x towards y, as CVAT writes rectangles."""
        stated = self.attributes.get("rotation") if isinstance(self.attributes, dict) else None
        return float(stated) if isinstance(stated, int | float) and math.isfinite(stated) else 0.0

    @property
    def labelled_points(self) -> list[tuple[float, float]]:
        """Key points (x, y) whose visibility is not 0, which stands for one that is not labelled."""
        return [(x, y) for x, y, seen in zip(*((self.keypoints or [])[at::3] for at in range(3)), strict=False) if seen]


class CocoFile(Loose):
    images: list[CocoImage]
    categories: list[Category] = []
    annotations: list[CocoAnnotation]

    @cached_property
    def told_boxes(self) -> BoxNumbers:
        """Boxes (N, 6) of what has no other outline, with the width and height of their images, where stated."""
        frames = {entry.id: (entry.width, entry.height) for entry in self.images if entry.width and entry.height}
        found = [[*(i.bbox or ()), *frames[i.image_id]] for i in self.annotations if i.boxed and i.image_id in frames]
        return np.array(found, dtype=np.float64).reshape(-1, 6)

    @cached_property
    def named(self) -> list[listed.NamedImage]:
        """The images, with the numbers of their annotations."""
        often = Counter(item.image_id for item in self.annotations)
        return [listed.NamedImage((image.file_name,), often[image.id]) for image in self.images]

    @cached_property
    def names(self) -> listed.Names:
        """The names of the images."""
        return listed.Names(image.file_name for image in self.images)

    def boxes_of(self, image: Id, frame: tuple[float, float]) -> BoxNumbers:
        """Return these boxes for one image of the given width and height."""
        found = [[*(i.bbox or ()), *frame] for i in self.annotations if i.boxed and i.image_id == image]
        return np.array(found, dtype=np.float64).reshape(-1, 6)


FILE = TypeAdapter(CocoFile)


def parse(data: bytes, name: str) -> CocoFile:
    """The file, checked; reading it once serves all its images.

    Raises:
        ReadError: not such a file, one id for two images or categories, or no annotation of an image that it lists.
    """
    file = parsed(data, name, FILE)
    _check_ids("images", {(image.id, image.file_name) for image in file.images}, name)
    _check_ids("categories", {(category.id, category.name) for category in file.categories}, name)
    known = {image.id for image in file.images}
    if file.annotations and not any(item.image_id in known for item in file.annotations):
        raise ReadError(
            "no annotation is of an image that the file lists",
            where=name,
            expected=f"an image_id such as {file.images[0].id}" if file.images else "the list `images`",
            found=file.annotations[0].image_id[:40],
            remedy="give image_id the id of the annotation's image",
        )
    return file


def _check_ids(what: str, pairs: set[tuple[str, str]], name: str) -> None:
    shared = [one for one, times in Counter(one for one, _ in pairs).items() if times > 1]
    if shared:
        names = sorted(called for one, called in pairs if one == shared[0])
        raise ReadError(f"{len(names)} {what} of one id, {shared[0][:40]}", where=name, found=", ".join(names)[:120])


def shapes(
    file: CocoFile,
    name: str,
    source_image: str,
    size: tuple[int, int],
    known: Collection[str] = (),
    boxes: Boxes = "",
) -> Annotations:
    """The annotations of one image: its file name, and its size (width, height) in level-0 pixels.

    boxes: whether a box is x, y, width, height ("xywh", as COCO says) or x1, y1, x2, y2 ("xyxy"); "" for the former,
        and to refuse what looks like the latter.

    Raises:
        ReadError: the file does not list the image, states another shape of it, has a category that is not known, or
            boxes by the other convention.
    """
    entry = _entry(file, name, source_image)
    stated = float(entry.width or size[0]), float(entry.height or size[1])
    scale = factors(stated, size, name, entry.file_name)
    _check_boxes(file.told_boxes if entry.width and entry.height else file.boxes_of(entry.id, stated), boxes, name)
    categories = {category.id: (category.name, category.supercategory or "") for category in file.categories}
    remarks: Counter[str] = Counter()
    items = []
    if entry.id == file.images[0].id:  # said once for all images of the file
        ids = {image.id for image in file.images}
        remarks["of an image that the file does not list"] += sum(i.image_id not in ids for i in file.annotations)
    for item in (item for item in file.annotations if item.image_id == entry.id):
        shape = _shape(item, boxes, remarks, name)
        if shape is None:
            continue
        label = resolved(_names(item, categories, name), known, name)
        own = scale if not isinstance(item.segmentation, Rle) else _of_mask(item.segmentation, size, name)
        scaled = shape if own == (1, 1) else shapely.transform(shape, lambda xy, by=own: xy * by)
        remarks[SCALED] += own != (1, 1)
        remarks["crowd of objects (iscrowd = 1), read as one object"] += item.iscrowd in (1, "1")
        items.append(Annotation(scaled, label, str(item.id)))
    return Annotations(items, remarks)


def _of_mask(rle: Rle, size: tuple[int, int], name: str) -> tuple[float, float]:
    """Return the area of a mask, stretched over the whole image."""
    return factors((rle.size[1], rle.size[0]), size, name, "the image, in a run-length mask")


def _check_boxes(numbers: BoxNumbers, boxes: Boxes, name: str) -> None:
    """Refuse boxes that leave their images and would fit them as x1, y1, x2, y2; or that cannot be x1, y1, x2, y2.

    numbers: (N, 6) of a box and the width and height of its image.
    """
    if boxes == "xywh" or not len(numbers):
        return
    x, y, third, fourth, width, height = numbers.T
    corners = (third > x) & (fourth > y)
    fit = corners & (third <= width + NEAR) & (fourth <= height + NEAR)
    leave = (x + third > width + NEAR) | (y + fourth > height + NEAR)
    if not boxes and leave.any() and fit.mean() >= MOSTLY:
        raise ReadError(
            f"{counted(int(leave.sum()), 'box')} beyond the image as x, y, width, height, but inside as x1, y1, x2, y2",
            where=name,
            expected="x, y, width, height, as COCO says",
            found=_box_shown(numbers[leave][0]),
            remedy='say `boxes = "xyxy"` in the manifest\'s [layout], or "xywh" if they are right',
        )
    if boxes == "xyxy" and not corners.all():
        raise ReadError(
            "boxes that cannot be x1, y1, x2, y2",
            where=name,
            found=_box_shown(numbers[~corners][0]),
            remedy='leave `boxes = "xyxy"` out of the manifest\'s [layout]',
        )


def _box_shown(row: NDArray[np.float64]) -> str:
    return f"[{', '.join(f'{number:g}' for number in row[:4])}] in an image of {row[4]:g} x {row[5]:g}"


def _names(item: CocoAnnotation, categories: dict[Id, tuple[str, str]], name: str) -> tuple[str, ...]:
    if item.category_id is None:
        return ()
    if item.category_id not in categories:
        raise ReadError(f"annotation {item.id} has an unknown category", where=name, found=repr(item.category_id)[:40])
    return categories[item.category_id]


def named(file: CocoFile, image: str) -> list[CocoImage]:
    """The file's entries for an image: of its whole name, else of its last part, else of that without extension."""
    return [file.images[place] for place in file.names.places(image)]


def _entry(file: CocoFile, name: str, image: str) -> CocoImage:
    found = named(file, image)
    if len(found) == 1:
        return found[0]
    if found:
        raise ReadError(f"{len(found)} images named {image!r}", where=name)
    have = listed.some([image.file_name for image in file.images])
    raise ReadError(f"does not list the image {image!r}", where=name, found=have)


def _shape(item: CocoAnnotation, boxes: Boxes, remarks: Counter[str], name: str) -> Geometry | None:
    if isinstance(item.segmentation, Rle):
        return coco_runs.decoded(item.segmentation, remarks, name)
    if item.segmentation:
        if odd := [flat for flat in item.segmentation if len(flat) % 2]:
            what = f"annotation {item.id}: a polygon of {len(odd[0])} numbers"
            raise ReadError(what, where=name, expected="pairs of x and y")
        rings = [polygon(list(zip(flat[::2], flat[1::2], strict=True)), remarks) for flat in item.segmentation]
        found = [ring for ring in rings if ring is not None]
        return shapely.union_all(found) if found else None
    if item.boxed and item.bbox is not None:
        x, y, third, fourth = item.bbox
        box = shapely.box(x, y, *((third, fourth) if boxes == "xyxy" else (x + third, y + fourth)))
        return affinity.rotate(box, item.rotation, origin="centroid") if item.rotation else box
    if len(points := item.labelled_points) == 1:
        return shapely.Point(points[0])
    remarks["annotation of several key points" if points else "annotation without an outline"] += 1
    return None
