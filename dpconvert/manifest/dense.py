"""The dense targets of a manifest (`[dense]`): which masks, points and boxes its samples keep beside their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from dpconvert.card import IGNORE, Model

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Targets(Model):
    """Classes of one kind of target, and the annotation labels that they are made from."""

    classes: Annotated[list[str], Field(min_length=1)]
    """Class names in the order of their indexes."""
    labels: dict[str, str] = {}
    """Label in the annotations -> class; each class is its own label if not given."""

    @property
    def class_of(self) -> Mapping[str, str]:
        """Mapping label -> class, in the order of the manifest."""
        return self.labels or {name: name for name in self.classes}

    @property
    def number_of(self) -> Mapping[str, int]:
        """Mapping label -> class index, in the order of the manifest."""
        return {label: self.classes.index(name) for label, name in self.class_of.items()}

    @model_validator(mode="after")
    def _known(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        if unknown := sorted(set(self.labels.values()) - set(self.classes)):
            raise ValueError(f"`labels` names {unknown[0]!r}, which is none of `classes`")
        return self


class SegTargets(Targets):
    """A mask for each sample: the class of every pixel of the stored image, 255 where it is unknown.

    A pixel has the class that covers the largest part of it. Where areas overlap, those of a later label in `labels`
    cover those of an earlier one; if two classes cover equal parts of a pixel, the one with the later label wins. Any
    class takes precedence over "not annotated".
    """

    classes: Annotated[list[str], Field(min_length=2, max_length=IGNORE)]
    """Class names in the order of their values in the mask; at least two."""
    labels: dict[str, str] = {}
    """Label in the annotations -> class, from the bottom up; each class is its own label if not given."""
    ignore: list[str] = []
    """Labels of areas that are not annotated (255); they cover all others."""
    skip: list[str] = []
    """Labels to skip, as if they were not drawn; any other label is an error."""
    unannotated: str = ""
    """Class of pixels that no annotation covers, if the source annotates exhaustively; 255 if not given.

    In images named by an erratum with `drops = "negatives"`, it is always 255.
    """

    @property
    def rest(self) -> int:
        """The value of pixels that no annotation covers."""
        return self.classes.index(self.unannotated) if self.unannotated else IGNORE

    @property
    def known(self) -> set[str]:
        """Every label that an area may have."""
        return {*self.class_of, *self.ignore, *self.skip}

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.unannotated and self.unannotated not in self.classes:
            raise ValueError(f"`unannotated` is {self.unannotated!r}, which is none of `classes`")
        twice = [name for name in self.class_of if name in {*self.ignore, *self.skip}] + [
            name for name in self.ignore if name in self.skip
        ]
        if twice:
            raise ValueError(f"the label {twice[0]!r} has two meanings")
        if empty := [c for c in self.classes if c not in {*self.class_of.values(), self.unannotated}]:
            raise ValueError(f"no label becomes the class {empty[0]!r}")
        return self


class PointTargets(Targets):
    """The points of each sample: the centres of annotated objects."""

    radius_um: Positive | None = None
    """Distance in micrometres within which a point counts as found."""
    radius_px: Positive | None = None
    """The same distance in pixels of the stored image, for sources whose resolution is not known."""
    exhaustive: bool = False
    """Whether every object of these classes is annotated, so that no point means no object."""

    @model_validator(mode="after")
    def _one_radius(self) -> Self:
        if (self.radius_um is None) == (self.radius_px is None):
            raise ValueError("give the radius of points as `radius_um` or as `radius_px`")
        return self


class BoxTargets(Targets):
    """The bounding boxes of annotated objects in each sample."""

    exhaustive: bool = False
    """Whether every object of these classes is annotated, so that no box means no object."""


class InstanceTargets(Targets):
    """The pixels of each annotated object: objects of one class are separate even where they touch.

    A pixel belongs to the object that covers most of it, if objects cover at least half of it together. Where objects
    overlap, those of a later label in `labels` cover those of an earlier one, and later objects of one label the
    earlier ones.
    """

    exhaustive: bool = False
    """Whether every object of these classes is annotated, so that no instance means no object."""


class Dense(Model):
    """Dense targets that samples keep beside their label: masks, points, boxes or instances."""

    optional: bool = False
    """Whether samples keep them only with `--dense`."""
    seg: SegTargets | None = None
    """Masks."""
    points: PointTargets | None = None
    """Points."""
    boxes: BoxTargets | None = None
    """Boxes."""
    instances: InstanceTargets | None = None
    """Instances; their classes must be classes of the masks."""

    @property
    def kinds(self) -> dict[str, Targets]:
        """The targets that are kept, by the name of their kind."""
        every = {"masks": self.seg, "points": self.points, "boxes": self.boxes, "instances": self.instances}
        return {kind: of for kind, of in every.items() if of is not None}

    @property
    def objects(self) -> tuple[Targets, ...]:
        """The kinds of targets that are lists of points or boxes."""
        return tuple(of for of in (self.points, self.boxes) if of is not None)

    def known(self) -> list[str]:
        """Every label that one of the targets names."""
        of_areas = self.seg.known if self.seg else set()
        lists = [*self.objects, *([self.instances] if self.instances else [])]
        return sorted(of_areas.union(*(of.class_of for of in lists)))

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.seg is None and not self.objects:
            raise ValueError("[dense] needs at least one of the tables [dense.seg], [dense.points] and [dense.boxes]")
        return self

    @model_validator(mode="after")
    def _instances_of_masks(self) -> Self:
        if self.instances is None:
            return self
        if self.seg is None:
            raise ValueError("[dense.instances] needs [dense.seg]: instances are parts of masks")
        for label, name in self.instances.class_of.items():
            if self.seg.class_of.get(label) != name:
                raise ValueError(f"[dense.instances] makes {label!r} a {name!r}, and [dense.seg] does not")
        return self
