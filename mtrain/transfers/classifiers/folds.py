"""Cross-validation folds: labels and groups (patients, slides) in, a fold number for each sample out.

A group is never divided. Groups are assigned largest first, each to the fold where it least disturbs the balance of the
classes. The result depends only on names and counts, not on the order of the samples, a seed or hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpconvert.plural import counted
from mtrain.scoring import metrics

FOLDS = 5


@dataclass(frozen=True)
class Folds:
    """`of` (n,): the fold that holds out each sample. `count`: number of folds. `notes` state how they differ from the
    request.
    """

    of: NDArray[np.int64]
    count: int
    notes: tuple[str, ...]


def group_folds(
    labels: NDArray[np.int64], groups: Sequence[str], count: int = FOLDS, *, of: str = "classes", choice: str = "C"
) -> Folds:
    """Divide the samples into at most `count` folds, with no group in two of them, and each class spread as evenly as
    the groups allow.

    With fewer groups than folds, there are as many folds as groups. With a single group, the samples themselves are
    divided, since nothing would be left to validate on. A note states either. of: what `labels` number, in the plural,
    and choice: the setting that the folds choose, both for notes.
    """
    names, of_sample = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    notes = []
    if len(names) == 1 and len(labels) > 1:
        notes.append(f"all training samples share one group: folds are by image, and scores of {choice} are optimistic")
        names, of_sample = np.arange(len(labels)), np.arange(len(labels))
    if len(names) < count:
        notes.append(f"only {counted(len(names), 'group')}: {counted(len(names), 'fold')} instead of {count}")
        count = len(names)
    tables = _class_counts(labels, of_sample, len(names))
    notes += _scarce(tables, count, of)
    return Folds(of=_deal(tables, count)[of_sample], count=count, notes=tuple(notes))


def mean_score(metric: str, labels: NDArray[np.int64], values: NDArray[np.float64], folds: Folds) -> float:
    """The mean over the folds in which the metric is defined; NaN if it is defined in none."""
    scores = [metrics.score(metric, labels[folds.of == k], values[folds.of == k]) for k in range(folds.count)]
    defined = [value for value in scores if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def undecided(choice: str, cv: Mapping[str, float], chosen: float) -> Iterator[str]:
    """A note if the folds do not decide: none could be scored, or every value has the same score below the best one.

    choice: the setting that the folds choose. cv: the mean score over the folds for each of its values.
    """
    scores = {round(value, 12) for value in cv.values() if not np.isnan(value)}
    if not scores:
        yield f"no fold could be scored: {choice} = {chosen:g} is used"
    elif len(cv) > 1 and len(scores) == 1 and max(scores) < 1:
        alike = f"cross-validation cannot tell the values of {choice} apart"
        yield f"{alike}: all of them do equally well; {chosen:g} is used"


def _class_counts(labels: NDArray[np.int64], of_sample: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """The number of samples of each class in each group: (groups, classes that occur)."""
    _, label = np.unique(labels, return_inverse=True)
    tables = np.zeros((groups, int(label.max(initial=-1)) + 1), dtype=np.int64)
    np.add.at(tables, (of_sample, label), 1)
    return tables


def _scarce(tables: NDArray[np.int64], count: int, of: str) -> list[str]:
    spread = (tables > 0).sum(axis=0)
    scarce = int((spread < count).sum())
    if not scarce:
        return []
    verb = "occurs" if scarce == 1 else "occur"
    return [f"{scarce} of {len(spread)} {of} {verb} in fewer groups than there are folds: not in every fold"]


def _deal(tables: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Assign a fold to each group. The cost of a fold is the sum over classes of its squared share of the class."""
    shares = tables / np.maximum(tables.sum(axis=0), 1)
    weight = shares.max(axis=1, initial=0)
    order = np.lexsort((np.arange(len(tables)), -weight))
    held = np.zeros((count, tables.shape[1]))
    sizes = np.zeros(count, dtype=np.int64)
    fold_of = np.empty(len(tables), dtype=np.int64)
    for dealt, group in enumerate(order):
        added = ((held + shares[group]) ** 2 - held**2).sum(axis=1)
        must_fill = len(order) - dealt <= (sizes == 0).sum()
        closed = (sizes > 0) & must_fill
        fold = int(np.lexsort((np.arange(count), sizes, added.round(12), closed))[0])
        held[fold] += shares[group]
        sizes[fold] += tables[group].sum()
        fold_of[group] = fold
    return fold_of
