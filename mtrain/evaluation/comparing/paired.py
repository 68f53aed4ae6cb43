"""Networks on one task -> intervals of their scores, and of their differences from a baseline, on the same groups.

A network may have several results, one per seed. Its score is their mean, and each draw of groups scores all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtrain.evaluation.selecting.ranks import Summary, margin, significant
from mtrain.scoring import bootstrap, label_scores
from mtrain.scoring.dense_counts import DenseAnswers, read_counts
from mtrain.scoring.metrics import Values
from mtrain.scoring.predictions import Answers, read_answers

Interval = tuple[float, float]
BETTER, WORSE, SAME = "better", "worse", "no difference"
UNDEFINED = "undefined"


@dataclass(frozen=True)
class Paired:
    """Network -> interval of its mean score, and of its difference from the baseline, in 0..1.

    A network is absent where its answers were not kept, or where they are of one group, or of other samples.
    """

    intervals: Mapping[str, Interval]
    differences: Mapping[str, Interval]


def paired(networks: Mapping[str, Sequence[Path]], metric: str, baseline: str) -> Paired:
    """Intervals by the paired bootstrap over groups. networks: name -> its files of answers, one per seed."""
    answers = {name: [kept_answers(path) for path in paths] for name, paths in networks.items()}
    drawn = draws({name: [one for one in of if one] for name, of in answers.items() if of and all(of)}, metric)
    apart = {name: of - drawn[baseline] for name, of in drawn.items() if name != baseline and baseline in drawn}
    return Paired(_intervals(drawn), _intervals(apart))


def kept_answers(path: Path) -> Answers | DenseAnswers | None:
    """What a transfer kept beside its result: predictions of classes, or counts of masks and points; None without."""
    return read_answers(path) or read_counts(path)


def draws(networks: Mapping[str, Sequence[Answers | DenseAnswers]], metric: str) -> dict[str, Values]:
    """Network -> the mean of its scores in each draw of groups, of networks that answered the same samples."""
    first = next((of[0] for of in networks.values() if of), None)
    if first is None:
        return {}
    alike = {name: of for name, of in networks.items() if of and all(_same_samples(one, first) for one in of)}
    every = {f"{number} {name}": one for name, of in alike.items() for number, one in enumerate(of)}
    scores = _draws_of_each(every, first, metric)
    if not scores:
        return {}
    return {
        name: np.mean([scores[f"{number} {name}"] for number in range(len(of))], axis=0) for name, of in alike.items()
    }


def _draws_of_each(
    every: Mapping[str, Answers | DenseAnswers], first: Answers | DenseAnswers, metric: str
) -> dict[str, Values]:
    """Name -> its score in each draw of groups; empty for a single group."""
    if isinstance(first, DenseAnswers):
        found = {name: one.drawn(metric) for name, one in every.items() if isinstance(one, DenseAnswers)}
        return {name: values for name, values in found.items() if values is not None}
    decisions = {name: one.predictions.decisions for name, one in every.items() if isinstance(one, Answers)}
    groups = [str(group) for group in first.group]
    if first.target is not None:
        truth = first.target[:, 0] if metric == label_scores.PEARSON else first.target
        return label_scores.paired(truth, decisions, groups, metric)
    return bootstrap.paired(first.label, decisions, groups, first.classes, metric)


def verdict(ours: Summary | None, theirs: Summary | None) -> str:
    """The rule of the paper: better or worse where the difference of the means exceeds twice the larger
    standard deviation; undefined where one of them is not known, below two seeds, and where both are 0.
    """
    if ours is None or theirs is None or margin(ours, theirs) is None:
        return UNDEFINED
    if not significant(ours, theirs):
        return SAME
    return BETTER if ours.mean > theirs.mean else WORSE


def _same_samples(one: Answers | DenseAnswers, other: Answers | DenseAnswers) -> bool:
    if isinstance(one, DenseAnswers) or isinstance(other, DenseAnswers):
        return isinstance(one, DenseAnswers) and one.same_samples(other)
    if (one.target is None) != (other.target is None):
        return False
    same = one.target is None or other.target is None or np.array_equal(one.target, other.target)
    return same and np.array_equal(one.key, other.key) and np.array_equal(one.label, other.label)


def _intervals(drawn: Mapping[str, Values]) -> dict[str, Interval]:
    found = {name: bootstrap.interval(values) for name, values in drawn.items()}
    return {name: one for name, one in found.items() if one is not None}
