"""The modes of transfer: a network and a target task in, predictions for its scored set out.

Before the final evaluation, classifiers are trained on the training set and scored on the validation set. In the final
evaluation they are scored on the test set; modes with a frozen network then train on both other sets, while fine-tuning
still uses the validation set to choose epoch and rate.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax

from dpconvert.runtime.progress import Reporter
from mtrain import __version__
from mtrain.atomic import locked
from mtrain.data.labels import Scaling, constant, scaling_of, strata
from mtrain.data.task import Rows, Task
from mtrain.documents import short_digest
from mtrain.errors import RunError, UsageError
from mtrain.model.devices import find_device
from mtrain.model.frozen import Features
from mtrain.model.heads import Head, load_heads
from mtrain.model.network import SharedNetwork
from mtrain.model.weights import seen_by
from mtrain.runs import Run
from mtrain.scoring import metrics
from mtrain.scoring.dense_counts import DenseAnswers
from mtrain.scoring.predictions import Predictions, decided, undefined
from mtrain.seen import Seen
from mtrain.transfers import eva, probes, target_probes
from mtrain.transfers.dense import FrozenDense, train_decoder
from mtrain.transfers.dense_tuned import Moving, TunedDense
from mtrain.transfers.features import features
from mtrain.transfers.finetune import divide, finetune
from mtrain.transfers.finetune_rate import LinearClassifier, RateResult, Recipe, logits
from mtrain.transfers.probes import Probe, TrainingSet
from mtrain.transfers.request import FROZEN_NETWORK, OF_TARGETS, OWN, SINGLE, STEPS
from mtrain.transfers.target_probes import TargetSet

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

    metric: its name where it is not the task's own. scored, counts: for masks and points, what a result states,
    and the counts of each sample.
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
    if options.mode == "dense" and task.dense is None:
        what = "this task has neither masks nor exhaustive points"
        raise UsageError(what, where=task.folder, remedy="use another --mode")
    parts = ("train", "val") if options.final and options.mode in FROZEN else ("train",)
    if task.target != "class" and options.mode not in OF_TARGETS:
        kind = f"kind {task.card.kind!r}: its images do not have one class each"
        raise UsageError(
            f"--mode {options.mode} cannot score {task.name}, of {kind}", where=task.folder,
            remedy=f"use --mode {', '.join(OF_TARGETS[:-2])} or {OF_TARGETS[-2]}",
        )  # fmt: skip
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
    remedy = f"train one with --leave-out {task.name}, or for --mode joint with --joint {task.name}"
    if begun:
        remedy = f"train one from other weights than {source.run.config().weights}, which saw it"
    raise UsageError(
        f"these weights were trained on the {split} set of {name}{kin}: a score on {'it' if not kin else task.name} "
        "says nothing",
        where=source.run.path if own else source.weights, remedy=remedy,
    )  # fmt: skip


def svm(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """The paper's linear SVM on frozen features. Without a validation set, its cross-validation gives the score.

    Numbers are predicted by ridge regression, any number of classes by one SVM for each (transfers/target_probes.py).
    """
    if task.target == "value":
        return _frozen_targets(source, task, options, report, target_probes.ridge)
    if task.target == "labels":
        one_each = partial(target_probes.one_against_rest, solver=options.solver)
        return _frozen_targets(source, task, options, report, one_each)
    return _frozen(source, task, options, report, lambda sample: probes.svm(sample, options.solver))


def logistic(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """Logistic regression on frozen features."""
    return _frozen(source, task, options, report, probes.logistic)


def knn(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """k nearest neighbours on frozen features."""
    return _frozen(source, task, options, report, probes.knn)


def in_eva(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """A linear layer on frozen features by the recipe of kaiko-eva (mtrain.transfers.eva); one run.

    Raises:
        UsageError: the task has no validation set.
    """
    if not len(task.rows["val"]):
        raise UsageError(
            "--mode eva needs a validation set, which chooses the epoch", where=task.folder,
            remedy="choose another --target, or convert the source with another --split",
        )  # fmt: skip
    sample, of = _sample(source, task, ("train",), options, report)
    training, val = eva.EvaSet(sample.features, sample.labels), eva.EvaSet(of("val"), task.rows["val"].label)
    layer = eva.train(training, val, task.num_classes, options.recipe.seed, options.recipe.device, report)
    settings: dict[str, Any] = {"epoch": layer.epoch, "epochs": layer.epochs, "val_score": layer.score}
    settings |= {"seed": options.recipe.seed, "split": task.card.split_policy}
    notes = () if options.final else (f"the val set of {task.name} also chose the epoch, as in kaiko-eva",)
    answered = _scored_rows(task, options), layer.answer(of(options.scored))
    sizes = {"train": len(sample.labels)}
    return Transferred(options.scored, sizes, settings, notes, answered, metric=eva.METRIC)


def fewshot(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """Scores by number of training images per class; the result's score is the one with the most images."""
    sample, of = _sample(source, task, ("train",), options, report)
    rows = _scored_rows(task, options)
    curve, notes = probes.few_shot(sample, of(options.scored), rows.label, seed=options.recipe.seed)
    settings = {"curve": curve}
    if np.isnan(curve[-1]["mean"]):
        notes += (undefined(task, options.scored),)
    return Transferred(options.scored, {"train": curve[-1]["n_train"]}, settings, notes, score=curve[-1]["mean"])


def tuned(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """Fine-tuning of the whole network. The validation set chooses epoch and rate: its score is slightly optimistic."""
    recipe = replace(options.recipe, size=source.run.config().size, workers=options.workers)
    sets = divide(task, task.rows["train"], task.rows["val"])
    found = finetune(source.network, task, sets, recipe, source.run.path / "transfer" / "tuned", report, source.seen)
    name, rows = options.scored, task.rows[options.scored]
    if not len(rows):
        name, rows = "held out", sets.val
    settings = {
        "lr": found.best.rate,
        "epoch": found.best.epoch,
        "val_score": found.best.score,
        "rates": {f"{one.rate:g}": _told(one) for one in found.outcomes},
    }
    answer = _answer(task, logits(found.model, task, rows, recipe), scaling_of(task))
    return Transferred(name, {"train": len(sets.train)}, settings, sets.notes, (rows, answer))


def _told(outcome: RateResult) -> dict[str, Any]:
    """The summary of a rate in a result; its full history is stored with the weights."""
    return {
        "epoch": outcome.epoch, "val_score": outcome.score if outcome.epoch else None, "diverged": outcome.diverged,
    }  # fmt: skip


def joint(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """The run's own head for the task: the run was trained on the task's training set, among others.

    Raises:
        RunError: the run left the task out, was trained on other shards of it, or kept no heads.
    """
    head, rows = own_head(source.run, task), _scored_rows(task, options)
    recipe = replace(options.recipe, size=source.run.config().size, workers=options.workers)
    outputs = logits(_with_head(source, head, recipe.device), task, rows, recipe)
    answer = _answer(task, outputs, head.about.scaling or Scaling())
    return Transferred(options.scored, {"train": len(task.rows["train"])}, {}, (), (rows, answer))


def dense(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """A decoder of masks and points on the frozen network, or on one that is trained with it."""
    parts = [split for split in (("train", "val") if options.final else ("train",)) if len(task.rows[split])]
    rows, trained = _scored_rows(task, options), Rows.joined([task.rows[split] for split in parts])
    recipe, folder = options.recipe, _decoder_folder(source, task, options)
    with locked(folder, "another process is training this decoder", "wait for it"):
        decoder = train_decoder(
            _new_decoder(source, task, options), task, trained, steps=options.steps, batch=recipe.batch,
            seed=recipe.seed, workers=options.workers, report=report, folder=folder,
        )  # fmt: skip
        answers = decoder.answers(task, rows, recipe.batch, options.workers)
        shutil.rmtree(folder, ignore_errors=True)
    scored, metric = answers.scored(), decoder.dense.metrics[0]
    notes = []
    if np.isnan(scored["scores"][metric]):
        notes.append(f"the {options.scored} set of {task.name} holds nothing to find: no {metric}")
    if not scored["intervals"]:
        notes.append(
            f"the {options.scored} set of {task.name} is of one {task.card.group_kind}: no confidence intervals"
        )
    sizes = {split: len(task.rows[split]) for split in parts}
    settings = {"steps": options.steps, "tune": options.moving.tune} | options.moving.determining()
    settings |= {"moved": decoder.moved if isinstance(decoder, TunedDense) else 0}
    return Transferred(
        options.scored, sizes, settings, tuple(notes), score=scored["scores"][metric], metric=metric,
        scored=scored, counts=answers,
    )  # fmt: skip


def _decoder_folder(source: Pretrained, task: Task, options: TransferOptions) -> Path:
    """The folder of a training's checkpoints, under everything that the training depends on."""
    recipe, determining = options.recipe, options.moving.determining()
    settings = [source.digest, task.card.digest, source.run.config().size, options.final, options.steps, recipe.batch]
    digest = short_digest(json.dumps([*settings, recipe.seed, determining, __version__]))
    return source.run.path / "transfer" / "decoders" / f"{task.name}-{digest[:16]}"


def _new_decoder(source: Pretrained, task: Task, options: TransferOptions) -> FrozenDense:
    assert task.dense is not None, "check_sets refuses such tasks"
    network, size, recipe = source.network, source.run.config().size, options.recipe
    if options.moving.tune == FROZEN_NETWORK:
        return FrozenDense(network, task.dense, size, recipe.seed, recipe.device)
    return TunedDense(network, task.dense, size, recipe.seed, recipe.device, options.moving)


MODES: dict[str, Callable[[Pretrained, Task, TransferOptions, Reporter], Transferred]] = {
    "svm": svm,
    "logistic": logistic,
    "knn": knn,
    "eva": in_eva,
    "fewshot": fewshot,
    "finetune": tuned,
    "scratch": tuned,
    "joint": joint,
    "dense": dense,
}
SEEDED = ("eva", "fewshot", "finetune", "scratch", "dense")


def _frozen(
    source: Pretrained, task: Task, options: TransferOptions, report: Reporter, train: Callable[[TrainingSet], Probe]
) -> Transferred:
    parts = ("train", "val") if options.final else ("train",)
    sample, of = _sample(source, task, parts, options, report)
    return _of_probe(task, options, train(sample), of, parts)


def _frozen_targets(
    source: Pretrained, task: Task, options: TransferOptions, report: Reporter, train: Callable[[TargetSet], Probe]
) -> Transferred:
    """As `_frozen`, for samples that do not have one class."""
    parts = ("train", "val") if options.final else ("train",)
    of, there = _features_of(source, task, options, report), [part for part in parts if len(task.rows[part])]
    rows = Rows.joined([task.rows[part] for part in there])
    assert rows.target is not None
    sample = TargetSet(
        np.concatenate([of(part) for part in there]), rows.target, [str(group) for group in rows.group],
        strata(task, rows), task.classes, options.recipe.device,
    )  # fmt: skip
    return _of_probe(task, options, train(sample), of, parts)


def _of_probe(
    task: Task, options: TransferOptions, probe: Probe, of: Callable[[str], Features], parts: tuple[str, ...]
) -> Transferred:
    scored = options.scored
    sizes = {split: len(task.rows[split]) for split in parts if len(task.rows[split])}
    if len(task.rows[scored]):
        answered = task.rows[scored], probe.answer(of(scored))
        return Transferred(scored, sizes, probe.settings, probe.notes, answered)
    chosen = next(iter(probe.settings), "the classifier")
    how = f"the score is the cross-validation's, which also chose {chosen}: it is optimistic"
    note = f"{task.name} has no {scored} set: {how}"
    return Transferred("cv", sizes, probe.settings, (*probe.notes, note), score=probe.score)


def _scored_rows(task: Task, options: TransferOptions) -> Rows:
    rows = task.rows[options.scored]
    if not len(rows):
        raise UsageError(f"this task has no {options.scored} set", where=task.folder, remedy="choose another --target")
    return rows


def _sample(
    source: Pretrained, task: Task, parts: tuple[str, ...], options: TransferOptions, report: Reporter
) -> tuple[TrainingSet, Callable[[str], Features]]:
    """The samples of these sets with their features, and a function that gives the features of another set."""
    of = _features_of(source, task, options, report)
    there = [split for split in parts if len(task.rows[split])]
    labels = np.concatenate([task.rows[split].label for split in there])
    groups = [str(group) for split in there for group in task.rows[split].group]
    x = np.concatenate([of(split) for split in there])
    return TrainingSet(x, labels, groups, task.num_classes, task.metric, options.recipe.device), of


def _features_of(
    source: Pretrained, task: Task, options: TransferOptions, report: Reporter
) -> Callable[[str], Features]:
    """A function that gives the features of a set."""
    size = source.run.config().size

    def of(split: str) -> Features:
        return features(
            source.network, task, split, size=size, cache=source.cache, workers=options.workers, report=report,
            device=options.recipe.device, weights=source.origin,
        )  # fmt: skip

    return of


def own_head(run: Run, task: Task) -> Head:
    """The head for `task` that the run saved with its weights; averaged if the run averages its weights.

    Raises:
        RunError: the run left the task out, was trained on other shards of it, or kept no heads.
        UsageError: the run was trained on more of the task than its training set.
    """
    if run.about().get("pool", {}).get(task.name) != task.card.digest:
        raise RunError(
            f"this run was not trained on {task.name}, or only on other shards of it", where=run.path,
            remedy="train one on the whole pool: `mtrain fit` without --leave-out",
        )  # fmt: skip
    if (trained := run.trained_on()[task.name]) != ("train",):
        raise UsageError(
            f"this run was trained on {' and '.join(trained)} of {task.name}; joint training uses only "
            "the training set", where=run.path, remedy=f"train one with --joint {task.name}",
        )  # fmt: skip
    heads = load_heads(run.heads)
    if task.name not in heads:
        raise RunError(f"no head of {task.name}", where=run.heads, remedy="train the run again")
    return heads[task.name]


def _with_head(source: Pretrained, head: Head, device: str) -> LinearClassifier:
    model = LinearClassifier(source.network, len(head.bias))
    model.head = head.module()
    return model.to(find_device(device)).to(memory_format=torch.channels_last)


def _answer(task: Task, outputs: metrics.Values, scaling: Scaling) -> Predictions:
    """The predictions from the outputs (n, outputs) of a linear layer."""
    decisions = decided(task, outputs, scaling)
    if task.target == "value":
        return Predictions(decisions)
    return Predictions(decisions, expit(outputs) if task.target == "labels" else softmax(outputs, axis=1))
