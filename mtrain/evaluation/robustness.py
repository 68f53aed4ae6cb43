"""Robustness of features to where samples come from: do the nearest neighbours share the class or the centre?

The robustness index of PathoROB (Kömen et al., "Towards robust foundation models for digital pathology",
arXiv:2507.17845; as in its code, pathorob/robustness_index): over all samples and their k nearest neighbours,

    index = SO / (SO + OS)

where SO counts neighbours of the same class and another centre, OS those of another class and the same centre.
Neighbours are by cosine (Euclidean distance of features of unit length), and never of the sample's own slide (group).
k is that of the highest balanced accuracy of the majority vote among K; PathoROB then takes, for all networks, the
median of these per dataset (11 for Camelyon, 46 for Tolkach ESCA), except for TCGA, where it forms pairs of classes and
centres (k = 61), which is not done here.

Accuracy by centre is that of the same vote; once with neighbours of all centres, and once with those of other centres
alone (leave one centre out). The latter is not part of PathoROB, whose average performance drop trains linear
classifiers on subsets with chosen correlations of class and centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpconvert.plural import counted
from mtrain.errors import UsageError
from mtrain.model.devices import find_device
from mtrain.scoring import bootstrap, metrics

MOST_NEIGHBOURS = 600
ROWS_AT_ONCE = 1024
Ints = NDArray[np.int64]
Features = NDArray[np.float32]


def candidates(most: int) -> list[int]:
    """The numbers of neighbours to choose from: 1, 3, 5, 7, 9, 11, 21, ... up to `most`."""
    return [k for k in (1, 3, 5, 7, 9, *range(11, MOST_NEIGHBOURS, 10)) if k <= most]


@dataclass(frozen=True)
class Samples:
    """Features (n, d), and class, centre and group (slide or patient) of each, (n,)."""

    features: Features
    label: Ints
    centre: NDArray[np.str_]
    group: NDArray[np.str_]

    def __post_init__(self) -> None:
        pairs = {(int(label), str(centre)) for label, centre in zip(self.label, self.centre, strict=True)}
        centres, classes = {centre for _, centre in pairs}, {label for label, _ in pairs}
        if len(centres) < 2 or len(classes) < 2:
            found = f"{len(classes)} and {len(centres)}"
            raise UsageError("robustness needs two classes and two centres at least", found=found)
        if len(pairs) == max(len(classes), len(centres)):
            what = "each class is of one centre, or each centre of one class"
            raise UsageError(f"class and centre cannot be told apart: {what}")
        if np.unique(self.group).size > 1 and _chance(self) in (None, 0.0, 1.0):
            raise UsageError(
                "robustness is not defined: neighbours are of other groups (slides or patients), and none of them can "
                "be of another class and the same centre, or of the same class and another centre",
                found=counted(np.unique(self.group).size, "group") + " of " + counted(len(centres), "centre"),
                remedy="name a column with --by whose values each have several groups and classes",
            )


@dataclass(frozen=True)
class Neighbours:
    """The K nearest samples of other groups, the nearest first, (n, K). elsewhere: the K nearest of other centres too;
    -1 where there are fewer.
    """

    nearest: Ints
    elsewhere: Ints


def neighbours(samples: Samples, device: str = "auto", most: int = MOST_NEIGHBOURS) -> Neighbours:
    """The neighbours of every sample; K is what every sample has, `most` at most.

    Raises:
        UsageError: all samples are of one group.
    """
    place = find_device(device)
    x = torch.nn.functional.normalize(torch.from_numpy(np.array(samples.features, np.float32)).to(place), dim=1)
    group, centre = (torch.from_numpy(_codes(of)).to(place) for of in (samples.group, samples.centre))
    count = min(most, len(x) - int(torch.bincount(group).max()))
    if count < 1:
        raise UsageError("robustness needs two groups (slides or patients) at least")
    near, far = [], []
    for rows in torch.split(torch.arange(len(x), device=place), ROWS_AT_ONCE):
        cosine = x[rows] @ x.T
        cosine[group[rows, None] == group] = -torch.inf
        near.append(cosine.topk(count, dim=1)[1].cpu())
        cosine[centre[rows, None] == centre] = -torch.inf
        value, which = cosine.topk(count, dim=1)
        far.append(torch.where(value == -torch.inf, -1, which).cpu())
    return Neighbours(torch.cat(near).numpy(), torch.cat(far).numpy())


def vote(label: Ints, chosen: Ints, k: int) -> Ints:
    """The most frequent label among the first k of `chosen` (n, K), of equal ones the smallest; -1 without any."""
    table = np.zeros((len(chosen), int(label.max()) + 1), np.int64)
    rows, columns = np.nonzero(chosen[:, :k] >= 0)
    np.add.at(table, (rows, label[chosen[rows, columns]]), 1)
    return np.where(table.any(axis=1), table.argmax(axis=1), -1)


def best_k(samples: Samples, found: Neighbours) -> int:
    """The number of neighbours with the highest balanced accuracy of the vote; of equal ones the smallest."""
    choices = candidates(found.nearest.shape[1])
    scores = [metrics.balanced_accuracy(samples.label, vote(samples.label, found.nearest, k)) for k in choices]
    return choices[int(np.argmax(np.round(scores, 12)))]


def counts(samples: Samples, chosen: Ints) -> tuple[Ints, Ints]:
    """For each sample, the numbers SO and OS among the chosen ones, (n,)."""
    same_class = samples.label[chosen] == samples.label[:, None]
    same_centre = samples.centre[chosen] == samples.centre[:, None]
    return (same_class & ~same_centre).sum(axis=1), (~same_class & same_centre).sum(axis=1)


def robustness(samples: Samples, found: Neighbours, k: int | None = None) -> dict[str, Any]:
    """The index with its interval by the bootstrap over groups, and the accuracies by centre.

    `chance` is the index if all other samples of other groups were neighbours alike: 0.5 where classes and centres are
    balanced. The index is None where no neighbour counts.
    """
    k = min(k or best_k(samples, found), found.nearest.shape[1])
    so, os = counts(samples, found.nearest[:, :k])
    group = _codes(samples.group)
    per_group = np.stack([np.bincount(group, so), np.bincount(group, os)], axis=1)
    drawn = bootstrap.drawn_weights(len(per_group)) @ per_group
    with np.errstate(invalid="ignore"):
        values = drawn[:, 0] / drawn.sum(axis=1)
    total = int(so.sum() + os.sum())
    right = vote(samples.label, found.nearest, k) == samples.label
    elsewhere = vote(samples.label, found.elsewhere, k)
    return {
        "k": k,
        "index": float(so.sum() / total) if total else None,
        "interval": bootstrap.interval(values) if len(per_group) > 1 and total else None,
        "chance": _chance(samples),
        "samples": len(samples.label),
        "groups": len(per_group),
        "balanced_accuracy": metrics.balanced_accuracy(samples.label, vote(samples.label, found.nearest, k)),
        "centres": [_by_centre(samples, str(centre), right, elsewhere) for centre in np.unique(samples.centre)],
    }


def _by_centre(samples: Samples, centre: str, right: NDArray[np.bool_], elsewhere: Ints) -> dict[str, Any]:
    here = samples.centre == centre
    return {
        "centre": centre,
        "samples": int(here.sum()),
        "accuracy": float(right[here].mean()),
        "accuracy_without": float((elsewhere == samples.label)[here].mean()),
    }


def _chance(samples: Samples) -> float | None:
    """The index of all samples of other groups, counted from the sizes of classes, centres and groups."""
    label, centre, group = samples.label, _codes(samples.centre), _codes(samples.group)
    of_class = _pairs([label]) - _pairs([label, group])
    of_centre = _pairs([centre]) - _pairs([centre, group])
    of_both = _pairs([label, centre]) - _pairs([label, centre, group])
    so, os = of_class - of_both, of_centre - of_both
    return so / (so + os) if so + os else None


def _pairs(codes: Sequence[Ints]) -> int:
    """The number of ordered pairs of samples that agree in all of these."""
    sizes = np.unique(np.stack(codes, axis=1), axis=0, return_counts=True)[1]
    return int((sizes.astype(np.int64) ** 2).sum())


def _codes(values: NDArray[np.str_]) -> Ints:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
