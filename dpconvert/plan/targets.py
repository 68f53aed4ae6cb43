"""Make the dense targets of samples, in stored pixels, from the annotations of their image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from dpconvert.annotations import Annotation, Annotations, LabelMask, raster
from dpconvert.annotations.geometry import Geometry
from dpconvert.annotations.raster import Frame, Shares, Size
from dpconvert.card import IGNORE
from dpconvert.errors import ReadError, cut
from dpconvert.manifest.dense import BoxTargets, Dense, InstanceTargets, PointTargets, SegTargets, Targets
from dpconvert.plan.instances import Instances

DECIMALS = 2  # of coordinates in stored pixels
Listed = list[list[Any]]


class ImageTargets:
    """The dense targets that `[dense]` keeps from the annotations of one image.

    exhaustive: False for an image known to be annotated incompletely; pixels without annotation are then 255.
    """

    def __init__(self, dense: Dense, annotations: Annotations | LabelMask, *, exhaustive: bool = True) -> None:
        self.dense, self.annotations, self.exhaustive = dense, annotations, exhaustive

    def check(self, remarks: Counter[str], where: str) -> None:
        """Check the labels of the image, and count in `remarks` the objects that no target names.

        Raises:
            ReadError: the masks do not name the label of an area, or a point is found where boxes are kept.
        """
        if self.dense.seg is not None and (unknown := self._labels_of_areas() - self.dense.seg.known):
            raise ReadError(
                f"unknown annotation label {min(unknown)!r}",
                where=where,
                expected=", ".join(sorted(self.dense.seg.known)),
                remedy="name it in [dense.seg] of the manifest: in `labels`, as `ignore` or as `skip`",
            )
        if isinstance(self.annotations, LabelMask):
            return
        named = self.dense.known()
        unnamed = Counter(item.label for item in self.annotations.items if item.label not in named)
        for label, count in unnamed.items():
            remarks[f"labelled {cut(label, 40)!r}, which [dense] does not name"] += count
        if self.dense.boxes is not None and any(item.geometry.area == 0 for item in self._objects(self.dense.boxes)):
            raise ReadError(
                "a point has no bounding box",
                where=where,
                remedy="keep points by [dense.points] of the manifest, and not by [dense.boxes]",
            )
        of = self.dense.instances
        if of is not None and any(item.geometry.area == 0 for item in self._objects(of)):
            raise ReadError(
                "a point has no pixels",
                where=where,
                remedy="keep points by [dense.points] of the manifest, and not by [dense.instances]",
            )

    def present(self) -> set[str]:
        """Return the labels that areas or objects of the image have."""
        found = self.annotations
        if isinstance(found, LabelMask):
            return {found.labels.get(value, "") for value in np.unique(found.values).tolist()}
        return {item.label for item in found.items}

    def mask(self, frame: Frame, size: Size) -> NDArray[np.uint8]:
        """Return the mask (height, width) of a sample: class indexes, and 255 where nothing is annotated."""
        seg = self.dense.seg
        assert seg is not None
        by_label = self._shares_of_mask if isinstance(self.annotations, LabelMask) else self._shares_of_areas
        rest = seg.rest if self.exhaustive else IGNORE
        return raster.majority(_by_value(seg, rest, by_label(seg, frame, size), size))

    def objects(self, frame: Frame, size: Size) -> dict[str, Listed]:
        """Return the `points` and `boxes` that the task keeps, for objects whose centre lies in the frame, and the
        `instances` of objects with pixels in it.
        """
        found: dict[str, Listed] = {}
        if self.dense.points is not None:
            found["points"] = _points(self._points, frame, size)
        if self.dense.boxes is not None:
            found["boxes"] = _boxes(self._boxes, frame, size)
        if self.dense.instances is not None:
            found["instances"] = self._instances.runs(frame, size)
        return found

    def _labels_of_areas(self) -> set[str]:
        if isinstance(self.annotations, LabelMask):
            return {label for label in self.annotations.labels.values() if label}
        return {item.label for item in self.annotations.items if item.geometry.area > 0}

    def _shares_of_mask(self, seg: SegTargets, frame: Frame, size: Size) -> Iterator[tuple[str, Shares]]:
        """Return the labels in the table of a label mask, and their shares. Each cell has one label."""
        assert isinstance(self.annotations, LabelMask)
        mask = self.annotations
        for label in [*seg.class_of, *seg.ignore]:
            if values := [value for value, of in mask.labels.items() if of == label]:
                yield label, raster.of_mask(mask, values, frame, size)

    def _shares_of_areas(self, seg: SegTargets, frame: Frame, size: Size) -> Iterator[tuple[str, Shares]]:
        """Return each label with the shares of its areas that no label above it covers."""
        x, y, width, height = frame
        box = shapely.box(x, y, x + width, y + height)
        areas, labels, tree = self._areas
        near: dict[str, list[Geometry]] = {}
        for index in sorted(tree.query(box, predicate="intersects").tolist()):
            near.setdefault(labels[index], []).append(shapely.intersection(areas[index], box))
        above: Geometry = shapely.Polygon()
        for label in reversed([*seg.class_of, *seg.ignore]):
            if label in near:
                area = shapely.union_all(near[label])
                yield label, raster.shares(shapely.difference(area, above), frame, size)
                above = shapely.union(above, area)

    @cached_property
    def _areas(self) -> tuple[list[Geometry], list[str], shapely.STRtree]:
        assert isinstance(self.annotations, Annotations)
        kept = [item for item in self.annotations.items if item.geometry.area > 0]
        areas = [item.geometry for item in kept]
        return areas, [item.label for item in kept], shapely.STRtree(areas)

    def _objects(self, of: Targets) -> list[Annotation]:
        found = self.annotations
        items = found.objects(of.class_of).items if isinstance(found, LabelMask) else found.items
        return [item for item in items if item.label in of.class_of]

    @cached_property
    def _points(self) -> NDArray[np.float64]:
        """Return (N, 3): x, y and the class index."""
        points: PointTargets | None = self.dense.points
        assert points is not None
        number, items = points.number_of, self._objects(points)
        at = [(item.geometry.centroid, number[item.label]) for item in items]
        return np.array([(centre.x, centre.y, label) for centre, label in at], np.float64).reshape(-1, 3)

    @cached_property
    def _instances(self) -> Instances:
        """Return the objects, those of later labels later."""
        of: InstanceTargets | None = self.dense.instances
        assert of is not None
        order, number = list(of.class_of), of.number_of
        items = sorted(self._objects(of), key=lambda item: order.index(item.label))
        apart = isinstance(self.annotations, LabelMask)
        return Instances([(item.geometry, number[item.label]) for item in items], apart=apart)

    @cached_property
    def _boxes(self) -> NDArray[np.float64]:
        """Return (N, 5): left, top, right, bottom and the class index."""
        boxes: BoxTargets | None = self.dense.boxes
        assert boxes is not None
        number, items = boxes.number_of, self._objects(boxes)
        return np.array([(*item.geometry.bounds, number[item.label]) for item in items], np.float64).reshape(-1, 5)


def never_met(dense: Dense, met: Collection[str]) -> Iterator[str]:
    """Return a note for each kind of targets with classes that no image shows: their labels may be misspelt."""
    for kind, of in dense.kinds.items():
        shown = {name for label, name in of.class_of.items() if label in met}
        shown |= {of.unannotated} if isinstance(of, SegTargets) else set()
        if absent := [name for name in of.classes if name not in shown]:
            yield f"[dense]: no image has {kind} of {', '.join(map(repr, absent))}"


def _by_value(
    seg: SegTargets, rest: int, by_label: Iterator[tuple[str, Shares]], size: Size
) -> list[tuple[int, Shares]]:
    """Return mask values from the bottom up, and their shares; uncovered pixels get the value of the rest."""
    number = seg.number_of
    of_value: dict[int, Shares] = {}
    left = np.ones((size[1], size[0]))
    for label, share in by_label:
        value = number.get(label, IGNORE)
        of_value[value] = of_value[value] + share if value in of_value else share
        left = left - share
    of_value[rest] = of_value.get(rest, 0) + left
    return [(value, of_value[value]) for value in _ranks(number, rest) if value in of_value]


def _ranks(number: Mapping[str, int], rest: int) -> list[int]:
    """Return all values from the bottom up: "not annotated", the class of the rest, classes by their last label."""
    labelled = dict.fromkeys(reversed(list(number.values())))
    return list(dict.fromkeys([IGNORE, *((rest,) if rest not in labelled else ()), *reversed(labelled)]))


def _points(found: NDArray[np.float64], frame: Frame, size: Size) -> Listed:
    here = found[_inside(found[:, :2], frame)]
    corner, factors = raster.to_stored(frame, size)
    at = ((here[:, :2] - corner) * factors).round(DECIMALS).clip(0, np.array(size) - 10.0**-DECIMALS).round(DECIMALS)
    return [[*xy, int(label)] for xy, label in zip(at.tolist(), here[:, 2].tolist(), strict=True)]


def _boxes(found: NDArray[np.float64], frame: Frame, size: Size) -> Listed:
    """Return the boxes whose centre lies in the frame, clipped to it."""
    here = found[_inside((found[:, :2] + found[:, 2:4]) / 2, frame)]
    corner, factors = raster.to_stored(frame, size)
    sides = ((here[:, :4].reshape(-1, 2) - corner) * factors).clip(0, size).round(DECIMALS).reshape(-1, 4)
    return [[*box, int(label)] for box, label in zip(sides.tolist(), here[:, 4].tolist(), strict=True)]


def _inside(at: NDArray[np.float64], frame: Frame) -> NDArray[np.bool_]:
    """Return which points (N, 2) lie in a frame; its right and lower borders belong to the next one."""
    low, high = np.array(frame[:2]), np.array(frame[:2]) + np.array(frame[2:])
    inside: NDArray[np.bool_] = ((at >= low) & (at < high)).all(axis=1)
    return inside


def pixels_of_radius(points: PointTargets, resolutions: Sequence[float | None]) -> float | None:
    """Return the radius of points in stored pixels if all images have one resolution (micrometres per pixel)."""
    if points.radius_px is not None:
        return points.radius_px
    if len(resolutions) != 1 or resolutions[0] is None or points.radius_um is None:
        return None
    return round(points.radius_um / resolutions[0], 4)
