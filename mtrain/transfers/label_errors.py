"""Find labels that are probably wrong: confident learning on the features of a frozen network.

A classifier predicts the class of each sample from the features of other groups (patients, slides). A label is in doubt
if the prediction contradicts it with confidence. The rule is that of Northcutt, Jiang and Chuang, "Confident Learning:
Estimating Uncertainty in Dataset Labels", JAIR 70 (2021): the off-diagonal entries of the confident joint. It is the
filter `confident_learning` of their package cleanlab, which a test compares with.

Where an image has any number of classes, the rule is applied to each class, as cleanlab does: does the image have it?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpconvert.runtime.progress import Reporter
from dpconvert.source.record import Box, sample_name
from mtrain.data.batches.images import ShardFiles
from mtrain.data.labels import constant
from mtrain.data.metadata import json_headers, read_json
from mtrain.data.rows import Rows
from mtrain.data.shard_cache import fetch
from mtrain.data.task import Task, has_frames
from mtrain.errors import ShardError, UsageError
from mtrain.scoring import metrics
from mtrain.scoring.metrics import Labels, Values
from mtrain.transfers.classifiers.probes import Features, TrainingSet, held_out_probabilities
from mtrain.transfers.pretrained import Pretrained

ROUNDING = 1e-6


@dataclass(frozen=True)
class Doubt:
    """A sample whose label is in doubt. `row` is its number in `LabelAudit.rows`.

    given, predicted: numbers of `LabelAudit.names`. p_given, p_predicted: their probabilities according to samples of
        other groups.
    sample: the name of the sample for `samples` under [[errata]].
    """

    row: int
    split: str
    given: int
    predicted: int
    p_given: float
    p_predicted: float
    sample: str


@dataclass(frozen=True)
class LabelAudit:
    """The samples of one task, and those whose labels are in doubt, the most doubtful first.

    An image that has any number of classes may be in doubt for several of them. accuracy: that of the predictions, if
    all labels were right. notes: what limits the result. backbone: the network whose features were used.
    """

    task: Task
    rows: Rows
    doubts: list[Doubt]
    accuracy: float
    weights: str
    notes: tuple[str, ...]
    backbone: str = ""

    @property
    def names(self) -> list[str]:
        """What a label says: its class; of any number of classes, that the image lacks or has one of them."""
        if self.task.target == "class":
            return list(self.task.classes)
        return [text for name in self.task.classes for text in (f"not {name}", name)]

    def matrix(self) -> NDArray[np.int64]:
        """Number of doubts by given label (rows) and predicted label (columns), numbered as `names`."""
        given, predicted = [d.given for d in self.doubts], [d.predicted for d in self.doubts]
        return metrics.confusion(np.array(given, np.int64), np.array(predicted, np.int64), len(self.names))


def suspects(labels: Labels, probabilities: Values) -> tuple[NDArray[np.intp], Labels]:
    """The samples whose label the prediction contradicts with confidence, and the class of each according to it.

    A sample counts as class j if its probability of j is at least the mean of that of the samples labelled j; of
    several such classes the most probable one counts, and with none the sample is not scored. It is a suspect if the
    class is another than its label, unless the label is the most probable class. Sorted by the probability of the
    label, the least probable first.

    labels: (n,). probabilities: (n, classes), out of fold.
    """
    classes = probabilities.shape[1]
    of_class = [probabilities[labels == c, c] for c in range(classes)]
    thresholds = np.array([values.mean() if len(values) else np.inf for values in of_class])
    confident = probabilities >= thresholds - ROUNDING
    found = np.where(confident, probabilities, -1.0).argmax(axis=1)
    own = probabilities[np.arange(len(labels)), labels]
    wrong = confident.any(axis=1) & (found != labels) & (own < probabilities.max(axis=1))
    which = np.flatnonzero(wrong)
    which = which[np.argsort(own[which], kind="stable")]
    return which, found[which]


def audit_labels(source: Pretrained, task: Task, *, workers: int, device: str, report: Reporter) -> LabelAudit:
    """Find the labels in doubt among the training and validation samples of a task; its test set is not read.

    Raises:
        UsageError: the weights were trained on this task, or the task has a single class or group, or numbers.
    """
    if task.target == "value":
        raise UsageError(
            f"mtrain audit-labels needs classes, one or several an image, and {task.name} has numbers",
            where=task.folder,
            remedy="choose another task",
        )
    check_independent(source, task)
    filled = [split for split, rows in task.rows.items() if len(rows)]
    rows = Rows.joined([task.rows[split] for split in filled])
    splits = np.repeat(filled, [len(task.rows[split]) for split in filled])
    groups = [str(group) for group in rows.group]
    if wrong := constant(task, rows):
        what = "has samples of a single class" if task.target == "class" else wrong
        raise UsageError(f"this task {what}", where=task.folder, remedy="choose another --task")
    if len(groups) < 2 or len(set(groups)) < 2:
        what = f"all samples are of one {task.card.group_kind}, so none is predicted from others"
        raise UsageError(what, where=task.folder, remedy="choose another --task")
    x = np.concatenate(
        [source.features(task, split, workers=workers, report=report, device=device) for split in filled]
    )
    found, accuracy, notes = _judged(task, rows, x, device)
    names = _sample_names(task, rows, np.array([one.row for one in found], np.intp))
    doubts = [
        Doubt(one.row, str(splits[one.row]), one.given, one.predicted, one.p_given, one.p_predicted, name)
        for one, name in zip(found, names, strict=True)
    ]
    backbone = source.run.config().backbone
    return LabelAudit(task, rows, doubts, accuracy, source.weights, (*notes, *_relatives(source, task)), backbone)


class DoubtfulLabel(NamedTuple):
    """A label in doubt, numbered as `LabelAudit.names`."""

    row: int
    given: int
    predicted: int
    p_given: float
    p_predicted: float


def _judged(task: Task, rows: Rows, x: Features, device: str) -> tuple[list[DoubtfulLabel], float, tuple[str, ...]]:
    """Return the labels in doubt, the accuracy of the predictions, and notes."""
    groups = [str(group) for group in rows.group]
    if rows.target is None:
        p, notes = held_out_probabilities(TrainingSet(x, rows.label, groups, task.num_classes, task.metric, device))
        return _found(rows.label, p), metrics.accuracy(rows.label, p.argmax(axis=1)), notes
    found, right, remarks = list[DoubtfulLabel](), list[float](), list[str]()
    for number, has in enumerate(rows.target.T.astype(np.int64)):
        if len(np.unique(has)) < 2:
            remarks.append(f"{task.classes[number]!r}: all samples have it, or none: not judged")
            continue
        p, more = held_out_probabilities(TrainingSet(x, has, groups, 2, "roc_auc", device))
        found += [
            one._replace(given=one.given + 2 * number, predicted=one.predicted + 2 * number) for one in _found(has, p)
        ]
        right.append(metrics.accuracy(has, p.argmax(axis=1)))
        remarks += [note for note in more if note not in remarks]
    return sorted(found, key=lambda one: one.p_given), float(np.mean(right)), tuple(remarks)


def _found(labels: Labels, p: Values) -> list[DoubtfulLabel]:
    which, predicted = suspects(labels, p)
    return [
        DoubtfulLabel(int(row), int(given), int(guess), float(p[row, given]), float(p[row, guess]))
        for row, given, guess in zip(which, labels[which], predicted, strict=True)
    ]


def check_independent(source: Pretrained, task: Task) -> None:
    """Raises:
    UsageError: the weights were trained on this task. Their features repeat the labels, the wrong ones included.
    """
    if source.seen.of_task(task.name):
        raise UsageError(
            f"these weights were trained on {task.name}, so their features repeat its labels, wrong ones included",
            where=source.origin,
            remedy=f"use a run with --leave-out {task.name}, or --weights imagenet",
        )


def _relatives(source: Pretrained, task: Task) -> list[str]:
    kin = sorted(source.seen.of_relatives(task.name, tuple(task.card.related)))
    return (
        [f"these weights were trained on {', '.join(kin)}, related to {task.name}: errors in both may stay hidden"]
        if kin
        else []
    )


def _sample_names(task: Task, rows: Rows, which: NDArray[np.intp]) -> list[str]:
    """The name of each sample as [[errata]] lists it."""
    files, headers = ShardFiles(task.files()), json_headers(rows)
    fetch(files.copies(np.unique(rows.shard[which])))
    try:
        texts = [read_json(files, int(rows.shard[row]), int(headers[row])) for row in which]
        frames = [_frame(text) for text in texts]
        pictures = [str(text["picture"]) for text in texts]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(
            f"the JSON of a sample cannot be read: {error}", where=task.folder, remedy="convert the source again"
        ) from None
    finally:
        files.close()
    parts = has_frames(task)
    return [sample_name(image, frame if parts else None) for image, frame in zip(pictures, frames, strict=True)]


def _frame(text: Mapping[str, Any]) -> Box:
    return Box(*(int(text[name]) for name in ("x", "y", "width", "height")))
