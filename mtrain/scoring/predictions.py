"""Answers for a set of samples in; every score of them, with its interval, and a file of predictions out."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtrain.atomic import replacing
from mtrain.data.task import Rows, Task
from mtrain.scoring import bootstrap, metrics
from mtrain.scoring.metrics import Labels, Values


@dataclass(frozen=True)
class Predictions:
    """Decision values as `metrics` takes them; probabilities (n, classes) of classifiers that have some."""

    decisions: Values
    probabilities: Values | None = None


def scores_of(task: Task, name: str, rows: Rows, answer: Predictions) -> dict[str, Any]:
    """The task's own metric, all others, intervals over groups; `name` is the set's."""
    score = metrics.score(task.metric, rows.label, answer.decisions)
    scores = dict(metrics.all_scores(rows.label, answer.decisions, task.num_classes))
    notes = [undefined(task, name)] if math.isnan(score) else []
    groups = [str(group) for group in rows.group]
    intervals = bootstrap.intervals(
        rows.label, answer.decisions, groups, task.num_classes, probabilities=answer.probabilities
    )
    if not intervals:
        notes.append(f"the {name} set of {task.name} is of one {task.card.group_kind}: no confidence intervals")
    if answer.probabilities is not None:
        scores["calibration_error"] = metrics.calibration_error(rows.label, answer.probabilities)
    return {
        "set": name,
        "score": score,
        "scores": scores,
        "intervals": intervals,
        "samples": len(rows),
        "groups": len(set(groups)),  # an interval of a handful of groups says little
        "notes": notes,
    }


def undefined(task: Task, name: str) -> str:
    """Why the task has no score on the set of this name."""
    return f"the {name} set of {task.name} holds one class only: no {task.metric}"


def write_predictions(path: Path, rows: Rows, answer: Predictions) -> None:
    """What was answered for each sample, so that any other score can be made later."""
    arrays: dict[str, NDArray[Any]] = {
        "key": rows.key.astype(str),
        "label": rows.label,
        "group": rows.group.astype(str),
        "decisions": answer.decisions,
    }
    if answer.probabilities is not None:
        arrays["probabilities"] = answer.probabilities
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


@dataclass(frozen=True)
class Answers:
    """A file of `write_predictions`: key, label and group of each sample of the scored set, and the answers."""

    key: NDArray[np.str_]
    label: Labels
    group: NDArray[np.str_]
    predictions: Predictions

    @property
    def classes(self) -> int:
        decisions = self.predictions.decisions
        return 2 if decisions.ndim == 1 else decisions.shape[1]

    @property
    def found(self) -> Labels:
        """The class that was answered, (n,)."""
        return metrics.predicted(self.predictions.decisions)


def read_answers(path: Path) -> Answers | None:
    """What `write_predictions` wrote; None where the file is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        predictions = Predictions(arrays["decisions"], arrays.get("probabilities"))
        return Answers(arrays["key"], arrays["label"], arrays["group"], predictions)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
