"""The parts of a task card: licence, splits, files, dense targets, and what differed or failed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Split = Literal["train", "val", "test"]


class Model(BaseModel):
    """Frozen; unknown fields and numbers that are not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Licence(Model):
    """The terms of use of images or weights. `open` is true if anyone may download and redistribute them."""

    name: str
    """Short name of the licence, such as CC BY 4.0."""
    url: str = ""
    """Address of its text."""
    open: bool = False
    """Whether anyone may download and redistribute them."""
    note: str = ""
    """Further information for its users."""


class SplitCard(Model):
    """Sizes of one split: `classes[i]` is the number of samples with label i, `groups` that of distinct groups.

    If samples have several labels, they count for each of them; if they have numbers, `classes` is empty.
    """

    samples: int
    classes: list[int]
    groups: int


class ShardCard(Model):
    """One tar file of a task."""

    name: str
    split: Split
    samples: int
    size: int
    sha256: str


class FileCard(Model):
    """A side file of a task."""

    name: str
    size: int
    sha256: str


class Difference(Model):
    """A count that differs from the expected one. `reason` is set if the difference is known."""

    what: str
    expected: int
    made: int
    reason: str = ""


class Failure(Model):
    """A sample that could not be converted, and the reason."""

    key: str
    source: str
    reason: str


class SegCard(Model):
    """The masks of a task: PNG files of the stored image's size, whose values are indexes in `classes`, or `ignore`."""

    classes: list[str]
    ignore: Literal[255] = 255
    metric: Literal["dice"] = "dice"


class PointsCard(Model):
    """The points of a task. `exhaustive`: whether every object of `classes` has one.

    radius_um, radius_px: the distance within which a point counts as found, in micrometres (null if the manifest
    states pixels) and in pixels of the stored image (null if images of several resolutions are in the task).
    """

    classes: list[str]
    radius_um: float | None
    radius_px: float | None
    exhaustive: bool
    metric: Literal["f1"] = "f1"


class BoxesCard(Model):
    """The boxes of a task. `exhaustive`: whether every object of `classes` has one."""

    classes: list[str]
    exhaustive: bool


class InstancesCard(Model):
    """The instances of a task: the pixels of each object. `exhaustive`: whether every object of `classes` has them."""

    classes: list[str]
    exhaustive: bool
    metric: Literal["pq"] = "pq"


class DenseCard(Model):
    """The dense targets of a task's samples; at least one kind is present."""

    seg: SegCard | None = None
    points: PointsCard | None = None
    boxes: BoxesCard | None = None
    instances: InstancesCard | None = None

    @property
    def kinds(self) -> dict[str, SegCard | PointsCard | BoxesCard | InstancesCard]:
        """The targets that the samples have, by the name of their kind."""
        every = {"masks": self.seg, "points": self.points, "boxes": self.boxes, "instances": self.instances}
        return {kind: of for kind, of in every.items() if of is not None}
