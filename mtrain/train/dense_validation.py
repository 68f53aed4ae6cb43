"""Scores the masks and points of a training in progress: the counts of one rank, and the scores of their sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mtrain.config import FitConfig
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import OrderedBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches
from mtrain.data.rows import DenseTargets, Rows
from mtrain.data.targets import MasksAndPoints
from mtrain.data.task import Task
from mtrain.model.batchnorm import batchnorm_per_task
from mtrain.model.dense.dense_network import enlarged, own_maps
from mtrain.model.dense.maps import features_and_maps
from mtrain.model.network import MultiHead
from mtrain.scoring.dense import mask_scores, point_scores
from mtrain.scoring.peaks import counted


def ordered_targets(
    task: Task, rows: Rows, *, size: int, batch: int, workers: int, how: str = "bilinear"
) -> Iterator[Batch]:
    """Every image of `rows` once, in order, cropped at its centre, with its masks and points."""
    parts = [(task, rows)]
    dataset = OrderedBatches(Images(parts, how=how), size, batch, targets=MasksAndPoints(parts))  # type: ignore[arg-type]
    return batches(dataset, range(len(dataset)), workers=min(workers, len(dataset)), lasting=1)


def counts_of(
    model: MultiHead,
    task: Task,
    rows: Rows,
    config: FitConfig,
    device: torch.device,
    number: int,
    enough: Callable[[], bool],
) -> list[int]:
    """The confusion matrix of pixels; true positives, false positives and false negatives of points of each class; and
    1 if cut short.

    number: of the task in the pool, by which batch normalization per task is applied.
    """
    assert model.dense is not None
    dense, shared, name = model.dense.tasks[task.name], model.shared, task.name
    classes, points = len(dense.seg), len(dense.points)
    tables, hits = np.zeros((classes, classes), np.int64), np.zeros((points, 3), np.int64)
    for batch in ordered_targets(
        task, rows, size=config.size, batch=config.batch, workers=config.workers, how=shared.interpolation
    ):
        if enough():
            return [*tables.ravel().tolist(), *hits.ravel().tolist(), 1]
        batchnorm_per_task.route(shared, torch.full((len(batch.labels),), number, device=device))
        images = shared.normalize(batch.to(device).images(config.size, shared.interpolation))
        _, maps = features_and_maps(shared, shared.body, model.dense.levels, images)
        logits = own_maps(model.dense.heads[name], model.dense.decoder(maps).to(model.dense.heads.weight.dtype))
        found = counted(*split_kinds(logits, dense, config.size), dense, batch.masks, batch.points, batch.radii)
        tables += 0 if found[0] is None else found[0].sum(0)
        hits += 0 if found[1] is None else found[1].sum(0)
    return [*tables.ravel().tolist(), *hits.ravel().tolist(), 0]


def split_kinds(logits: Tensor, dense: DenseTargets, size: int) -> tuple[Tensor | None, Tensor | None]:
    """The maps of one task (N, maps, h, w) -> those of masks at `size`, and those of points; None for a kind that the
    task has not.
    """
    classes = len(dense.seg)
    seg = enlarged(logits[:, :classes].float(), size) if classes else None
    return seg, (logits[:, classes:] if dense.points else None)


def scores_of_counts(dense: DenseTargets, counts: Sequence[int]) -> dict[str, float]:
    """Metric -> value, from sums of what `counts_of` answers; without those that are not defined."""
    classes, points = len(dense.seg), len(dense.points)
    tables = np.array(counts[: classes * classes], float).reshape(1, classes, classes)
    hits = np.array(counts[classes * classes : classes * classes + 3 * points], float).reshape(1, points, 3)
    found = dict(mask_scores(tables, dense.seg)) if classes else {}
    found |= dict(point_scores(hits, dense.points)) if points else {}
    values = {metric: float(found[metric][0]) for metric in dense.metrics}
    return {metric: value for metric, value in values.items() if math.isfinite(value)}
