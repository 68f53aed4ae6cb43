"""Probes on frozen features for images that do not have one class: ridge regression, one linear SVM for each class.

Both choose their penalty by cross-validation over groups, as the SVM for classes does. Few-shot scores are those of the
mean of the nearest training images, which has no hyper-parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import RidgeCV

from mtrain.data import sampling
from mtrain.scoring import label_scores as scores
from mtrain.scoring.metrics import Labels, Values
from mtrain.scoring.predictions import Predictions
from mtrain.transfers.classifiers import svm as machines
from mtrain.transfers.classifiers.folds import group_folds
from mtrain.transfers.classifiers.probes import DRAWS, TEMPERATURE, Features, Probe

IMAGES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)  # for few-shot, in all
ALPHAS = tuple(10.0**e for e in range(-2, 7))


@dataclass(frozen=True)
class TargetSet:
    """The samples that a probe is trained on. target: (n, outputs), as in `Rows`. strata: what folds spread evenly."""

    features: Features
    target: Values
    groups: Sequence[str]
    strata: Labels
    classes: Sequence[str] = ()
    device: str = "auto"


def ridge(sample: TargetSet) -> Probe:
    """Ridge regression on standardized features; the penalty has the smallest squared error over folds of groups."""
    mean, scale = sample.features.mean(axis=0), sample.features.std(axis=0)
    scale = np.where(scale > 0, scale, 1)
    x, y = ((sample.features - mean) / scale).astype(np.float64), sample.target[:, 0]
    folds = group_folds(sample.strata, sample.groups, of="fifths of the numbers", choice="alpha")
    parts = [(np.flatnonzero(folds.of != k), np.flatnonzero(folds.of == k)) for k in range(folds.count)]
    machine = RidgeCV(alphas=ALPHAS, cv=parts, scoring="neg_mean_squared_error").fit(x, y)
    alpha = float(machine.alpha_)
    out = np.full(len(y), np.nan)
    for train, held in parts:
        out[held] = RidgeCV(alphas=[alpha]).fit(x[train], y[train]).predict(x[held])

    def answer(features: Features) -> Predictions:
        return Predictions(machine.predict(((features - mean) / scale).astype(np.float64)))

    notes = ("numbers: ridge regression takes the place of the SVM", *folds.notes)
    return Probe(answer, {"alpha": alpha}, scores.score(scores.PEARSON, y, out), notes)


def one_against_rest(sample: TargetSet, solver: str) -> Probe:
    """A linear SVM for each class, each with its own C. A class that all training samples have, or none, has the same
    decision value everywhere, as a note says.
    """
    constant = scores.undefined_classes(sample.target)
    found = {
        number: machines.fit(
            sample.features,
            sample.target[:, number].astype(np.int64),
            sample.groups,
            classes=2,
            metric="roc_auc",
            solver=solver,
            device=sample.device,
        )
        for number in range(sample.target.shape[1])
        if number not in constant
    }
    always = sample.target[0] * 2 - 1

    def answer(features: Features) -> Predictions:
        values = np.tile(always, (len(features), 1))
        for number, fitted in found.items():
            values[:, number] = fitted.decisions(features)
        return Predictions(values)

    names = list(sample.classes) or [str(number) for number in range(sample.target.shape[1])]
    notes = [f"{names[n]!r}: all training samples have it, or none: nothing to learn" for n in constant]
    notes += dict.fromkeys(note for fitted in found.values() for note in fitted.notes)
    cv = [fitted.cv[fitted.cost] for fitted in found.values()]
    settings = {"costs": {names[number]: fitted.cost for number, fitted in found.items()}}
    return Probe(answer, settings, float(np.nanmean(cv)) if not np.isnan(cv).all() else float("nan"), tuple(notes))


def few_shot(
    sample: TargetSet, queries: Features, truth: Values, metric: str, *, seed: int, draws: int = DRAWS
) -> list[dict[str, Any]]:
    """Return scores on (queries, truth) after training on k images in all, for each k and several draws.

    The answer is the mean of the targets of the k images, weighted by exp(cosine / 0.07) of centred features of unit
    length, as the neighbours of mode `knn` vote. Draw d consists of the first k images in epoch d of `sampling`.
    truth: (n, classes), or numbers (n,). A score that a draw does not define is left out of the mean.
    """
    curve = []
    for k in [k for k in IMAGES if k <= len(sample.target)] or [len(sample.target)]:
        found = []
        for number in range(draws):
            picked = sampling.epoch(len(sample.target), seed, number).row[:k]
            means = weighted_mean(sample.features[picked], sample.target[picked], queries)
            found.append(scores.score(metric, truth, means[:, 0] if truth.ndim == 1 else 2 * means - 1))
        known = [one for one in found if not np.isnan(one)]
        mean = float(np.mean(known)) if known else float("nan")
        deviation = float(np.std(known, ddof=1)) if len(known) > 1 else None
        curve.append({"k": k, "n_train": k, "mean": mean, "std": deviation, "scores": found, "of": "images"})
    return curve


def weighted_mean(features: Features, target: Values, queries: Features) -> Values:
    """Return the mean of the targets (k, outputs) for each of the queries, weighted by exp(cosine / 0.07)."""
    centre = features.mean(axis=0, dtype=np.float64)
    x, q = (unit_rows(part - centre) for part in (features, queries))
    weights: Values = softmax(q @ x.T / TEMPERATURE, axis=1)
    return weights @ target


def unit_rows(values: Values) -> Values:
    """Return rows of length 1; rows of zeros stay."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)
