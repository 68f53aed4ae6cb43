"""Robustness of a network's features on a task. The result is <run>/robustness/<Task>-<column>-<weights>.json.

A column that is not an attribute, or whose name is not of plain letters, also has a digest of its values in that name,
so that two columns of one name have a result each; so has each number of neighbours that is given (`-k5`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpconvert.names import plain
from dpconvert.runtime.progress import Reporter
from mtrain import __version__
from mtrain.data.labels import need_classes
from mtrain.data.rows import Rows
from mtrain.data.sample_columns import ColumnRequest, without_value
from mtrain.data.task import Task
from mtrain.disk.documents import short_digest, write_document
from mtrain.errors import UsageError
from mtrain.evaluation.robustness import Samples, neighbours, robustness
from mtrain.evaluation.robustness_results import FOLDER
from mtrain.transfers.pretrained import Pretrained

DEFINED = "PathoROB's index counts neighbours of the same class and of others, and no source defines it without classes"
SETS = ("train", "val")  # test sets are not needed, and stay closed


def robustness_of(
    source: Pretrained, task: Task, column: ColumnRequest, k: int | None, workers: int, device: str, report: Reporter
) -> dict[str, Any]:
    """The robustness of the features of all samples of train and val that have a value of the column; also written.

    k: number of neighbours; chosen by `mtrain.evaluation.robustness.best_k` if None.

    Raises:
        UsageError: the column is not there, or has too few values.
    """
    need_classes(task, "mtrain robustness", DEFINED)
    splits, rows = _open_rows(task)
    values = column.of(task, rows)
    which = short_digest("\n".join(map(repr, values.tolist())))[:8]
    kept = values != ""
    x = _features(source, task, splits, workers, device, report)
    samples = Samples(x[kept], rows.label[kept], values[kept], rows.group[kept].astype(str))
    found = robustness(samples, neighbours(samples, device), k)
    result = {
        "identity": {
            "weights_digest": source.digest,
            "task_digest": task.card.digest,
            "size": source.run.config().size,
            "k": k,
            "values_digest": which,
            "mtrain": __version__,
        },
        "task": task.name,
        "weights": source.weights,
        "backbone": source.run.config().backbone,
        "by": column.name,
        "origin": _origin(column, which),
        "sets": splits,
        **found,
        "notes": [note for note in (without_value(values, column.name), _seen(source, task), _fewer(k, found)) if note],
    }
    write_document(result_path(source, task, column, which, k), result)
    return result


def _features(
    source: Pretrained, task: Task, splits: Sequence[str], workers: int, device: str, report: Reporter
) -> NDArray[np.float32]:
    """Features (N, num_features) of the samples of these sets, one set after the other."""
    return np.concatenate(
        [source.features(task, split, workers=workers, report=report, device=device) for split in splits]
    )


def check_column(column: ColumnRequest, tasks: Sequence[Task]) -> None:
    """Raises:
    UsageError: no task has the column.
    """
    faults = []
    for task in tasks:
        try:
            column.of(task, _open_rows(task)[1])
        except UsageError as error:
            faults.append(error)
    if faults and len(faults) == len(tasks):
        raise faults[0]


def _open_rows(task: Task) -> tuple[list[str], Rows]:
    """The sets that are not empty, and their rows."""
    splits = [split for split in SETS if len(task.rows[split])]
    return splits, Rows.joined([task.rows[split] for split in splits])


def _seen(source: Pretrained, task: Task) -> str:
    trained = source.seen.of_task(task.name)
    return f"these weights were trained on {' and '.join(trained)} of {task.name}" if trained else ""


def _fewer(k: int | None, found: Mapping[str, Any]) -> str:
    """A note if there are fewer neighbours than were given with --k."""
    return f"--k {k}: no sample has more than {found['k']} neighbours of other groups" if k and k > found["k"] else ""


def _origin(column: ColumnRequest, which: str) -> str:
    """Where the column is, in words; two tables with the same name are distinguished by the digest of the values."""
    return f"{column.origin} ({which})" if column.table is not None else column.origin


def result_path(source: Pretrained, task: Task, column: ColumnRequest, which: str, k: int | None) -> Path:
    """The path of a result; columns of the same name are distinguished by their values, whose digest is `which`.

    k: the given number of neighbours, if any.
    """
    simple = re.fullmatch("[a-z0-9_]+", column.name) and not column.origin
    name = column.name if simple else f"{plain(column.name)}-{which}"
    return source.run.path / FOLDER / f"{task.name}-{name}-{source.label}{f'-k{k}' if k else ''}.json"
