"""Compute metrics from labels and decision values, with NumPy only.

decisions: (n,), the value of class 1, for two classes; (n, classes) otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpconvert.kappa import quadratic_kappa

Labels = NDArray[np.int64]
Values = NDArray[np.float64]
CALIBRATION_BINS = 15
KAPPA = "quadratic_kappa"
METRICS = {  # the metrics of tasks as lines and pages name them
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "quadratic_kappa": "quadratic kappa",
    "macro_auc": "mean ROC AUC",
    "pearson": "Pearson correlation",
    "dice": "Dice",
    "f1": "F1",
}
# scores that lines state besides the own metric: of masks, points, instances and numbers
BESIDES = {
    "iou": "IoU",
    "f1": "F1",
    "pq": "panoptic quality",
    "aji": "aggregated Jaccard index",
    "mae": "mean absolute error",
}


def decisions_of(values: Values) -> Values:
    """Convert one value per class (n, classes) to decision values: for two classes, the second minus the first."""
    return values[:, 1] - values[:, 0] if values.shape[1] == 2 else values


def predicted(decisions: Values) -> Labels:
    """Return the class with the largest decision value; for two classes, 1 if the value is positive."""
    if decisions.ndim == 1:
        return np.asarray(decisions > 0, dtype=np.int64)
    return np.asarray(decisions.argmax(axis=1), dtype=np.int64)


def score(metric: str, labels: Labels, decisions: Values) -> float:
    """Return the task's own metric, "accuracy", "roc_auc" or "quadratic_kappa"; NaN if it is undefined."""
    if metric == "roc_auc":
        return roc_auc(labels == 1, decisions if decisions.ndim == 1 else decisions[:, 1])
    if metric == KAPPA:
        return float(quadratic_kappa(confusion(labels, predicted(decisions), decisions.shape[1])))
    return accuracy(labels, predicted(decisions))


def lowest(metric: str) -> float:
    """Return the smallest value of a metric: -1 for kappa and correlations, negative below chance, else 0."""
    return -1.0 if metric in (KAPPA, "pearson") else 0.0


def all_scores(
    labels: Labels, decisions: Values, classes: int, *, ordered: bool = False
) -> Iterator[tuple[str, float]]:
    """Return all metrics that the decision values allow. ordered: whether the classes are in an order."""
    found = predicted(decisions)
    if ordered:
        yield KAPPA, float(quadratic_kappa(confusion(labels, found, classes)))
    yield "accuracy", accuracy(labels, found)
    yield "balanced_accuracy", balanced_accuracy(labels, found)
    yield "macro_f1", float(np.mean([f1(labels == c, found == c) for c in np.unique(labels)]))
    if decisions.ndim == 1:
        yield "roc_auc", roc_auc(labels == 1, decisions)
    else:
        areas = [roc_auc(labels == c, decisions[:, c]) for c in range(classes)]
        yield "roc_auc", float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan")
    for c in np.unique(labels):
        yield f"recall_{c}", float((found[labels == c] == c).mean())


def accuracy(labels: Labels, found: Labels) -> float:
    """Return the share of correct predictions."""
    return float((labels == found).mean())


def balanced_accuracy(labels: Labels, found: Labels) -> float:
    """Return the mean over the classes that occur of the share of their samples that is predicted correctly."""
    return float(np.mean([float((found[labels == c] == c).mean()) for c in np.unique(labels)]))


def f1(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Return 2 TP / (2 TP + FP + FN); 0 if all three are 0."""
    both = int((truth & found).sum())
    return 2 * both / max(int(truth.sum()) + int(found.sum()), 1)


def roc_auc(positive: NDArray[np.bool_], values: Values) -> float:
    """Return the area under the ROC curve (Mann-Whitney, ties count half); NaN if a class is missing."""
    count = int(positive.sum())
    rest = len(positive) - count
    if not count or not rest:
        return float("nan")
    from scipy.stats import rankdata  # takes longer to load than anything else here, and a training needs none of it

    ranks = rankdata(values)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * rest))


def calibration_error(labels: Labels, probabilities: Values, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error: |accuracy - mean confidence|, averaged over equal bins of confidence.

    probabilities: (n, classes). Bins are open below and closed above (Guo et al., 2017).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    of = confidence_bins(confidence, bins)
    surplus = np.bincount(of, weights=right - confidence, minlength=bins)
    return float(np.abs(surplus).sum() / len(labels))


def confidence_bins(confidence: Values, bins: int = CALIBRATION_BINS) -> NDArray[np.int64]:
    """Return the bin index of each confidence in 0..1, (n,); bins are open below and closed above."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


@dataclass(frozen=True)
class Reliability:
    """One bin of confidence: the number of predictions, their mean confidence, and their accuracy."""

    count: int
    confidence: float
    accuracy: float


def reliability(labels: Labels, probabilities: Values, bins: int = CALIBRATION_BINS) -> list[Reliability]:
    """Return the non-empty bins of the calibration error by confidence (a reliability diagram)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    of = confidence_bins(confidence, bins)
    return [
        Reliability(int(held.sum()), float(confidence[held].mean()), float(right[held].mean()))
        for held in (of == number for number in np.unique(of))
    ]


def confusion(labels: Labels, found: Labels, classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix (classes, classes): rows are true classes, columns predicted ones."""
    counts = np.bincount(labels * classes + found, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def mean_of_defined(values: Values) -> Values:
    """Return the mean of each row over the defined columns, (n,); NaN if none is defined."""
    defined = ~np.isnan(values)
    means: Values = np.where(
        defined.any(1), np.where(defined, values, 0).sum(1) / np.maximum(defined.sum(1), 1), np.nan
    )
    return means
