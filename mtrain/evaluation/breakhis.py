"""BreaKHis: its five official folds at each magnification, scored by patient (PROTOCOL 6 and 7, BreakHis).

The samples of the task need the attributes `magnification` and `fold1` to `fold5` ("train" or "test"). The result, the
mean patient accuracy averaged over the folds, is written to <out>/<task>/<digest>.json.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpconvert.runtime.progress import Reporter
from mtrain import __version__
from mtrain.data.rows import Rows
from mtrain.data.task import OPEN, Permit, Task, attributes, fetch_shards, with_test
from mtrain.disk.documents import known_document, short_digest, write_document
from mtrain.errors import ShardError, UsageError
from mtrain.evaluation.paper_tables import training_of
from mtrain.evaluation.selecting.ranks import summary
from mtrain.model.frozen import Features
from mtrain.runs.seen import Seen
from mtrain.scoring import metrics
from mtrain.scoring.metrics import Labels
from mtrain.transfers.classifiers import probes
from mtrain.transfers.classifiers.probes import TrainingSet
from mtrain.transfers.finetune import divide, finetune, held_out
from mtrain.transfers.finetune_rate import logits
from mtrain.transfers.pretrained import Pretrained, TransferOptions, check_unseen
from mtrain.transfers.request import OWN

FOLDS = 5
MAGNIFICATION, PATIENT = "magnification", "patient"
MODES = ("svm", "finetune")
Which = NDArray[np.int64]


@dataclass(frozen=True)
class BreakhisImages:
    """All samples of the task, of every split: their rows, attributes and patients.

    `parts`: the splits, in the order of their samples.
    """

    rows: Rows
    described: Sequence[Mapping[str, str]]
    patients: NDArray[np.object_]
    parts: tuple[str, ...]

    @property
    def magnifications(self) -> list[str]:
        """The magnifications, smallest first."""
        found = {about[MAGNIFICATION] for about in self.described}
        return sorted(found, key=lambda text: (float(text.rstrip("Xx")) if text.rstrip("Xx").isdigit() else 0, text))

    def fold(self, magnification: str, number: int) -> tuple[Which, Which]:
        """The images to train on and those to score."""
        at = [about if about[MAGNIFICATION] == magnification else {} for about in self.described]
        train, test = (
            np.flatnonzero([about.get(f"fold{number}") == which for about in at]) for which in ("train", "test")
        )
        return train, test


def images_of(task: Task) -> BreakhisImages:
    """The whole task with its folds.

    Raises:
        ShardError: a sample has no magnification, or there are no official folds.
    """
    task, by_key = with_test(task, Permit.BREAKHIS), attributes(task)
    parts = {split: rows for split, rows in task.rows.items() if len(rows)}
    rows = Rows.joined(list(parts.values()))
    about = [by_key[str(key)] for key in rows.key]
    if not all(MAGNIFICATION in one for one in about):
        raise ShardError("samples without a magnification: not BreaKHis", where=task.folder)
    if not any(f"fold{number}" in one for one in about for number in range(1, FOLDS + 1)):
        raise ShardError(
            "no official folds here",
            where=task.folder,
            remedy="unpack mkfold.tar.gz beside the images and convert again: `dpconvert breakhis`",
        )
    patients = np.array([one.get(PATIENT, group) for one, group in zip(about, rows.group, strict=True)], object)
    return BreakhisImages(rows, about, patients, tuple(parts))


def patient_accuracy(labels: Labels, found: Labels, patients: Sequence[object] | NDArray[np.object_]) -> float:
    """The mean over patients of the share of correctly classified images."""
    _, patient = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    right = np.bincount(patient, weights=labels == found)
    return float((right / np.bincount(patient)).mean())


def breakhis(source: Pretrained, task: Task, options: TransferOptions, out: Path, report: Reporter) -> dict[str, Any]:
    """Score every fold of every magnification in the way of `options.mode`. An existing result in `out` is returned.

    Raises:
        ShardError: the task lacks these attributes.
        UsageError: the mode is neither svm nor finetune, or the run was trained on the task.
    """
    if options.mode not in MODES:
        raise UsageError(f"no mode {options.mode!r} here", expected=" or ".join(MODES))
    check_unseen(source, task, (*OPEN, "test"))
    recipe = dataclasses.replace(options.recipe, size=source.run.config().size, workers=options.workers)
    options = dataclasses.replace(options, recipe=recipe)
    images = images_of(task)
    identity = _identity(source, task, options) | _folds_held_out(task, images, options)
    path = out / task.name / f"{short_digest(json.dumps(identity, sort_keys=True))}.json"
    known = known_document(path, report.note)
    if known is not None and known.get("identity") == json.loads(json.dumps(identity)):
        report.note(f"{task.name}: existing result reused: {path}")
        return known
    bench = Bench(source, with_test(task, Permit.BREAKHIS), images, options, report)
    fetch_shards([bench.task], list(bench.task.rows), report)
    folds = {magnification: list(bench.folds(magnification)) for magnification in bench.images.magnifications}
    result = {
        "task": task.name,
        "metric": "patient_accuracy",
        "mode": options.mode,
        "source": {"run": "multitask"}.get(source.weights, source.weights),
        "backbone": source.run.config().backbone,
        "seed": recipe.seed,
        "set": "folds",
        "score": None,
        "n_train": max(fold["n_train"] for every in folds.values() for fold in every),
        "magnifications": {magnification: _summary(every) for magnification, every in folds.items()},
        "run": str(source.run.path),
        "training": training_of(source.run) if source.weights == OWN else {},
        "identity": identity,
    }
    write_document(path, result)
    return result


@dataclass(frozen=True)
class Bench:
    """What all folds of all magnifications share. `task` includes its test set."""

    source: Pretrained
    task: Task
    images: BreakhisImages
    options: TransferOptions
    report: Reporter

    def folds(self, magnification: str) -> Iterator[dict[str, Any]]:
        """The five folds of one magnification."""
        classify = self._by_svm if self.options.mode == "svm" else self._by_finetune
        for number in range(1, FOLDS + 1):
            train, test = self.images.fold(magnification, number)
            if not len(train) or not len(test):
                raise ShardError(f"fold {number} at {magnification} lacks a set", where=self.task.folder)
            found, notes = classify(train, test)
            labels, patients = self.images.rows.label[test], self.images.patients[test]
            yield {
                "fold": number,
                "patient_accuracy": patient_accuracy(labels, found, patients),
                "accuracy": metrics.accuracy(labels, found),
                "patients": len(set(patients)),
                "in_both_sets": sorted(set(patients) & set(self.images.patients[train])),
                "n_train": len(train),
                "n_test": len(test),
                "notes": notes,
            }

    def _by_svm(self, train: Which, test: Which) -> tuple[Labels, list[str]]:
        rows, task = self.images.rows, self.task
        groups = [str(group) for group in rows.group[train]]
        sample = TrainingSet(
            self._features[train], rows.label[train], groups, task.num_classes, task.metric, self.options.recipe.device
        )
        probe = probes.svm(sample, self.options.solver)
        return metrics.predicted(probe.answer(self._features[test]).decisions), list(probe.notes)

    @functools.cached_property
    def _features(self) -> Features:
        device, workers = self.options.recipe.device, self.options.workers
        return np.concatenate(
            [
                self.source.features(self.task, split, workers=workers, report=self.report, device=device)
                for split in self.images.parts
            ]
        )

    def _by_finetune(self, train: Which, test: Which) -> tuple[Labels, list[str]]:
        """Fine-tune. The official folds have no validation set: whole groups of the training set replace it."""
        rows, recipe = self.images.rows, self.options.recipe
        sets = divide(self.task, rows.take(train), rows.take([]))
        folder = self.source.run.path / "transfer" / "tuned"
        seen = self.source.seen | Seen({self.task.name: self.images.parts})  # the folds ignore the splits
        tuned = finetune(self.source.network, self.task, sets, recipe, folder, self.report, seen)
        found = logits(tuned.model, self.task, rows.take(test), recipe)
        return metrics.predicted(metrics.decisions_of(found)), list(sets.notes)


def _summary(folds: list[dict[str, Any]]) -> dict[str, Any]:
    found = summary([fold["patient_accuracy"] for fold in folds])
    return {"mean": found.mean, "std": found.std, "folds": folds}


def _folds_held_out(task: Task, images: BreakhisImages, options: TransferOptions) -> dict[str, Any]:
    """Which fold of each training set chooses epoch and rate; nothing where it is always the first, as it was in
    earlier versions.
    """
    if options.mode != "finetune":
        return {}
    folds = {
        f"{magnification} {number}": held_out(task, images.rows.take(train), images.rows.take([]))
        for magnification in images.magnifications
        for number in range(1, FOLDS + 1)
        for train, _ in [images.fold(magnification, number)]
    }
    later = {name: fold for name, fold in folds.items() if fold}
    return {"folds": later} if later else {}


def _identity(source: Pretrained, task: Task, options: TransferOptions) -> dict[str, Any]:
    found = {
        "mode": options.mode,
        "source": source.weights,
        "weights_digest": source.digest,
        "task_digest": task.card.digest,
        "index": task.card.index.sha256,
        "mtrain": __version__,
        "size": options.recipe.size,
    }
    recipe = options.recipe.determining()
    names = (*recipe.keys() - {"seed", "size"},)
    also = {"solver": options.solver} if options.mode == "svm" else {name: recipe[name] for name in names}
    return found | also | {"seed": options.recipe.seed}
