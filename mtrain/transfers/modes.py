"""The modes of transfer: a network and a target task in, predictions for its scored set out.

Before the final evaluation, classifiers are trained on the training set and scored on the validation set. In the final
evaluation they are scored on the test set; modes with a frozen network then train on both other sets, while fine-tuning
still uses the validation set to choose epoch and rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax

from dpconvert.runtime.progress import Reporter
from mtrain.data.labels import Scaling, scaling_of, strata
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.errors import RunError, UsageError
from mtrain.model.devices import find_device
from mtrain.model.frozen import Features
from mtrain.model.heads import Head, load_heads
from mtrain.runs.run_folder import Run
from mtrain.scoring import metrics
from mtrain.scoring.predictions import Predictions, decided, truth_of, undefined
from mtrain.transfers import eva
from mtrain.transfers.classifiers import probes, target_probes
from mtrain.transfers.classifiers.probes import Probe, TrainingSet
from mtrain.transfers.classifiers.target_probes import TargetSet
from mtrain.transfers.dense.dense_mode import dense
from mtrain.transfers.finetune import divide, finetune
from mtrain.transfers.finetune_rate import LinearClassifier, RateResult, logits
from mtrain.transfers.pretrained import Pretrained, TransferOptions, Transferred, scored_rows


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
            "--mode eva needs a validation set, which chooses the epoch",
            where=task.folder,
            remedy="choose another --target, or convert the source with another --split",
        )
    sample, of = _sample(source, task, ("train",), options, report)
    training, val = eva.EvaSet(sample.features, sample.labels), eva.EvaSet(of("val"), task.rows["val"].label)
    layer = eva.train(training, val, task.num_classes, options.recipe.seed, options.recipe.device, report)
    settings: dict[str, Any] = {"epoch": layer.epoch, "epochs": layer.epochs, "val_score": layer.score}
    settings |= {"seed": options.recipe.seed, "split": task.card.split_policy}
    notes = () if options.final else (f"the val set of {task.name} also chose the epoch, as in kaiko-eva",)
    answered = scored_rows(task, options), layer.answer(of(options.scored))
    sizes = {"train": len(sample.labels)}
    return Transferred(options.scored, sizes, settings, notes, answered, metric=eva.METRIC)


def fewshot(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """Scores by number of training images per class; the result's score is the one with the most images.

    Images that do not have one class each are counted in all (transfers/target_probes.py).
    """
    rows, notes = scored_rows(task, options), tuple[str, ...]()
    if task.target == "class":
        sample, of = _sample(source, task, ("train",), options, report)
        curve, notes = probes.few_shot(sample, of(options.scored), rows.label, seed=options.recipe.seed)
    else:
        targets, of = _target_sample(source, task, ("train",), options, report)
        truth, seed = truth_of(task, rows), options.recipe.seed
        curve = target_probes.few_shot(targets, of(options.scored), truth, task.metric, seed=seed)
    settings = {"curve": curve}
    if np.isnan(curve[-1]["mean"]):
        notes += (undefined(task, options.scored),)
    scored = {"samples": len(rows), "groups": len(set(rows.group.tolist()))}
    trained, score = {"train": curve[-1]["n_train"]}, curve[-1]["mean"]
    return Transferred(options.scored, trained, settings, notes, score=score, scored=scored)


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
        "rates": {f"{one.rate:g}": _rate_summary(one) for one in found.outcomes},
    }
    answer = _answer(task, logits(found.model, task, rows, recipe), scaling_of(task))
    return Transferred(name, {"train": len(sets.train)}, settings, sets.notes, (rows, answer))


def _rate_summary(outcome: RateResult) -> dict[str, Any]:
    """The summary of a rate in a result; its full history is stored with the weights."""
    return {
        "epoch": outcome.epoch,
        "val_score": outcome.score if outcome.epoch else None,
        "diverged": outcome.diverged,
    }


def joint(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """The run's own head for the task: the run was trained on the task's training set, among others.

    Raises:
        RunError: the run left the task out, was trained on other shards of it, or kept no heads.
    """
    head, rows = own_head(source.run, task), scored_rows(task, options)
    recipe = replace(options.recipe, size=source.run.config().size, workers=options.workers)
    outputs = logits(_with_head(source, head, recipe.device), task, rows, recipe)
    answer = _answer(task, outputs, head.about.scaling or Scaling())
    return Transferred(options.scored, {"train": len(task.rows["train"])}, {}, (), (rows, answer))


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
    sample, of = _target_sample(source, task, parts, options, report)
    return _of_probe(task, options, train(sample), of, parts)


def _target_sample(
    source: Pretrained, task: Task, parts: tuple[str, ...], options: TransferOptions, report: Reporter
) -> tuple[TargetSet, Callable[[str], Features]]:
    """As `_sample`, for samples that do not have one class."""
    of, filled = _features_of(source, task, options, report), [part for part in parts if len(task.rows[part])]
    rows = Rows.joined([task.rows[part] for part in filled])
    assert rows.target is not None
    sample = TargetSet(
        np.concatenate([of(part) for part in filled]),
        rows.target,
        [str(group) for group in rows.group],
        strata(task, rows),
        task.classes,
        options.recipe.device,
    )
    return sample, of


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


def _sample(
    source: Pretrained, task: Task, parts: tuple[str, ...], options: TransferOptions, report: Reporter
) -> tuple[TrainingSet, Callable[[str], Features]]:
    """The samples of these sets with their features, and a function that gives the features of another set."""
    of = _features_of(source, task, options, report)
    filled = [split for split in parts if len(task.rows[split])]
    labels = np.concatenate([task.rows[split].label for split in filled])
    groups = [str(group) for split in filled for group in task.rows[split].group]
    x = np.concatenate([of(split) for split in filled])
    return TrainingSet(x, labels, groups, task.num_classes, task.metric, options.recipe.device), of


def _features_of(
    source: Pretrained, task: Task, options: TransferOptions, report: Reporter
) -> Callable[[str], Features]:
    """A function that gives the features of a set."""
    device, workers = options.recipe.device, options.workers
    return lambda split: source.features(task, split, workers=workers, report=report, device=device)


def own_head(run: Run, task: Task) -> Head:
    """The head for `task` that the run saved with its weights; averaged if the run averages its weights.

    Raises:
        RunError: the run left the task out, was trained on other shards of it, or kept no heads.
        UsageError: the run was trained on more of the task than its training set.
    """
    if run.about().get("pool", {}).get(task.name) != task.card.digest:
        raise RunError(
            f"this run was not trained on {task.name}, or only on other shards of it",
            where=run.path,
            remedy="train one on the whole pool: `mtrain fit` without --leave-out",
        )
    if (trained := run.trained_on()[task.name]) != ("train",):
        raise UsageError(
            f"this run was trained on {' and '.join(trained)} of {task.name}; joint training uses only "
            "the training set",
            where=run.path,
            remedy=f"train one with --joint {task.name}",
        )
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
