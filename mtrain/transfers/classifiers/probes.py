"""Classifiers on frozen features: SVM, logistic regression, nearest neighbours and few-shot.

Features (n, d), labels and groups in, a `Probe` out, which classifies other features. Hyper-parameters are chosen by
cross-validation over groups.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mtrain.data import sampling
from mtrain.errors import UsageError
from mtrain.model.devices import find_device
from mtrain.scoring import metrics
from mtrain.scoring.metrics import Labels, Values
from mtrain.scoring.predictions import Predictions
from mtrain.transfers.classifiers import svm as machines
from mtrain.transfers.classifiers.folds import Folds, group_folds, mean_score, undecided

INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FINAL_TOLERANCE = 1e-6  # on the gradient; the scores of the folds need no more than the default
LEAST = 1e-6  # probability that counts in a log loss
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07  # of the votes (Wu et al., "Unsupervised feature learning via instance discrimination")
SHOTS = (1, 2, 4, 8, 16, 32, 64, 128)
DRAWS = 10
ROWS_AT_ONCE = 2048

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Probe:
    """A trained classifier. `settings`: the chosen hyper-parameters. `score`: their mean over the folds, or NaN."""

    answer: Callable[[Features], Predictions]
    settings: dict[str, Any]
    score: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TrainingSet:
    """The samples that a probe is trained on."""

    features: Features
    labels: Labels
    groups: Sequence[str]
    classes: int
    metric: str
    device: str = "auto"

    def __post_init__(self) -> None:
        if len(np.unique(self.labels)) < 2:
            raise UsageError("the training data hold a single class, so no classifier can be trained")


def svm(sample: TrainingSet, solver: str = "batched") -> Probe:
    """The paper's linear SVM (mtrain.transfers.classifiers.svm)."""
    found = machines.fit(
        sample.features,
        sample.labels,
        sample.groups,
        classes=sample.classes,
        metric=sample.metric,
        solver=solver,
        device=sample.device,
    )
    settings = {"C": found.cost, "cv": {str(cost): value for cost, value in found.cv.items()}}
    return Probe(lambda features: Predictions(found.decisions(features)), settings, found.cv[found.cost], found.notes)


@dataclass(frozen=True)
class HeldOut:
    """Logistic regression by cross-validation over groups. logits (penalties, n, classes): of each sample, by a
    classifier that was trained without its fold, for each of INVERSE_PENALTIES. late: fits that did not converge.
    """

    logits: Values
    folds: Folds
    late: int


def held_out_logistic(sample: TrainingSet) -> HeldOut:
    """Logits out of fold, by L2-regularised multinomial logistic regression on standardised features."""
    mean, scale = _standard(sample.features)
    x, y = (sample.features - mean) / scale, sample.labels
    folds = group_folds(y, sample.groups)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        logits = np.full((len(INVERSE_PENALTIES), len(y), sample.classes), np.nan)
        for k in range(folds.count):
            out = folds.of == k
            for number, values in enumerate(_logistic_path(x[~out], y[~out], x[out], sample.classes)):
                logits[number, out] = values
    return HeldOut(logits, folds, _late(caught))


def held_out_probabilities(sample: TrainingSet) -> tuple[Values, tuple[str, ...]]:
    """Probabilities (n, classes) of each sample out of fold, by the penalty with the smallest log loss; and notes."""
    found = held_out_logistic(sample)
    probabilities = softmax(found.logits, axis=2)
    own = probabilities[:, np.arange(len(sample.labels)), sample.labels]
    best = int(np.argmin(-np.log(np.maximum(own, LEAST)).mean(axis=1)))
    return probabilities[best], (*found.folds.notes, *_not_converged(found.late))


def logistic(sample: TrainingSet) -> Probe:
    """L2-regularised multinomial logistic regression on standardised features, C by cross-validation."""
    found = held_out_logistic(sample)
    decisions = [metrics.decisions_of(values) for values in found.logits]
    chosen, cv = _chosen(sample, INVERSE_PENALTIES, decisions, found.folds, INVERSE_PENALTIES[-1])
    mean, scale = _standard(sample.features)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        machine = LogisticRegression(C=chosen, max_iter=2000, tol=FINAL_TOLERANCE)
        machine.fit((sample.features - mean) / scale, sample.labels)
    notes = (*found.folds.notes, *undecided("C", cv, chosen), *_not_converged(found.late + _late(caught)))

    def answer(features: Features) -> Predictions:
        logits = _logits(machine, (features - mean) / scale, sample.classes)
        return Predictions(metrics.decisions_of(logits), softmax(logits, axis=1))

    return Probe(answer, {"C": chosen, "cv": cv}, cv[str(chosen)], notes)


def _late(caught: Sequence[warnings.WarningMessage]) -> int:
    return sum(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def _not_converged(late: int) -> list[str]:
    return [f"{late} logistic fits did not converge"] if late else []


def knn(sample: TrainingSet) -> Probe:
    """The k nearest neighbours by cosine similarity, each voting with exp(cosine / 0.07); k by cross-validation."""
    device = find_device(sample.device)
    x = _unit(torch.from_numpy(np.asarray(sample.features, np.float32)).to(device))
    y = torch.from_numpy(sample.labels).to(device)
    folds = group_folds(sample.labels, sample.groups, choice="k")
    fold = torch.from_numpy(folds.of).to(device)
    available = len(y) - int(np.bincount(folds.of).max())
    choices = [k for k in NEIGHBOURS if k <= available] or [1]
    votes = _votes(x, fold, x, fold, y, sample.classes, choices)
    chosen, cv = _chosen(sample, choices, [metrics.decisions_of(values) for values in votes], folds, choices[0])
    nowhere = torch.full_like(fold, -1)

    def answer(features: Features) -> Predictions:
        queries = _unit(torch.from_numpy(np.array(features, np.float32)).to(device))
        (found,) = _votes(queries, nowhere[:1].expand(len(queries)), x, fold, y, sample.classes, [int(chosen)])
        return Predictions(metrics.decisions_of(found), found)

    notes = (*folds.notes, *undecided("k", cv, chosen))
    return Probe(answer, {"k": int(chosen), "cv": cv}, cv[str(chosen)], notes)


def few_shot(
    sample: TrainingSet,
    features: Features,
    labels: Labels,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Scores on (features, labels) after training on k images per class, for each k and several draws.

    The classifier has no hyper-parameters: it takes the nearest class mean of centred features of unit length (Wang et
    al., "SimpleShot", 2019). Draw d consists of the first k images of each class in epoch d of `sampling`, so a larger
    k extends a smaller one.
    """
    counts = np.bincount(sample.labels, minlength=sample.classes)
    used = [k for k in shots if k <= counts.max()]
    short = [n for n in counts if n < max(used, default=0)]
    verb = "has" if len(short) == 1 else "have"
    few_of = f"{len(short)} of {sample.classes} classes {verb} fewer than {max(used, default=0)} training images"
    notes = [f"{few_of} (the smallest {min(short)}): all of theirs are used"] if short else []
    curve = []
    for k in used:
        scores, sizes = [], []
        for number in range(draws):
            picked = few(sample.labels, k, seed, number)
            decisions = nearest_mean(sample.features[picked], sample.labels[picked], features, sample.classes)
            scores.append(metrics.score(sample.metric, labels, decisions))
            sizes.append(len(picked))
        deviation = float(np.std(scores, ddof=1)) if draws > 1 else None
        curve.append({"k": k, "n_train": sizes[0], "mean": float(np.mean(scores)), "std": deviation, "scores": scores})
    return curve, tuple(notes)


def few(labels: Labels, k: int, seed: int, number: int) -> NDArray[np.int64]:
    """Rows of the first k images of each class (or of all, if there are fewer), in the order of epoch `number`."""
    order = sampling.epoch(len(labels), seed, number).row
    return np.concatenate([order[labels[order] == c][:k] for c in np.unique(labels)])


def nearest_mean(features: Features, labels: Labels, queries: Features, classes: int) -> Values:
    """Decision values: minus the squared distance to the mean of each class; -inf for a class without samples."""
    centre = features.mean(0, dtype=np.float64)
    x, q = (_unit(torch.from_numpy(part - centre)).numpy() for part in (features, queries))
    values = np.full((len(queries), classes), -np.inf)
    for c in np.unique(labels):
        mean = x[labels == c].mean(0)
        values[:, c] = 2 * (q @ mean) - mean @ mean - 1
    return metrics.decisions_of(values)


def _chosen(
    sample: TrainingSet, candidates: Sequence[float], held_out: Sequence[Values], folds: Folds, otherwise: float
) -> tuple[float, dict[str, float]]:
    """The candidate with the best mean score over the folds (of equally good ones, the first), and all scores.

    otherwise: the candidate to take if no fold can be scored.
    """
    scores = [mean_score(sample.metric, sample.labels, values, folds) for values in held_out]
    cv = {str(c): value for c, value in zip(candidates, scores, strict=True)}
    if np.isnan(scores).all():
        return otherwise, cv
    rounded = [-np.inf if np.isnan(value) else round(value, 12) for value in scores]
    return candidates[int(np.argmax(rounded))], cv


def _logistic_path(x: Values, y: Labels, queries: Values, classes: int) -> Iterator[Values]:
    """Logits of `queries` for each inverse penalty. Each fit starts from the result of the previous one."""
    machine = LogisticRegression(warm_start=True, max_iter=2000)
    for penalty in INVERSE_PENALTIES:
        if len(np.unique(y)) < 2:  # only one class is left to train on in this fold
            logits = np.full((len(queries), classes), -np.inf)
            logits[:, y[0]] = 0
            yield logits
        else:
            yield _logits(machine.set_params(C=penalty).fit(x, y), queries, classes)


def _logits(machine: LogisticRegression, x: Values, classes: int) -> Values:
    """Logits (n, classes), with -inf for classes that the classifier has not seen."""
    values = machine.decision_function(x)
    logits = np.full((len(x), classes), -np.inf)
    logits[:, machine.classes_] = np.stack([np.zeros(len(x)), values], axis=1) if values.ndim == 1 else values
    return logits


def _votes(
    queries: Tensor, query_fold: Tensor, x: Tensor, fold: Tensor, y: Tensor, classes: int, choices: Sequence[int]
) -> list[Values]:
    """Shares of the votes (n, classes) for each number of neighbours; neighbours in the same fold do not vote."""
    most = min(max(choices), len(x))
    blocks = []
    for rows in torch.split(torch.arange(len(queries), device=x.device), ROWS_AT_ONCE):
        cosine = queries[rows] @ x.T
        cosine[query_fold[rows, None] == fold] = -torch.inf
        near, which = cosine.topk(most, dim=1)
        weights = ((near - near[:, :1]).double() / TEMPERATURE).exp()
        ballots = torch.zeros(*near.shape, classes, dtype=torch.float64, device=x.device)
        gathered = ballots.scatter_(2, y[which][..., None], weights[..., None]).cumsum(1)
        blocks.append(gathered[:, [min(k, most) - 1 for k in choices]])
    votes = torch.cat(blocks).cpu().numpy()
    return [votes[:, i] / votes[:, i].sum(1, keepdims=True) for i in range(len(choices))]


def _standard(features: Features) -> tuple[Values, Values]:
    """Mean and standard deviation of each feature; the latter is 1 for features that vary only by rounding."""
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    return mean, np.where(deviation > np.finfo(np.float32).eps * np.abs(mean), deviation, 1.0)


def _unit(x: Tensor) -> Tensor:
    """Rows scaled to unit length; first by powers of two, so that the squares neither overflow nor underflow."""
    _, exponent = torch.frexp(x.abs().amax(dim=1, keepdim=True))
    return torch.nn.functional.normalize(torch.ldexp(x, -exponent), dim=1)
