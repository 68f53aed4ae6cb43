"""The samples of one set of a task as columns, and the dense targets of a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dpconvert import card as cards
from dpconvert.plural import counted

Target = cards.Target
NO_CLASS = -1  # label of samples that do not have one class


@dataclasses.dataclass(frozen=True, repr=False)
class Rows:
    """The samples of one split as columns of equal length.

    shard: an index into `Task.shards`. offset, length: in bytes. sha256: (n, 32) bytes, the digests of encoded images.
    label: the class of each sample, NO_CLASS if the task's samples do not have one class; their targets are then in
    `target`, (n, outputs): 0 or 1 for each class, or the number in the unit of the source.
    seg_offset, seg_length, seg_sha256: those of masks; None in tasks without masks. objects: number of points and boxes
    of each sample; None in tasks without either.
    """

    key: npt.NDArray[np.object_]
    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    group: npt.NDArray[np.object_]
    sha256: npt.NDArray[np.uint8]
    seg_offset: npt.NDArray[np.int64] | None = None
    seg_length: npt.NDArray[np.int64] | None = None
    seg_sha256: npt.NDArray[np.uint8] | None = None
    objects: npt.NDArray[np.int64] | None = None
    target: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.label)

    def __repr__(self) -> str:
        return f"Rows({counted(len(self), 'sample')})"

    def take(self, indices: npt.ArrayLike) -> Rows:
        """The samples at `indices` (or under a boolean mask), in that order."""
        chosen = np.asarray(indices)
        chosen = chosen if chosen.size else chosen.astype(np.int64)  # numpy makes an empty list an array of floats
        return Rows(**{name: column[chosen] for name, column in self._columns()})

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """The samples of these parts of one task, one part after the other."""
        names = [name for name, _ in parts[0]._columns()]
        return Rows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def _columns(self) -> Iterable[tuple[str, Any]]:
        columns = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return ((name, column) for name, column in columns if column is not None)


def encoded_keys(rows: Rows) -> npt.NDArray[np.bytes_]:
    """The keys of samples in UTF-8, which take a quarter of the memory of text."""
    return np.char.encode(rows.key.astype(np.str_), "utf-8")


@dataclasses.dataclass(frozen=True)
class DenseTargets:
    """Masks and points of a task. seg, points: their classes, () if the task has no masks or points. instances: those
    classes of masks whose objects are distinguished.

    radius_um, radius_px: how far a point may lie from its object, in micrometres and in pixels of the stored image;
    without `radius_px`, the resolution of the sample is used.
    """

    seg: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    radius_um: float | None = None
    radius_px: float | None = None
    instances: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Number of maps that a head of the task predicts."""
        return len(self.seg) + len(self.points)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric of each kind that the task has, the main one first."""
        return (("dice",) if self.seg else ()) + (("f1",) if self.points else ())
