"""Labelling rules: make records from an image, its annotations and the manifest's rule.

The rules follow supplement A of the paper: origin (0, 0), step = size - overlap, no partial patch at the border; a
point on the edge of a patch lies in no patch. If a rule requests a resolution, or the pixels of the file are not
square, the patches are laid out on level 0 first and stored as squares of the slide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from dpconvert.annotations import Annotation, Annotations, LabelMask, Regions
from dpconvert.errors import ReadError, cut
from dpconvert.image import Image, scales
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Area, Centre, Crop, Middle, Objects, Presence, Regional, Tiles, Whole
from dpconvert.plan.grid import Boxes, Points, each_box, holds, patch_sides, resampled, shifted
from dpconvert.plan.placement import capped, placed, scale_of, stored_size, whole_grid
from dpconvert.plan.scene import Scene
from dpconvert.plural import counted
from dpconvert.source.record import Box, Record, SourceImage

DECIMALS = 9  # of shares; beyond is what rounding leaves


def records(manifest: Manifest, scene: Scene) -> Iterator[Record]:
    """Return the samples of one image by the manifest's rule, in a fixed order."""
    rule = manifest.rule
    if isinstance(rule, Whole):
        yield whole(scene.source_image, scene.image, _label(scene.source_image))
    elif isinstance(rule, Tiles):
        label, (boxes, stored) = _label(scene.source_image), placed(rule, manifest, scene)
        yield from (Record(scene.source_image, label, box, stored) for box in each_box(boxes))
    elif isinstance(rule, Presence):
        yield from _presence(rule, manifest, scene)
    elif isinstance(rule, Objects):
        yield from _objects(rule, manifest, scene)
    elif isinstance(rule, Area | Centre):
        yield from _regional(rule, manifest, scene)
    elif isinstance(rule, Middle):
        yield from _middles(rule, manifest, scene)
    elif isinstance(rule, Crop):
        yield from _crops(rule, manifest, scene)


def whole(source_image: SourceImage, image: Image, label: str) -> Record:
    """Return an image as one sample, resampled along one axis if its pixels are not square."""
    fine = scales(image, None, None, source_image.files[0])
    return Record(
        source_image, label, stored=None if fine[0] == fine[1] else resampled((image.width, image.height), fine)
    )


def _presence(rule: Presence, manifest: Manifest, scene: Scene) -> Iterator[Record]:
    boxes, stored = placed(rule, manifest, scene)
    _count_others(scene, rule.positive)
    positive = holds(boxes, _points(scene, rule.positive))
    for box, inside in zip(each_box(boxes), positive, strict=True):
        yield Record(scene.source_image, manifest.classes[int(inside)], box, stored)


def _objects(rule: Objects, manifest: Manifest, scene: Scene) -> Iterator[Record]:
    image, source_image, scale = scene.image, scene.source_image, scale_of(rule, manifest, scene)
    stored = stored_size(rule, scale)
    boxes, sides = whole_grid(rule, scale, image), patch_sides(rule.size, scale)
    _count_others(scene, [rule.positive, rule.other or rule.none])
    found = _points(scene, [rule.positive])
    dropped = holds(boxes, found)
    others = holds(boxes, _points(scene, [rule.other])) if rule.other else np.zeros(len(boxes), dtype=bool)
    for box, drop, other in zip(each_box(boxes), dropped, others, strict=True):
        if not drop:
            yield Record(source_image, rule.other if other and rule.other else rule.none, box, stored)
    left, top, width, height = image.bounds
    if len(found) and (width < sides[0] or height < sides[1]):
        raise ReadError(
            f"smaller than a patch of {max(sides)} px", where=source_image.name, found=f"{width} x {height}"
        )
    for number, (x, y) in enumerate(found):
        for k in range(rule.crops):
            box = shifted((x - left, y - top), sides, width, height, source_image.name, number, k)
            box = box._replace(x=box.x + left, y=box.y + top)
            yield Record(source_image, rule.positive, box, stored, suffix=f"{box.x}_{box.y}_{number}_{k}")


def labels(rule: Regional, manifest: Manifest, scene: Scene) -> set[str]:
    """Return the labels of the regions of an image, after every check of the rule that needs no pixels.

    Raises:
        ReadError: a label is unknown, or the resolution is not known or is too coarse.
    """
    scale_of(rule, manifest, scene)
    if isinstance(scene.annotations, LabelMask):
        return set(scene.annotations.labels.values())
    _regions(scene.annotations, rule)
    return {item.label for item in scene.annotations.items}


def _regional(rule: Area | Centre, manifest: Manifest, scene: Scene) -> Iterator[Record]:
    image = scene.source_image
    boxes, stored = placed(rule, manifest, scene)
    if rule.tissue is not None and len(boxes):
        held = scene.tissue.share(boxes) >= rule.tissue
        scene.count(len(boxes), int((~held).sum()))
        boxes = boxes[held]
    positive = _positive(scene.annotations, rule, boxes)
    _count_points(manifest, scene)
    kept = capped(rule.cap, positive, boxes, image.name)
    for box, inside in zip(each_box(boxes[kept]), positive[kept], strict=True):
        yield Record(image, manifest.classes[int(inside)], box, stored)


def _count_points(manifest: Manifest, scene: Scene) -> None:
    """Count annotations that cover no part of a patch, because they have no area, and that no dense target keeps."""
    if not isinstance(scene.annotations, Annotations):
        return
    kept = manifest.dense.points.class_of if manifest.dense and manifest.dense.points else {}
    points = [item for item in scene.annotations.items if item.geometry.area == 0 and item.label not in kept]
    if points:
        scene.remarks["point, which covers no area of a patch"] += len(points)


def _middles(rule: Middle, manifest: Manifest, scene: Scene) -> Iterator[Record]:
    boxes, stored = placed(rule, manifest, scene)
    if not len(boxes):
        return
    _count_points(manifest, scene)
    shares = _shares(scene.annotations, manifest.classes, rule.ignore, _middle_of(boxes, rule))
    best, most = shares.argmax(0), shares.max(0)
    decided = (most > rule.share) & ((shares.sum(0) - most).round(DECIMALS) <= rule.others)
    if tied := int((decided & ((shares == most).sum(0) > 1)).sum()):
        scene.remarks["patch whose middle several classes cover equally, given to the first of `classes`"] += tied
    if not decided.all():
        scene.remarks["patch whose middle is of no single class, left out"] += int((~decided).sum())
    boxes, best = boxes[decided], best[decided]
    kept = capped(rule.cap, best, boxes, scene.source_image.name)
    for box, label in zip(each_box(boxes[kept]), best[kept].tolist(), strict=True):
        yield Record(scene.source_image, manifest.classes[label], box, stored)


def _middle_of(boxes: Boxes, rule: Middle) -> NDArray[np.float64]:
    """Return the central squares of patches (N, 4)."""
    part = (rule.centre or rule.size) / rule.size
    corners = boxes[:, :2] + boxes[:, 2:] * (1 - part) / 2
    return np.concatenate([corners, boxes[:, 2:] * part], axis=1)


def _shares(
    annotations: Annotations | LabelMask, classes: list[str], ignore: list[str], boxes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of each box that each class covers: (classes, N)."""
    if isinstance(annotations, LabelMask):
        labels = set(annotations.labels.values())
    else:
        labels = {item.label for item in annotations.items}
    unknown = labels - {*classes, *ignore, ""}
    if unknown:
        raise ReadError(
            f"unknown annotation label {min(unknown)!r}",
            expected=", ".join([*classes, *ignore]),
            remedy="name it in the manifest's `classes`, or as `ignore` in its rule",
        )
    if isinstance(annotations, LabelMask):
        shares = [annotations.share(boxes, [label]) for label in classes]
    else:
        of_class = [[item.geometry for item in annotations.items if item.label == label] for label in classes]
        shares = [Regions(geometries, []).share(boxes) for geometries in of_class]
    return np.stack(shares).round(DECIMALS)


def _crops(rule: Crop, manifest: Manifest, scene: Scene) -> Iterator[Record]:
    if scene.source_image.label is not None:  # cut out already
        yield whole(scene.source_image, scene.image, scene.source_image.label)
        return
    classes, scale = manifest.classes, scale_of(rule, manifest, scene)
    for item in _objects_of(scene, classes):
        if classes and item.label not in classes:
            scene.remarks[f"labelled {cut(item.label, 40)!r}, which is not a class"] += 1
            continue
        box = _around(item, patch_sides(rule.size, scale), scene) if rule.size else _bounding(item, scene)
        if box.width > 0 and box.height > 0:
            stored = (rule.size, rule.size) if rule.size else resampled((box.width, box.height), scale)
            scaled = rule.mpp is not None or scale[0] != scale[1]
            yield Record(scene.source_image, item.label, box, stored if scaled else None, suffix=item.id)


def _bounding(item: Annotation, scene: Scene) -> Box:
    """Return the bounding box of an object, clipped to its image."""
    if item.geometry.area == 0:
        raise ReadError(
            "a point has no outline to crop",
            where=scene.source_image.name,
            remedy="say in the manifest's [rule] how large crops are: `size`, in pixels",
        )
    left, top, right, bottom = item.geometry.bounds
    x, y = max(int(np.floor(left)), 0), max(int(np.floor(top)), 0)
    width = min(int(np.ceil(right)), scene.image.width) - x
    return Box(x, y, width, min(int(np.ceil(bottom)), scene.image.height) - y)


def _around(item: Annotation, sides: tuple[int, int], scene: Scene) -> Box:
    """Return the frame around the centre of an object, moved into its image."""
    middle = item.geometry.centroid
    left, top, width, height = scene.image.bounds
    if width < sides[0] or height < sides[1]:
        raise ReadError(
            f"smaller than a crop of {max(sides)} px", where=scene.source_image.name, found=f"{width} x {height}"
        )
    x = int(np.clip(np.floor(middle.x - sides[0] / 2 + 0.5), left, left + width - sides[0]))
    y = int(np.clip(np.floor(middle.y - sides[1] / 2 + 0.5), top, top + height - sides[1]))
    return Box(x, y, *sides)


def _positive(annotations: Annotations | LabelMask, rule: Area | Centre, boxes: Boxes) -> NDArray[np.bool_]:
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    if isinstance(annotations, LabelMask):
        if isinstance(rule, Area):
            return annotations.share(boxes, rule.positive) > rule.share
        return np.array([label in rule.positive for label in annotations.at(centres)], dtype=bool)
    regions = _regions(annotations, rule)
    return regions.share(boxes) > rule.share if isinstance(rule, Area) else regions.contains(centres)


def _regions(annotations: Annotations, rule: Regional) -> Regions:
    unknown = {item.label for item in annotations.items} - set(rule.known())
    if unknown:
        raise ReadError(
            f"unknown annotation label {min(unknown)!r}",
            expected=", ".join(rule.known()),
            remedy="name it in the manifest's rule as positive, cut or ignore",
        )
    labelled = {
        name: [i.geometry for i in annotations.items if i.label in labels]
        for name, labels in (("positive", rule.positive), ("cut", rule.cut))
    }
    return Regions(labelled["positive"], labelled["cut"])


def _count_others(scene: Scene, named: list[str]) -> None:
    """Count the objects that the rule does not use, by their labels.

    Raises:
        ReadError: there are objects without a label, or with a label that the rule does not name.
    """
    if isinstance(scene.annotations, Annotations):
        bare = sum(not item.label for item in scene.annotations.items)
        if bare and "" not in named:
            raise ReadError(
                f"{counted(bare, 'object')} without a label",
                expected=f"a column or key of labels, such as {', '.join(map(repr, named))}",
                remedy="say in the manifest's [layout] what they are: `label`, or `labels` with the key ''",
            )
        for label, count in Counter(item.label for item in scene.annotations.items if item.label not in named).items():
            scene.remarks[f"labelled {cut(label, 40)!r}, which the rule does not name"] += count


def _points(scene: Scene, labels: list[str]) -> Points:
    centres = [item.geometry.centroid for item in _objects_of(scene, labels) if item.label in labels]
    return np.array([(p.x, p.y) for p in centres], dtype=float).reshape(-1, 2)


def _objects_of(scene: Scene, labels: Collection[str]) -> list[Annotation]:
    found = scene.annotations
    return found.objects(labels).items if isinstance(found, LabelMask) else found.items


def _label(image: SourceImage) -> str:
    if image.label is None:
        raise ReadError("no label is known for this image", where=image.name)
    return image.label
