"""Features of a frozen network, computed once and cached on disk under a digest of everything that they depend on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpconvert.runtime.progress import Reporter
from mtrain.data.rows import Rows
from mtrain.data.task import Task, fetch_shards
from mtrain.disk.atomic import replacing
from mtrain.disk.documents import short_digest
from mtrain.errors import UsageError
from mtrain.model import frozen
from mtrain.model.devices import find_device
from mtrain.model.frozen import Features, check_features, store, stored, weights_digest
from mtrain.model.inference import Inference
from mtrain.model.network import SharedNetwork


def features(
    network: SharedNetwork,
    task: Task,
    split: str,
    *,
    size: int,
    cache: Path,
    workers: int,
    report: Reporter,
    dtype: str = "float32",
    device: str = "auto",
    weights: str = "these weights",
) -> Features:
    """The features of one split: (samples, num_features) in the order of its rows, memory-mapped from the cache.

    Images are cropped to their central square, resized to `size` and normalized; the network is in inference mode. On
    CUDA it computes in bfloat16: such features are never taken for those of float32, which the CPU computes.

    weights: the name of the weights in error messages.

    Raises:
        DivergedError: some features are not finite, or those of different images are equal.
        UsageError: some features are too large for float16.
        ShardError, RunError: remote shards cannot be downloaded.
    """
    what = f"{weights_digest(network)} {task.card.digest} {split} {size} centre-square {network.interpolation}"
    what += "" if dtype == "float32" else f" {dtype}"
    inference = Inference.on(find_device(device))
    what += inference.precision
    path = cache / f"{task.name}-{split}-{short_digest(what)}.safetensors"
    shape = (len(task.rows[split]), network.num_features)
    found = stored(path, shape, dtype, report)
    if found is None:
        fetch_shards([task], [split], report)
        computed = _computed(network, task, split, size, workers, inference, report)
        check_features(computed, task, task.rows[split], split, weights)
        store(path, _as(computed, dtype), task, split)
        found = stored(path, shape, dtype, report)
    assert found is not None
    check_features(found, task, task.rows[split], split, weights)
    return found


def write_features(found: Features, task: Task, rows: Rows, path: Path) -> None:
    """Write the array to `path` (.npy), and key, label and group of each row to a .csv file beside it.

    The label is a column `label`, a column of 0 and 1 for each class (`class key` for a class named `key`), or a column
    `value`.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, found, allow_pickle=False)
    with replacing(path.with_suffix(".csv")) as partial, partial.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["key", *_label_head(task), "group"])
        writer.writerows(
            [key, *cells, group]
            for key, cells, group in zip(rows.key, _labels(task, rows).tolist(), rows.group, strict=True)
        )


def _label_head(task: Task) -> list[str]:
    return {"class": ["label"], "labels": task.card.class_columns, "value": ["value"]}[task.target]


def _labels(task: Task, rows: Rows) -> NDArray[Any]:
    """(rows, columns): the cells of each row that state its label."""
    if rows.target is None:
        return rows.label[:, None]
    return rows.target if task.target == "value" else rows.target.astype(np.int64)


def _as(computed: Features, dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        found = computed.astype(dtype)
    if dtype == "float16" and not np.isfinite(found[np.isfinite(computed)]).all():
        raise UsageError("these features are too large for float16", remedy="use float32")
    return found


def _computed(
    network: SharedNetwork, task: Task, split: str, size: int, workers: int, inference: Inference, report: Reporter
) -> Features:
    return frozen.computed(
        network, task, task.rows[split], split, size=size, workers=workers, inference=inference, report=report
    )
