"""Fine-tuning: a shared network and a training set in, the best of its fine-tuned copies out (PROTOCOL: finetune).

A new linear layer is added, and the whole network is trained at each learning rate for the same number of epochs. The
validation set chooses epoch and rate. Starting from random weights, this is training from scratch. Each rate writes a
file when it is finished:

<folder>/<Task>-<digest>/rate-0.001/              checkpoints, until it is finished
                         rate-0.001.json          its result
                         rate-0.001.safetensors   the network of its best epoch; kept only for the best rate
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.runtime.progress import Reporter
from mtrain import __version__
from mtrain.data.labels import constant, strata
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.disk.atomic import locked
from mtrain.disk.documents import known_document, write_document
from mtrain.errors import RunError, UsageError
from mtrain.model.network import SharedNetwork
from mtrain.model.weight_files.tensor_file import write_tensors
from mtrain.model.weight_files.weights import read_weights, state_digest
from mtrain.runs.seen import Seen, closed
from mtrain.scoring import label_scores
from mtrain.scoring.predictions import truth_of, undefined
from mtrain.train import checkpoint
from mtrain.transfers.classifiers.folds import group_folds
from mtrain.transfers.finetune_rate import (
    LinearClassifier,
    RateResult,
    Recipe,
    Sets,
    Tuning,
    new_classifier,
)

UNKNOWN = Seen()


@dataclass(frozen=True)
class Tuned:
    """The best network, the result of its rate, and the results of all rates in the order in which they were given."""

    model: LinearClassifier
    best: RateResult
    outcomes: tuple[RateResult, ...]
    sets: Sets


def divide(task: Task, train: Rows, val: Rows) -> Sets:
    """The sets to train and to validate on. Without a validation set, about a fifth of the training set replaces it, in
    whole groups: those whose absence leaves the most classes to train on.

    Raises:
        UsageError: all training samples are of one class.
    """
    notes, number = list[str](), 0
    if constant(task, train):
        what = "less than two classes" if task.target == "class" else "nothing to tell apart"
        raise UsageError(f"the training set holds {what}", where=task.folder)
    if not len(val):
        of = {"class": "classes", "labels": "sets of classes", "value": "fifths of the numbers"}[task.target]
        groups, choice = [str(group) for group in train.group], "epoch and learning rate"
        folds = group_folds(strata(task, train), groups, of=of, choice=choice)
        missing = [_without(task, train, folds.of != number) for number in range(folds.count)]
        number = min(range(folds.count), key=lambda one: len(missing[one]))  # of equally good ones, the first
        held = folds.of == number
        taken = f"{int(held.sum())} of its {len(held)} training samples"
        notes += [f"{task.name} has no validation set: {taken}, in whole groups, take its place", *folds.notes]
        if missing[number]:
            names = ", ".join(repr(name) for name in missing[number])
            notes.append(f"all training samples of {names} are among them, so that it is not trained on")
        train, val = train.take(~held), train.take(held)
    metric = task.metric
    if val.target is not None:
        metric, more = _metric_on(task, val)
        notes += more
    elif len(np.unique(val.label)) < 2:
        metric = "accuracy"
        notes.append(f"the validation set of {task.name} holds one class only: accuracy chooses epoch and rate")
    return Sets(train, val, metric, tuple(notes), number)


def held_out(task: Task, train: Rows, val: Rows) -> int:
    """The number of the fold that `divide` holds out; 0, the first, also where it holds out none or refuses."""
    return 0 if len(val) or not len(train) or constant(task, train) else divide(task, train, val).fold


def _without(task: Task, train: Rows, kept: NDArray[np.bool_]) -> list[str]:
    """The classes of which there are training samples, but none among the `kept` ones."""
    if task.target == "value":
        return []
    has = train.label[:, None] == np.arange(task.num_classes) if train.target is None else train.target > 0
    return [task.classes[number] for number in np.flatnonzero(has.any(0) & ~has[kept].any(0))]


def _metric_on(task: Task, val: Rows) -> tuple[str, list[str]]:
    """The metric that chooses on a validation set of samples that do not have one class, and notes."""
    truth = truth_of(task, val)
    if not math.isnan(label_scores.score(task.metric, truth, truth * 2 - 1)):
        return task.metric, []
    other = label_scores.INSTEAD[task.metric]
    return other, [f"{undefined(task, 'val')}: {other} chooses epoch and rate"]


def finetune(
    start: SharedNetwork,
    task: Task,
    sets: Sets,
    recipe: Recipe,
    folder: Path,
    report: Reporter,
    seen: Seen = UNKNOWN,
) -> Tuned:
    """Train a copy of `start` at each rate, and return the best; of equally good ones, the first.

    seen: what the weights of `start` were trained on, which is written to the files of the networks.

    Raises:
        RunError: another process is fine-tuning in this folder, or training diverged at every rate.
    """
    for note in sets.notes:
        report.note(note)
    place = folder / f"{task.name}-{_digest(start, task, sets, recipe)[:16]}"
    with locked(place, "another process is fine-tuning here", "wait for it"):
        known = [_known(place, rate, report.note) for rate in recipe.rates]
        outcomes = tuple(
            outcome or _tuned(Tuning(rate, start, task, sets, recipe), place, report, seen)
            for rate, outcome in zip(recipe.rates, known, strict=True)
        )
        best = max(outcomes, key=lambda outcome: outcome.score if outcome.epoch else -math.inf)
        if not best.epoch:
            raise RunError("no learning rate gave a finite network", where=place, remedy="give lower rates with --lr")
        # an earlier call with other rates may have kept another rate's weights
        if not _is_whole(_weights(place, best.rate), report):
            best = _tuned(Tuning(best.rate, start, task, sets, recipe), place, report, seen)
        for outcome in outcomes:
            if outcome.rate != best.rate:
                _weights(place, outcome.rate).unlink(missing_ok=True)
        model = new_classifier(start, task, recipe)
        model.load_state_dict(read_weights(_weights(place, best.rate)))
    return Tuned(model.eval(), best, outcomes, sets)


def _tuned(tuning: Tuning, place: Path, report: Reporter, seen: Seen) -> RateResult:
    """Train at one rate. The weights are written first, then the result, which marks them as complete."""
    name, rate, folder = tuning.task.name, tuning.rate, place / f"rate-{tuning.rate:g}"
    saved = checkpoint.newest_readable(folder, report.note, checkpoint.owner(folder))
    if saved is not None:
        tuning.restore(saved[0])
        report.note(f"{name}: resumed after epoch {saved[1]} at rate {rate:g}")
    outcome = tuning.run(folder, report)
    if outcome.diverged:
        report.note(f"{name}: diverged at rate {rate:g} in epoch {len(outcome.history) + 1}")
    if outcome.epoch:
        card = tuning.task.card
        saw = seen | Seen({name: ("train",)}, {name: tuple(card.related)}, closed({name: card.licence}))
        about = {"backbone": tuning.model.shared.name, "task": name, **saw.json()}
        write_tensors(_weights(place, rate), tuning.merged(), about)
    write_document(place / f"rate-{rate:g}.json", asdict(outcome) | {"of": place.name})
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _known(place: Path, rate: float, note: Callable[[str], object]) -> RateResult | None:
    """The result of a rate; None if it is not finished."""
    path = place / f"rate-{rate:g}.json"
    content = known_document(path, note)
    if content is None:
        return None
    if content.pop("of", place.name) != place.name or content["rate"] != rate:
        note(f"{path}: the result of another fine-tuning; the rate is trained again")
        return None
    return RateResult(**content)


def _is_whole(path: Path, report: Reporter) -> bool:
    """Whether the weights exist and are undamaged; damage is reported."""
    try:
        read_weights(path)
    except RunError as error:
        if path.is_file():
            report.note(f"{path}: {error.what}; the rate is trained again")
        return False
    return True


def _weights(place: Path, rate: float) -> Path:
    return place / f"rate-{rate:g}.safetensors"


def _digest(start: SharedNetwork, task: Task, sets: Sets, recipe: Recipe) -> str:
    """A digest of everything that the result of a rate depends on."""
    settings = {name: value for name, value in recipe.determining().items() if name != "rates"}
    keys = "\n".join([*map(str, sets.train.key), "", *map(str, sets.val.key)])
    rows = hashlib.sha256(keys.encode()).hexdigest()
    table = () if start.card is None else (start.card.digest,)
    return state_digest(
        start.state_dict(), start.name, *table, task.card.digest, rows, json.dumps(settings), __version__
    )
