"""Validates a training in progress on up to `VALIDATED` images of each task, each rank on its share of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtrain.data.batches.image_batches import OrderedBatches
from mtrain.data.batches.images import Images
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.model.batchnorm import batchnorm_per_task
from mtrain.model.inference import Inference, outputs
from mtrain.train.dense_validation import counts_of, scores_of_counts

if TYPE_CHECKING:
    from mtrain.train.trainer import Training

VALIDATED = 512  # maximum number of images of a task's validation set that a running training is validated on


@torch.no_grad()
def accuracies(training: Training, enough: Callable[[], bool]) -> dict[str, float] | None:
    """Accuracy of each head on up to `VALIDATED` images of its task's validation set; None if cut short. Of heads
    for any number of classes, the share of correct decisions on classes; heads for numbers have none.

    Each rank scores its share of the images; all return the same result.
    """
    training.model.eval()
    tasks = [task for task in training.pool.tasks if len(task.rows["val"]) and task.target != "value"]
    correct: list[int] = []
    with training.averaged():
        for task in tasks:
            count = training.count_correct(task, _share(training, task), enough)
            if count is None:
                break
            correct.append(count)
    missing = len(tasks) - len(correct)
    *correct, cut = training.ranks.all_reduced([*correct, *[0] * missing, missing])()
    if cut:
        return None
    return {task.name: n / decisions(task) for task, n in zip(tasks, correct, strict=True)}


@torch.no_grad()
def dense_scores(training: Training, enough: Callable[[], bool]) -> dict[str, dict[str, float]] | None:
    """Dice of masks and F1 of points, on the images that `validate` takes: task -> metric -> value; None if cut
    short. Scores that are not defined are left out. Each rank counts its share; all return the same.
    """
    dense = training.model.dense
    if dense is None:
        return {}
    training.model.eval()
    found = {}
    for task in training.pool.tasks:
        if task.name in dense.tasks and len(task.rows["val"]):
            rows = _share(training, task)
            number = training.tasks.index(task.name)
            with training.averaged():
                sums = counts_of(training.model, task, rows, training.config, training.device, number, enough)
            totals = training.ranks.all_reduced(sums)()
            if totals[-1]:
                return None
            found[task.name] = scores_of_counts(dense.tasks[task.name], totals)
    return found


def count_correct(training: Training, task: Task, rows: Rows, enough: Callable[[], bool]) -> int | None:
    """The number of correct decisions of a task's head on these rows; None if cut short."""
    config, shared, head = training.config, training.model.shared, training.model.heads[task.name]
    images, number = Images([(task, rows)], how=training.how), training.tasks.index(task.name)

    def answered(images: Tensor) -> Tensor:
        batchnorm_per_task.route(shared, torch.full((len(images),), number, device=images.device))
        logits: Tensor = head(shared(shared.normalize(images)))
        return logits

    correct = done = 0
    for logits in outputs(
        answered,
        OrderedBatches(images, config.size, config.batch),
        Inference.on(training.device),
        workers=config.workers,
        how=training.how,
    ):
        if enough():
            return None
        correct += right(logits, rows.take(range(done, done + len(logits))))
        done += len(logits)
    return correct


def _share(training: Training, task: Task) -> Rows:
    """The rows of a task's validation set that this rank scores."""
    return task.rows["val"].take(validated(task)[training.ranks.rank :: training.ranks.size])


def right(logits: NDArray[np.float32], rows: Rows) -> int:
    """The number of correct decisions: on the class of each row, or on each class if rows have any number of them."""
    if rows.target is None:
        return int((logits.argmax(1) == rows.label).sum())
    return int(((logits > 0) == (rows.target > 0)).sum())


def decisions(task: Task) -> int:
    """The number of decisions that a validation counts."""
    return len(validated(task)) * (task.outputs if task.target == "labels" else 1)


def validated(task: Task) -> list[int]:
    """Row numbers of a task's validation set, evenly spaced."""
    size = len(task.rows["val"])
    return [int(row) for row in np.linspace(0, size - 1, min(size, VALIDATED)).astype(int)]
