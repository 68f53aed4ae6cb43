"""A new probe for a target that the network was not trained on: logistic regression on frozen features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mtrain.influence.margins import Values
from mtrain.transfers.classifiers import probes
from mtrain.transfers.classifiers.probes import TrainingSet

ABSENT = -1e3  # logit of a class without training images: never predicted


@dataclass(frozen=True)
class FreshProbe:
    """A linear classifier on standardised features. weight: (classes, features + 1), with the bias last.

    penalty: coefficient of half the squared weights, which is added to the mean loss.
    """

    weight: Values
    mean: Values
    scale: Values
    penalty: float

    def head(self) -> tuple[Tensor, Tensor]:
        """Weight (classes, features) and bias (classes,) for features that are not standardised."""
        weight = self.weight[:, :-1] / self.scale
        bias = self.weight[:, -1] - weight @ self.mean
        return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()

    def gradients(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Gradients (n, classes x (features + 1)) of the margins in the probe's weights. With two classes, those of the
        second class alone.
        """
        x = np.append((features - self.mean) / self.scale, np.ones((len(features), 1)), axis=1)
        logits = x @ self.weight.T
        own = np.eye(len(self.weight))[labels]
        pull = own - softmax(np.where(own > 0, -np.inf, logits), axis=1)
        pull = pull[:, 1:] if len(self.weight) == 2 else pull
        found: NDArray[np.float32] = (pull[:, :, None] * x[:, None, :]).reshape(len(x), -1).astype(np.float32)
        return found


def fresh_probe(sample: TrainingSet) -> FreshProbe:
    """Fit a probe like `mtrain transfer --mode logistic`: cross-validation over groups chooses the penalty."""
    cost = float(probes.logistic(sample).settings["C"])
    mean = sample.features.mean(0, dtype=np.float64)
    deviation = sample.features.std(0, dtype=np.float64)
    scale = np.where(deviation > np.finfo(np.float32).eps * np.abs(mean), deviation, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the cross-validation has already reported this fit
        machine = LogisticRegression(C=cost, max_iter=2000).fit((sample.features - mean) / scale, sample.labels)
    rows = np.append(machine.coef_, machine.intercept_[:, None], axis=1)
    weight = np.zeros((sample.classes, rows.shape[1]))
    weight[np.setdiff1d(np.arange(sample.classes), machine.classes_), -1] = ABSENT
    if len(rows) == 1:
        weight[machine.classes_[1]] = rows[0]
    else:
        weight[machine.classes_] = rows
    return FreshProbe(weight, mean, scale, 1 / (cost * len(sample.labels)))
