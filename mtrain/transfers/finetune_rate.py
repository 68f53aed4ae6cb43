"""Fine-tuning at one learning rate: a shared network and a training set in, the network of its best epoch out.

A batch depends only on seed, epoch and position. So a killed fine-tuning resumes from its last saved epoch, and ends
with the same bits as an undisturbed one.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpconvert.runtime.progress import Reporter
from mtrain.data import sampling
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import EpochBatches, OrderedBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches_on
from mtrain.data.labels import scaling_of
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.model import low_rank, tuning
from mtrain.model.devices import find_device
from mtrain.model.inference import Inference, outputs
from mtrain.model.loss import squared_error
from mtrain.model.network import SharedNetwork
from mtrain.model.weight_files.weights import StateDict
from mtrain.scoring import label_scores, metrics
from mtrain.scoring.metrics import Values
from mtrain.scoring.predictions import decided, truth_of
from mtrain.train import checkpoint
from mtrain.train.backward.exactness import exact_gradients, make_exact
from mtrain.train.optimizer import sgd

RATES = (1e-3, 1e-4, 1e-5, 1e-6)
CHECKPOINT_SECONDS = 20.0  # minimum time between checkpoints: epochs of small tasks take a second
INCIDENTAL = ("workers", "device")  # fields of a recipe that do not affect its result
OFF: dict[str, Any] = {"tune": "all", "layer_decay": None}  # choices that are off
BODY = "shared.body."
BEST, HISTORY = "best.", "history"


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune.

    early_stop: a rate ends after this many epochs without improvement; 0 for never. tune, layer_decay: what is trained
    of the network, and the factor on the rate from block to block, as in `FitConfig`.
    """

    epochs: int = 100
    rates: tuple[float, ...] = RATES
    batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 0.0
    seed: int = 0
    early_stop: int = 0
    size: int = 224
    workers: int = 2
    device: str = "auto"
    tune: str = "all"
    layer_decay: float | None = None

    def determining(self) -> dict[str, Any]:
        """What the result depends on. Choices that are off are left out, as they were before there were any."""
        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in INCIDENTAL}
        return {name: value for name, value in settings.items() if name not in OFF or value != OFF[name]}


@dataclass(frozen=True)
class Sets:
    """The samples to train on, and those that choose epoch and rate by `metric`. `notes` state how these differ from
    the task's own sets. fold: the number of the fold of the training set that is the validation set, if it has none.
    """

    train: Rows
    val: Rows
    metric: str
    notes: tuple[str, ...] = ()
    fold: int = 0


@dataclass(frozen=True)
class RateResult:
    """The result of one rate: its best epoch, counted from 1 (0 if none was finite), the score of that epoch, and
    [loss, score] of every epoch.
    """

    rate: float
    epoch: int
    score: float
    history: list[list[float]]
    diverged: bool = False


class LinearClassifier(nn.Module):
    """A shared network and a new linear layer."""

    def __init__(self, shared: SharedNetwork, classes: int) -> None:
        super().__init__()
        self.shared = shared
        self.head = nn.Linear(shared.num_features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalized (N, 3, H, W) -> logits (N, classes)."""
        logits: Tensor = self.head(self.shared(images))
        return logits


def new_classifier(start: SharedNetwork, task: Task, recipe: Recipe) -> LinearClassifier:
    """A copy of `start` on the device, with a new linear layer whose weights depend only on the seed."""
    device = find_device(recipe.device)
    torch.manual_seed(recipe.seed)
    model = LinearClassifier(copy.deepcopy(start).cpu(), task.outputs)
    return model.to(device).to(memory_format=torch.channels_last)


def logits(model: LinearClassifier, task: Task, rows: Rows, recipe: Recipe) -> Values:
    """The logits of these rows, in their order: (samples, classes)."""
    model.eval()
    shared = model.shared
    dataset = OrderedBatches(Images([(task, rows)], how=shared.interpolation), recipe.size, recipe.batch)
    found = [
        some.astype(float)
        for some in outputs(
            lambda images: model(shared.normalize(images)),
            dataset,
            Inference.on(model.head.weight.device),
            workers=recipe.workers,
            how=shared.interpolation,
        )
    ]
    return np.concatenate([np.empty((0, task.outputs)), *found])


class Tuning:
    """A fine-tuning in progress at one rate. `history` holds (loss, score) of each finished epoch, `best` the state
    after the best one.
    """

    def __init__(self, rate: float, start: SharedNetwork, task: Task, sets: Sets, recipe: Recipe) -> None:
        self.rate, self.task, self.sets, self.recipe = rate, task, sets, recipe
        self.model = new_classifier(start, task, recipe)
        self.device = self.model.head.weight.device
        tuning.prepare(self.model.shared.body, recipe.tune, start.name)
        self.optimizer = sgd(self._groups(), momentum=recipe.momentum, weight_decay=recipe.weight_decay)
        self.dataset = EpochBatches(
            Images([(task, sets.train)], how=start.interpolation, scaled=True), recipe.size, recipe.seed, recipe.batch
        )
        self.history: list[list[float]] = []
        self.best: StateDict = {}

    def _groups(self) -> list[dict[str, Any]]:
        """The trained parameters, with the rate of each layer; the new one has the whole rate."""
        model, decay = self.model, self.recipe.layer_decay
        if decay is None:
            return [{"params": [p for p in model.parameters() if p.requires_grad], "lr": self.rate}]
        layers = tuning.by_layer(model.shared.body, decay, model.shared.name)
        head = {"params": list(model.head.parameters()), "lr": self.rate}
        return [head, *({"params": own, "lr": self.rate * factor} for factor, own in layers)]

    @property
    def best_epoch(self) -> int:
        """The number of the best epoch, counted from 1; of equally good ones, the first. 0 if no epoch is finished."""
        return int(np.argmax([score for _, score in self.history])) + 1 if self.history else 0

    @property
    def over(self) -> bool:
        """Whether the last epoch is finished, or the scores have stopped improving."""
        done, patience = len(self.history), self.recipe.early_stop
        return done >= self.recipe.epochs or 0 < patience <= done - self.best_epoch

    def run(self, folder: Path, report: Reporter) -> RateResult:
        """Run the remaining epochs, with checkpoints in `folder`."""
        make_exact(self.model.shared, self.recipe.size, self.device, report.note)
        saved, done = time.monotonic(), len(self.history)
        title = f"{self.task.name}: fine-tuning at {self.rate:g}"
        with report.bar(title, self.recipe.epochs, done=done, unit="epochs") as advance:
            for loss in self._epochs():
                if not self._end_epoch(loss):
                    return self._outcome(diverged=True)
                advance()
                if self.over:
                    break
                if time.monotonic() - saved >= CHECKPOINT_SECONDS:
                    checkpoint.save(folder, len(self.history), self.state(), checkpoint.owner(folder))
                    saved = time.monotonic()
        return self._outcome()

    def _epochs(self) -> Iterator[float]:
        """Yield the mean loss of each epoch when it ends. All epochs share one stream of batches and its workers."""
        parts, losses = self.dataset.parts, []
        last = len(self.history) if self.over else self.recipe.epochs
        numbers = range(len(self.history) * parts, last * parts)
        drawn = batches_on(self.device, self.dataset, numbers, workers=self.recipe.workers)
        for number, batch in zip(numbers, drawn, strict=False):
            losses.append(self._step(number, batch) * len(batch.labels))
            if len(losses) == parts:
                yield float(torch.stack(losses).sum()) / len(self.sets.train)
                losses = []

    def _step(self, number: int, batch: Batch) -> Tensor:
        """Train on batch `number`, counted over all epochs. Returns its mean loss."""
        torch.manual_seed(sampling.model_seed(self.recipe.seed, number))
        self.model.train()
        self.model.shared.train(self.recipe.tune != "heads")  # frozen layers do not change their statistics
        images = batch.to(self.device).images(self.recipe.size, self.model.shared.interpolation)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            found = self.model(self.model.shared.normalize(images))
        loss = self._loss(found.float(), batch)
        self.optimizer.zero_grad(set_to_none=True)
        with exact_gradients(self.model.shared):
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def _loss(self, found: Tensor, batch: Batch) -> Tensor:
        """The mean loss, as in the training of the shared network (mtrain.model.loss)."""
        if self.task.target == "class":
            return F.cross_entropy(found, batch.labels.to(self.device, non_blocking=True))
        wanted = batch.targets.to(self.device, non_blocking=True)
        if self.task.target == "labels":
            return F.binary_cross_entropy_with_logits(found, wanted) / math.log(2)
        return squared_error(found - wanted).mean()

    def _score(self) -> float:
        """The score on the set that chooses; -1 if it is not defined, as for equal predictions of numbers."""
        values, val = logits(self.model, self.task, self.sets.val, self.recipe), self.sets.val
        if self.task.target == "class":
            return metrics.score(self.sets.metric, val.label, metrics.decisions_of(values))
        found = decided(self.task, values, scaling_of(self.task))
        score = label_scores.score(self.sets.metric, truth_of(self.task, val), found)
        return -1.0 if math.isnan(score) else score

    def _end_epoch(self, loss: float) -> bool:
        """Score the epoch, and keep its state if it is the best so far. Returns False if training has diverged."""
        state = self.model.state_dict()
        if not math.isfinite(loss) or not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            return False
        self.history.append([loss, self._score()])
        if self.best_epoch == len(self.history):
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        return True

    def _outcome(self, diverged: bool = False) -> RateResult:
        score = self.history[self.best_epoch - 1][1] if self.history else -1.0
        return RateResult(self.rate, self.best_epoch, score, self.history, diverged)

    def merged(self) -> StateDict:
        """The best state as that of a plain network, with low-rank updates merged into the weights."""
        self.model.load_state_dict(self.best)
        body = {f"{BODY}{name}": tensor for name, tensor in low_rank.merged_state(self.model.shared.body).items()}
        return body | {name: tensor for name, tensor in self.best.items() if not name.startswith(BODY)}

    def state(self) -> StateDict:
        """Everything that the next epoch depends on, and the best state so far."""
        best = {BEST + name: tensor for name, tensor in self.best.items()}
        history = torch.tensor(self.history, dtype=torch.float64).reshape(-1, 2)
        return checkpoint.training_state(self.model, self.optimizer) | best | {HISTORY: history}

    def restore(self, state: StateDict) -> None:
        """The inverse of `state`."""
        checkpoint.restore(self.model, self.optimizer, state)
        self.best = {name.removeprefix(BEST): tensor for name, tensor in state.items() if name.startswith(BEST)}
        self.history = state[HISTORY].tolist()
