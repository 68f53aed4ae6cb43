"""Probes on frozen features for images that do not have one class: ridge regression, one linear SVM for each class.

Both choose their penalty by cross-validation over groups, as the SVM for classes does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeCV

from mtrain.scoring import targets as scores
from mtrain.scoring.metrics import Labels, Values
from mtrain.scoring.predictions import Predictions
from mtrain.transfers import svm as machines
from mtrain.transfers.folds import group_folds
from mtrain.transfers.probes import Features, Probe

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
    folds = group_folds(sample.strata, sample.groups)
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
            sample.features, sample.target[:, number].astype(np.int64), sample.groups, classes=2, metric="roc_auc",
            solver=solver, device=sample.device,
        )
        for number in range(sample.target.shape[1]) if number not in constant
    }  # fmt: skip
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
