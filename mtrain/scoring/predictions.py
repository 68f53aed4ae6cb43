"""Score the predictions for a set of samples, with intervals, and write them to a file."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtrain.data.labels import Scaling
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.disk.atomic import replacing
from mtrain.scoring import bootstrap, label_scores, metrics
from mtrain.scoring.metrics import Labels, Values


@dataclass(frozen=True)
class Predictions:
    """Decision values as in `metrics`, and probabilities (n, classes) if the classifier has them.

    For images with any number of classes, decision values are (n, classes), positive for "has the class"; for images
    with a number, they are the predicted numbers (n,), in the unit of the source.
    """

    decisions: Values
    probabilities: Values | None = None


def scores_of(task: Task, name: str, rows: Rows, answer: Predictions, metric: str | None = None) -> dict[str, Any]:
    """Return the score by `metric`, by default the task's own, all other scores, and intervals over groups.

    name: that of the set. metric: a name of `metrics.all_scores`.
    """
    if rows.target is not None:
        return _scores_of_targets(task, name, rows, answer)
    ordered = task.metric == metrics.KAPPA
    scores = dict(metrics.all_scores(rows.label, answer.decisions, task.num_classes, ordered=ordered))
    score = metrics.score(task.metric, rows.label, answer.decisions) if metric is None else scores[metric]
    notes = [undefined(task, name)] if math.isnan(score) else []
    groups = [str(group) for group in rows.group]
    intervals = bootstrap.intervals(
        rows.label, answer.decisions, groups, task.num_classes, probabilities=answer.probabilities, ordered=ordered
    )
    if not intervals:
        notes.append(f"the {name} set of {task.name} has only one {task.card.group_kind}: no confidence intervals")
    if answer.probabilities is not None:
        scores["calibration_error"] = metrics.calibration_error(rows.label, answer.probabilities)
    return {
        "set": name,
        "score": score,
        "scores": scores,
        "intervals": intervals,
        "samples": len(rows),
        "groups": len(set(groups)),  # an interval from a handful of groups is not informative
        "notes": notes,
    }


def truth_of(task: Task, rows: Rows) -> Values:
    """Return the targets of samples that do not have one class: (n, classes), or numbers (n,)."""
    assert rows.target is not None
    return rows.target[:, 0] if task.target == "value" else rows.target


def _scores_of_targets(task: Task, name: str, rows: Rows, answer: Predictions) -> dict[str, Any]:
    truth, groups = truth_of(task, rows), [str(group) for group in rows.group]
    scores = dict(label_scores.all_scores(truth, answer.decisions))
    intervals, score = label_scores.intervals(truth, answer.decisions, groups), scores[task.metric]
    notes = [undefined(task, name)] if math.isnan(score) else []
    if task.target == "labels" and not notes and (absent := label_scores.undefined_classes(truth)):
        names = ", ".join(repr(task.classes[number]) for number in absent)
        notes.append(f"all or no samples of the {name} set of {task.name} have {names}: left out of the mean")
    if not intervals:
        notes.append(f"the {name} set of {task.name} has only one {task.card.group_kind}: no confidence intervals")
    return {
        "set": name,
        "score": score,
        "scores": scores,
        "intervals": intervals,
        "samples": len(rows),
        "groups": len(set(groups)),
        "notes": notes,
        **({"unit": task.card.unit} if task.card.unit else {}),
    }


def decided(task: Task, outputs: Values, scaling: Scaling) -> Values:
    """Return decision values from the outputs (n, outputs) of a head; numbers are brought to their unit."""
    if task.target == "value":
        return scaling.in_unit(outputs[:, 0])
    return outputs if task.target == "labels" else metrics.decisions_of(outputs)


def undefined(task: Task, name: str) -> str:
    """Return why the task has no score on the set called `name`."""
    metric = metrics.METRICS.get(task.metric, task.metric)
    if task.target == "value":
        return f"the numbers of the {name} set of {task.name}, or their predictions, are all equal: no {metric}"
    if task.target == "labels":
        return f"every class of {task.name} is that of all or of no samples of the {name} set: no {metric}"
    return f"the {name} set of {task.name} holds one class only: no {metric}"


def write_predictions(path: Path, rows: Rows, answer: Predictions) -> None:
    """Write the predictions for each sample, so that any other score can be computed later."""
    arrays: dict[str, NDArray[Any]] = {
        "key": rows.key.astype(str),
        "label": rows.label,
        "group": rows.group.astype(str),
        "decisions": answer.decisions,
    }
    if rows.target is not None:
        arrays["target"] = rows.target
    if answer.probabilities is not None:
        arrays["probabilities"] = answer.probabilities
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


@dataclass(frozen=True)
class Answers:
    """A file of `write_predictions`: key, label, group and predictions of each sample of the scored set.

    target: of samples that do not have one class, as in `Rows`.
    """

    key: NDArray[np.str_]
    label: Labels
    group: NDArray[np.str_]
    predictions: Predictions
    target: Values | None = None

    @property
    def classes(self) -> int:
        decisions = self.predictions.decisions
        return 2 if decisions.ndim == 1 else decisions.shape[1]

    @property
    def found(self) -> Labels:
        """Return the predicted classes, (n,)."""
        return metrics.predicted(self.predictions.decisions)


def read_answers(path: Path) -> Answers | None:
    """Read a file of `write_predictions`; return None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        predictions = Predictions(arrays["decisions"], arrays.get("probabilities"))
        return Answers(arrays["key"], arrays["label"], arrays["group"], predictions, arrays.get("target"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
