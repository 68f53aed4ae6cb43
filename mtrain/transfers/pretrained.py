"""The network and options of a transfer, its result, and the transfers that are refused."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpconvert.runtime.progress import Reporter
from mtrain.data.labels import constant
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.errors import UsageError
from mtrain.model.frozen import Features
from mtrain.model.network import SharedNetwork
from mtrain.model.weight_files.weights import seen_by
from mtrain.runs.run_folder import Run
from mtrain.runs.seen import Seen
from mtrain.scoring.dense_counts import DenseAnswers
from mtrain.scoring.predictions import Predictions
from mtrain.transfers.dense.dense_tuned import Moving
from mtrain.transfers.features import features
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.request import OF_TARGETS, OWN, SINGLE, STEPS

FROZEN = ("svm", "logistic", "knn", "dense")


@dataclass(frozen=True)
class Pretrained:
    """A network to transfer from. `weights`: the origin of its weights ("run", "imagenet", "random" or a file)."""

    run: Run
    weights: str
    network: SharedNetwork
    digest: str

    @property
    def seen(self) -> Seen:
        """What the weights were trained on."""
        return self.run.seen() if self.weights == OWN else seen_by(self.weights, self.run.network())

    @property
    def origin(self) -> str:
        """The origin of the weights, for messages."""
        return str(self.run.weights) if self.weights == OWN else self.weights

    @property
    def label(self) -> str:
        """The weights in names of files; with a digest where one name may stand for several, as for random ones."""
        return self.weights if self.weights in SINGLE else f"{Path(self.weights).stem}-{self.digest[:8]}"

    @property
    def cache(self) -> Path:
        """The folder of cached features. It is beside the runs, which share the features of the ImageNet weights."""
        return self.run.path.parent / ".features"

    def features(
        self, task: Task, split: str, *, workers: int, report: Reporter, device: str = "auto", dtype: str = "float32"
    ) -> Features:
        """The features of one split, (samples, num_features), of images of the size that the run was trained at.

        Raises: as mtrain.transfers.features.features.
        """
        return features(
            self.network,
            task,
            split,
            size=self.run.config().size,
            cache=self.cache,
            workers=workers,
            report=report,
            dtype=dtype,
            device=device,
            weights=self.origin,
        )


@dataclass(frozen=True)
class TransferOptions:
    """How to transfer. `final`: score on the test set, which only tasks from `mtrain.data.task.with_test` have.

    steps, moving: of `dense`: its training steps, and what it trains of the network.
    """

    mode: str = "svm"
    final: bool = False
    solver: str = "batched"
    workers: int = 2
    recipe: Recipe = field(default_factory=Recipe)
    steps: int = STEPS
    moving: Moving = field(default_factory=Moving)

    @property
    def scored(self) -> str:
        return "test" if self.final else "val"


@dataclass(frozen=True)
class Transferred:
    """The result of a transfer: predictions for the `rows` of the scored set, or only a `score`.

    metric: its name where it is not the task's own. scored: what a result without predictions states of the scored
    samples. counts: those of each sample, for masks and points.
    """

    set: str
    trained_on: dict[str, int]
    settings: dict[str, Any]
    notes: tuple[str, ...]
    answered: tuple[Rows, Predictions] | None = None
    score: float | None = None
    metric: str | None = None
    scored: dict[str, Any] = field(default_factory=dict)
    counts: DenseAnswers | None = None


def check_sets(task: Task, options: TransferOptions) -> None:
    """Raises:
    UsageError: the task lacks a set that this mode needs.
    """
    assert not options.final or "test" in task.rows, "only the final steps open test sets"
    for split, needed in (("train", True), ("test", options.final)):
        if needed and not len(task.rows[split]):
            raise UsageError(f"this task has no {split} set", where=task.folder, remedy="choose another --target")
    if options.mode == "dense" and (why := task.why_not_dense) is not None:
        raise UsageError(why[0], where=task.folder, remedy=f"{why[1]}; or use another --mode")
    parts = ("train", "val") if options.final and options.mode in FROZEN else ("train",)
    if task.target != "class" and options.mode not in OF_TARGETS:
        kind = f"kind {task.card.kind!r}: its images do not have one class each"
        raise UsageError(
            f"--mode {options.mode} cannot score {task.name}, of {kind}",
            where=task.folder,
            remedy=f"use --mode {', '.join(OF_TARGETS[:-2])} or {OF_TARGETS[-2]}",
        )
    wrong = constant(task, Rows.joined([task.rows[part] for part in parts]))
    if options.mode not in ("joint", "dense") and wrong:
        what = f"the training set of {task.name} {wrong}, so no classifier can be trained"
        raise UsageError(what, where=task.folder, remedy="choose another --target")


def check_unseen(source: Pretrained, task: Task, splits: Collection[str]) -> None:
    """Raises:
    UsageError: the weights were trained on one of these sets of the task, or on a related task, so that a score would
        be meaningless. Weights that were trained on the task itself, as in joint training, may have seen the same sets
        of related tasks.
    """
    seen = source.seen
    trained, relatives = seen.of_task(task.name), seen.of_relatives(task.name, tuple(task.card.related))
    wrong = [(task.name, split) for split in splits if split in trained]
    wrong += [(name, split) for name, sets in relatives.items() for split in sets if split in splits or not trained]
    if not wrong:
        return
    name, split = wrong[0]
    kin = "" if name == task.name else f", which is related to {task.name}"
    own = source.weights == OWN
    begun = own and split in source.run.started_from().of_task(name)
    remedy = f"train a run with --leave-out {task.name}, or for --mode joint with --joint {task.name}"
    if begun:
        remedy = f"train a run from other weights than {source.run.config().weights}, which saw it"
    raise UsageError(
        f"these weights were trained on the {split} set of {name}{kin}: a score on {'it' if not kin else task.name} "
        "says nothing",
        where=source.run.path if own else source.weights,
        remedy=remedy,
    )


def scored_rows(task: Task, options: TransferOptions) -> Rows:
    rows = task.rows[options.scored]
    if not len(rows):
        raise UsageError(f"this task has no {options.scored} set", where=task.folder, remedy="choose another --target")
    return rows
