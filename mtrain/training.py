"""A training under way: the model, its optimizer and the number of iterations done.

`Training.step` is one iteration of the paper. It depends on the state before it, the seed and its
number, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtrain import sampling
from mtrain.augment import flip
from mtrain.config import FitConfig
from mtrain.loader import Batch, Images, TrainingBatches, batches, ordered_batches
from mtrain.loss import scale_head_gradients, task_losses
from mtrain.network import MultiHead
from mtrain.pool import Pool, Task

VALIDATED = 512  # pictures of a task's validation set that a running training looks at


class Training:
    """`model` on its device, trained on the training sets of `pool`."""

    def __init__(self, config: FitConfig, pool: Pool, model: MultiHead, device: torch.device, done: int = 0) -> None:
        self.config, self.pool, self.model, self.device = config, pool, model, device
        self.iteration = done
        self.tasks = [task.name for task in pool.tasks]
        self.images = Images([(task, task.rows["train"]) for task in pool.tasks])
        self.optimizer = self._optimizer()

    @property
    def warming(self) -> bool:
        """Whether the next iteration trains the heads alone."""
        return self.iteration < self.config.warmup

    def step(self, batch: Batch) -> Tensor:
        """One iteration; the loss of each task, summed over its samples: (tasks,), on the device."""
        if self.iteration == self.config.warmup:  # what the heads gathered at the other rate is not carried on
            self.optimizer = self._optimizer()
        torch.manual_seed(sampling.model_seed(self.config.seed, self.iteration))
        counts = batch.counts.tolist()
        losses = self._losses(batch, counts)
        self.optimizer.zero_grad(set_to_none=True)
        (losses.sum() / sum(counts)).backward()
        scale_head_gradients(self.model.heads, counts)
        self.optimizer.step()
        self.iteration += 1
        return losses.detach()

    def _losses(self, batch: Batch, counts: list[int]) -> Tensor:
        """During the warm-up the shared network infers: no gradients, no update of its batch normalization."""
        self.model.shared.train(not self.warming)
        images = self.prepare(batch)
        labels = batch.labels.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            with torch.set_grad_enabled(not self.warming):
                features = self.model.shared(images)
            logits = self.model.head_logits(features, counts)
        return task_losses(logits, labels, counts, self.tasks)

    def _optimizer(self) -> torch.optim.Optimizer:
        config, heads = self.config, list(self.model.heads.parameters())
        if self.warming:
            groups: list[dict[str, Any]] = [{"params": heads, "lr": config.warmup_lr}]
        else:
            shared = list(self.model.shared.parameters())
            groups = [{"params": shared, "lr": config.lr}, {"params": heads, "lr": config.lr * config.tau}]
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)

    def prepare(self, batch: Batch) -> Tensor:
        """The pictures on the device: flipped, normalized, channels last."""
        images = batch.images.to(self.device, non_blocking=True)
        return self.model.shared.normalize(flip(images, batch.flips.to(self.device, non_blocking=True)))

    def drawn(self, numbers: range, stream: sampling.Stream = sampling.Stream.TRAIN) -> Iterator[Batch]:
        """The batches of these iterations."""
        config = self.config
        dataset = TrainingBatches(self.images, config.size, config.seed, range(config.batch), stream)
        return batches(dataset, numbers, workers=min(config.workers, len(numbers)), pin=self.device.type == "cuda")

    @torch.no_grad()
    def validate(self, enough: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Accuracy of each head on up to `VALIDATED` pictures of its task's validation set; None when cut short."""
        self.model.eval()
        found = {}
        for task in self.pool.tasks:
            if len(task.rows["val"]):
                accuracy = self._accuracy(task, enough)
                if accuracy is None:
                    return None
                found[task.name] = accuracy
        return found

    def _accuracy(self, task: Task, enough: Callable[[], bool]) -> float | None:
        config, shared, head = self.config, self.model.shared, self.model.heads[task.name]
        every = np.linspace(0, len(task.rows["val"]) - 1, min(len(task.rows["val"]), VALIDATED)).astype(int)
        rows, right = task.rows["val"].take(every), 0
        for images, places in ordered_batches(task, rows, size=config.size, batch=config.batch, workers=config.workers):
            if enough():
                return None
            logits = head(shared(shared.normalize(images.to(self.device))))
            right += int((logits.argmax(1).cpu().numpy() == rows.label[places]).sum())
        return right / len(rows)
