"""What was found of the masks and points of each scored sample, as counts: scores of any draw of groups, and a file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtrain.disk.atomic import replacing
from mtrain.scoring.bootstrap import drawn_weights, interval
from mtrain.scoring.dense import Counts, by_group, dense_scores, scores_of_counts
from mtrain.scoring.metrics import Values
from mtrain.scoring.panoptic import Matches, panoptic_scores


@dataclass(frozen=True)
class DenseAnswers:
    """Counts of each sample. key, group: (n,). seg, kinds: the classes of masks and of points, () if there are none.

    tables: confusion matrices of pixels (n, classes, classes), rows are true classes. hits: hits, false positives and
    misses of points (n, classes, 3). panoptic: matches of instances (n, classes, 4), of the classes `instances`, as
    mtrain.scoring.panoptic counts them. None for a kind that the task does not have.
    """

    key: NDArray[np.str_]
    group: NDArray[np.str_]
    tables: Counts | None
    hits: Counts | None
    seg: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    panoptic: Matches | None = None
    instances: tuple[str, ...] = ()

    def scored(self) -> dict[str, Any]:
        """Return the entries of a result: all scores, intervals over groups, and numbers of samples and of points."""
        scores, intervals, numbers = dense_scores(
            [str(group) for group in self.group], self.tables, self.hits, self.seg, self.kinds
        )
        names, group = np.unique(self.group, return_inverse=True)
        groups = len(names)
        if self.panoptic is not None:
            whole = panoptic_scores(self.panoptic.sum(0)[None], self.instances)
            scores |= {name: float(values[0]) for name, values in whole}
            found = {name: interval(values) for name, values in self._panoptic_draws(group, groups)}
            intervals |= {name: one for name, one in found.items() if one is not None}
        return {
            "scores": scores,
            "intervals": intervals,
            "samples": len(self.key),
            "groups": groups,
            "objects": numbers,
        }

    def _panoptic_draws(self, group: NDArray[np.int64], groups: int) -> Iterator[tuple[str, Values]]:
        """Return the scores of instances in each draw of groups; none for a single group."""
        if self.panoptic is not None and groups > 1:
            sums = np.tensordot(drawn_weights(groups), by_group(self.panoptic, group, groups), 1)
            yield from panoptic_scores(sums, self.instances)

    def drawn(self, metric: str) -> Values | None:
        """Return one score in each draw of groups, (draws,); None for a single group. Draw i has the same groups for
        all answers on the same samples.
        """
        names, group = np.unique(self.group, return_inverse=True)
        if len(names) < 2:
            return None
        tables, hits = (
            None if part is None else by_group(part, group, len(names)) for part in (self.tables, self.hits)
        )
        found = dict(scores_of_counts(drawn_weights(len(names)), tables, hits, self.seg, self.kinds))
        found |= dict(self._panoptic_draws(group, len(names)))
        return found[metric]

    def same_samples(self, other: object) -> bool:
        """Whether the other answers are on the same pixels and objects of the same samples."""
        return (
            isinstance(other, DenseAnswers)
            and np.array_equal(self.key, other.key)
            and (self.seg, self.kinds, self.instances) == (other.seg, other.kinds, other.instances)
            and all(np.array_equal(one, two) for one, two in zip(self._truth(), other._truth(), strict=True))
        )

    def _truth(self) -> tuple[NDArray[Any], ...]:
        """The true pixels of each class, the true points, and the true instances: (n, classes) each."""
        none = np.zeros((len(self.key), 0), np.int64)
        pixels = none if self.tables is None else self.tables.sum(2)
        objects = none if self.panoptic is None else self.panoptic[:, :, 1] + self.panoptic[:, :, 3]
        return pixels, none if self.hits is None else self.hits[:, :, 0] + self.hits[:, :, 2], objects


def write_counts(path: Path, answers: DenseAnswers) -> None:
    """Write the counts of each sample, so that any other score can be computed later."""
    arrays: dict[str, NDArray[Any]] = {"key": answers.key, "group": answers.group}
    arrays |= {"seg_classes": np.array(answers.seg, np.str_), "point_classes": np.array(answers.kinds, np.str_)}
    if answers.tables is not None:
        arrays["seg"] = answers.tables
    if answers.hits is not None:
        arrays["points"] = answers.hits
    if answers.panoptic is not None:
        arrays |= {"instances": answers.panoptic, "instance_classes": np.array(answers.instances, np.str_)}
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_counts(path: Path) -> DenseAnswers | None:
    """Read a file of `write_counts`; return None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        seg, kinds = (tuple(map(str, arrays[name])) for name in ("seg_classes", "point_classes"))
        instances = tuple(map(str, arrays.get("instance_classes", ())))
        return DenseAnswers(
            arrays["key"],
            arrays["group"],
            arrays.get("seg"),
            arrays.get("points"),
            seg,
            kinds,
            arrays.get("instances"),
            instances,
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
