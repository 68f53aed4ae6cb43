"""Training of the heads on features that the frozen shared network computes once (`--tune heads --features cached`).

Each iteration draws the images that it draws with `--features online`, but reads their features from a table: those of
their central squares, without random crops and flips. The tables are kept beside the runs, one file per task, under a
digest of the network, the images and the size, so that resumed runs and the cells of a sweep share them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dpconvert.runtime.progress import Reporter
from mtrain.data import sampling
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import BatchDraw, TrainingBatches
from mtrain.data.batches.sending import without_waiting
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.disk.documents import short_digest
from mtrain.model.frozen import Features, check_features, computed, store, stored, weights_digest
from mtrain.model.inference import Inference
from mtrain.train.trainer import Training
from mtrain.train.validation import right, validated

CACHE = ".features"  # folder beside the runs


class HeadTraining(Training):
    """A training whose batches hold features: `pixels` of a batch are float32 (N, num_features). It has one rank."""

    train: tuple[Tensor, ...] = ()  # of each task's training set: (rows, num_features), memory-mapped
    val: dict[str, Tensor]  # of the images that the training is validated on, by task

    def read_features(self, folder: Path, report: Reporter) -> None:
        """Read the features of all images from `folder`; those that are missing are computed first.

        Raises:
            DivergedError: no classifier can use the features.
            ShardError: an image cannot be read.
            RunError: the features cannot be written.
        """
        shared = self.model.shared
        what = f"{weights_digest(shared)} {self.config.size} centre-square {self.how} {self.device.type}"
        what += Inference.on(self.device).precision
        tasks = self.pool.tasks
        self.train = tuple(
            torch.from_numpy(self._read(task, task.rows["train"], "train", folder, what, report)) for task in tasks
        )
        self.val = {}
        for task in tasks if self.config.validate_every else ():
            if len(task.rows["val"]):
                rows = task.rows["val"].take(validated(task))
                self.val[task.name] = torch.from_numpy(self._read(task, rows, "val", folder, what, report))

    def _read(self, task: Task, rows: Rows, split: str, folder: Path, what: str, report: Reporter) -> Features:
        images = hashlib.sha256(np.ascontiguousarray(rows.sha256).tobytes()).hexdigest()
        path = folder / f"{task.name}-{short_digest(f'{what} {images}')}.safetensors"
        shape = (len(rows), self.model.shared.num_features)
        found = stored(path, shape, "float32", report)
        if found is None:
            found = computed(
                self.model.shared,
                task,
                rows,
                split,
                size=self.config.size,
                workers=self.config.workers,
                inference=Inference.on(self.device),
                report=report,
            )
            check_features(found, task, rows, split, self.config.weights)
            store(path, found, task, split)
            found = stored(path, shape, "float32", report)
            assert found is not None
        return found

    def waited(self) -> float:
        """The time: all that reading features from the tables takes counts as waiting."""
        return time.monotonic()

    def drawn(
        self, numbers: range, stream: sampling.Stream = sampling.Stream.TRAIN, slots: Sequence[range] | None = None
    ) -> Iterator[Batch]:
        """The features of the images that these iterations draw, as micro-batches."""
        parts = [self._batches(part, stream) for part in slots or self.slots]
        for number in numbers:
            for part in parts:
                assert isinstance(part, TrainingBatches)
                yield self._looked_up(part.drawn(number))

    def _looked_up(self, drawn: BatchDraw) -> Batch:
        images, index = self.images, drawn.index
        assert images is not None
        of_task = images.task_of(index)
        counts = np.bincount(of_task, minlength=len(self.tasks))
        rows = np.split(index - images.starts[of_task], np.cumsum(counts)[:-1])  # the index is in the order of tasks
        features = [table[torch.from_numpy(some)] for table, some in zip(self.train, rows, strict=True)]
        return Batch.room(0, self.config.size, len(self.tasks))._replace(
            pixels=torch.cat(features),
            labels=torch.from_numpy(images.label[index]),
            counts=torch.from_numpy(counts),
            targets=torch.from_numpy(images.targets(index)),
        )

    def prepare(self, batch: Batch) -> Tensor:
        """The features on the device."""
        return without_waiting(batch.pixels, self.device)

    def _features_and_maps(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return images, ()

    def count_correct(self, task: Task, rows: Rows, enough: Callable[[], bool]) -> int | None:
        """The same, from the features that were read."""
        if enough():
            return None
        logits = self.model.heads[task.name](self.val[task.name].to(self.device))
        return right(logits.cpu().numpy(), rows)
