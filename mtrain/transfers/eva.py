"""The frozen recipe of the benchmark kaiko-eva: features of training and validation in, a linear layer out.

Read in kaiko-eva 0.4.5 and its offline configurations of patch classification: one linear layer on frozen features,
12 500 steps of AdamW at 3e-4 with PyTorch's other defaults, batches of 256, epochs in random order. After each epoch,
the balanced accuracy on the validation set chooses the layer; training ends early after a fifth of the largest possible
number of epochs without improvement. In the first five epochs the rate is a third, as the configurations name no
schedule and the default is torch.optim.lr_scheduler.ConstantLR. Two classes have one logit and binary cross-entropy.
A score is the mean of five runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import Tensor, nn
from torch.nn import functional as F

from dpconvert.runtime.progress import Reporter
from mtrain.data import sampling
from mtrain.errors import DivergedError
from mtrain.model.devices import find_device
from mtrain.scoring import metrics
from mtrain.scoring.metrics import Labels, Values
from mtrain.scoring.predictions import Predictions

METRIC = "balanced_accuracy"
RUNS = 5

Features = NDArray[np.float32]


@dataclass(frozen=True)
class EvaRecipe:
    """The recipe. `patience`: share of the largest possible number of epochs without improvement that ends a run."""

    steps: int = 12_500
    rate: float = 3e-4
    batch: int = 256
    patience: float = 0.2

    def epochs(self, samples: int) -> int:
        """The largest number of epochs: those that the steps complete, and at least one."""
        return max(1, self.steps // self.steps_per_epoch(samples))

    def steps_per_epoch(self, samples: int) -> int:
        return math.ceil(samples / self.batch)

    def patience_epochs(self, samples: int) -> int:
        """Epochs without improvement that end a run: 1 250 for BACH, 500 for BreaKHis, 7 for NCT-CRC-HE."""
        return math.ceil(round(self.patience * self.steps / self.steps_per_epoch(samples), 9))


RECIPE = EvaRecipe()


@dataclass(frozen=True)
class EvaSet:
    """Features (n, d) and labels (n,) of one set."""

    features: Features
    labels: Labels


@dataclass(frozen=True)
class LinearLayer:
    """A trained layer: weight (k, d) and bias (k,), k = 1 for two classes; its epoch, counted from 1, and its score.

    epochs: the number of epochs that were trained.
    """

    weight: Values
    bias: Values
    epoch: int
    score: float
    epochs: int

    def answer(self, features: Features) -> Predictions:
        """The predictions for features (n, d)."""
        logits = np.asarray(features, np.float64) @ self.weight.T + self.bias
        if logits.shape[1] > 1:
            return Predictions(logits, softmax(logits, axis=1))
        positive = expit(logits[:, 0])
        return Predictions(logits[:, 0], np.stack([1 - positive, positive], axis=1))


def train(
    train: EvaSet, val: EvaSet, classes: int, seed: int, device: str, report: Reporter, recipe: EvaRecipe | None = None
) -> LinearLayer:
    """The layer with the highest balanced accuracy on `val`, of equal ones the first.

    Initial weights and the order of the samples depend only on the seed.

    Raises:
        DivergedError: the loss is not finite.
    """
    recipe, place = recipe or RECIPE, find_device(device)
    layer = _new_layer(train.features.shape[1], classes, seed).to(place)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    x, y = _on(train.features, place), torch.from_numpy(train.labels).to(place)
    queries, samples = _on(val.features, place), len(train.labels)
    best = LinearLayer(np.empty(0), np.empty(0), 0, -1.0, 0)
    with report.bar(f"eva, seed {seed}", recipe.epochs(samples), unit="epochs") as advance:
        for epoch in range(1, recipe.epochs(samples) + 1):
            order = sampling.epoch(samples, seed, epoch - 1).row
            _epoch(layer, optimizer, x, y, torch.from_numpy(order).to(place), recipe)
            schedule.step()
            score = _score(layer, queries, val.labels)
            if score > best.score:
                best = _kept(layer, epoch, score)
            advance(1, f"best {best.score:.3f}")
            if epoch - best.epoch >= recipe.patience_epochs(samples):
                break
    return LinearLayer(best.weight, best.bias, best.epoch, best.score, epoch)


def _new_layer(inputs: int, classes: int, seed: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(inputs, 1 if classes == 2 else classes)


def _on(features: Features, place: torch.device) -> Tensor:
    return torch.from_numpy(np.array(features, np.float32)).to(place)


def _epoch(
    layer: nn.Linear, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, order: Tensor, recipe: EvaRecipe
) -> None:
    for rows in torch.split(order, recipe.batch)[: recipe.steps]:
        optimizer.zero_grad()
        loss = _loss(layer(x[rows]), y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if not math.isfinite(loss.item()):
        raise DivergedError("the loss of --mode eva is not finite", remedy="these features are too large for its rate")


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


@torch.inference_mode()
def _score(layer: nn.Linear, features: Tensor, labels: Labels) -> float:
    logits = layer(features).cpu().numpy()
    return metrics.balanced_accuracy(labels, metrics.predicted(logits[:, 0] if logits.shape[1] == 1 else logits))


def _kept(layer: nn.Linear, epoch: int, score: float) -> LinearLayer:
    weight, bias = (part.detach().cpu().numpy().astype(np.float64) for part in (layer.weight, layer.bias))
    return LinearLayer(weight, bias, epoch, score, epoch)
