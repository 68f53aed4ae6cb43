"""Labels that are not one class: any number of classes for an image, or a number, as the targets of a loss.

Several classes are a row of 0 and 1. Numbers are standardized by mean and deviation of the task's training set, so that
a network that predicts the mean has a squared error of 1; predictions are converted back to the unit of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.errors import UsageError


class Scaling(NamedTuple):
    """The mean and the standard deviation of a task's numbers over its training set, in their unit."""

    mean: float = 0.0
    deviation: float = 1.0

    def standardized(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Numbers in their unit -> numbers of mean 0 and deviation 1 on the training set."""
        return (values - self.mean) / self.deviation

    def in_unit(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The inverse of `standardized`."""
        return values * self.deviation + self.mean


def scaling_of(task: Task, train: Rows | None = None) -> Scaling:
    """The scaling of a task's numbers, from its training set or from other rows; of other tasks, none.

    Raises:
        UsageError: all numbers are equal, so that there is nothing to learn.
    """
    rows = task.rows["train"] if train is None else train
    if task.target != "value" or not len(rows):
        return Scaling()
    assert rows.target is not None
    values = rows.target[:, 0]
    found = Scaling(float(values.mean()), float(values.std()))
    if not (np.isfinite(found).all() and found.deviation > 1e-12 * abs(found.mean)):
        raise UsageError(
            f"all numbers of the training set of {task.name} are equal, so there is nothing to learn",
            where=task.folder,
            remedy="leave it out, or choose another --target",
        )
    return found


def targets_of(task: Task, rows: Rows, scaling: Scaling) -> npt.NDArray[np.float32] | None:
    """The targets of these rows: (n, outputs) of 0 and 1, or (n, 1) standardized numbers; None in tasks of classes."""
    if rows.target is None:
        return None
    values = scaling.standardized(rows.target) if task.target == "value" else rows.target
    return values.astype(np.float32)


def need_classes(task: Task, what: str, why: str = "") -> None:
    """Check that the images of a task have one class each. what: the step that needs it, which begins the message.
    why: what it computes that only such images have.

    Raises:
        UsageError: they have any number of classes, or a number.
    """
    if task.target != "class":
        raise UsageError(
            f"{what} needs images of one class each{why and f' ({why})'}, and {task.name} is of kind "
            f"{task.card.kind!r}",
            where=task.folder,
            remedy="choose another task, or leave this one out",
        )


def constant(task: Task, rows: Rows) -> str | None:
    """Return why nothing can be learnt from these rows; None if something can."""
    if rows.target is None:
        return "holds a single class" if len(np.unique(rows.label)) < 2 else None
    if (rows.target == rows.target[:1]).all():
        return "holds a single number" if task.target == "value" else "holds images of the same classes only"
    return None


def widest(tasks: Sequence[Task]) -> int:
    """The largest number of targets of an image; 0 if all images have one class."""
    return max((task.outputs for task in tasks if task.target != "class"), default=0)


def strata(task: Task, rows: Rows) -> npt.NDArray[np.int64]:
    """A class of each row for folds to spread evenly: its class, its set of classes, or the fifth of its number."""
    if rows.target is None:
        return rows.label
    if task.target == "labels":
        return np.unique(rows.target, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    if not len(rows):
        return rows.label
    edges = np.quantile(rows.target[:, 0], [0.2, 0.4, 0.6, 0.8])
    return np.searchsorted(edges, rows.target[:, 0], side="right").astype(np.int64)
