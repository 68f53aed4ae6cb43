"""What was found of the masks and points of each scored sample, as counts: scores of any draw of groups, and a file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtrain.atomic import replacing
from mtrain.scoring.bootstrap import drawn_weights
from mtrain.scoring.dense import Counts, by_group, dense_scores, scores_of_counts
from mtrain.scoring.metrics import Values


@dataclass(frozen=True)
class DenseAnswers:
    """Counts of each sample. key, group: (n,). seg, kinds: the classes of masks and of points, () if there are none.

    tables: confusion matrices of pixels (n, classes, classes), rows are true classes. hits: hits, false positives and
    misses of points (n, classes, 3). None for a kind that the task does not have.
    """

    key: NDArray[np.str_]
    group: NDArray[np.str_]
    tables: Counts | None
    hits: Counts | None
    seg: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    def scored(self) -> dict[str, Any]:
        """Return the entries of a result: all scores, intervals over groups, and numbers of samples and of points."""
        scores, intervals, numbers = dense_scores(
            [str(group) for group in self.group], self.tables, self.hits, self.seg, self.kinds
        )
        groups = len(np.unique(self.group))
        return {
            "scores": scores, "intervals": intervals, "samples": len(self.key), "groups": groups, "objects": numbers,
        }  # fmt: skip

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
        return found[metric]

    def same_samples(self, other: object) -> bool:
        """Whether the other answers are on the same pixels and objects of the same samples."""
        return (
            isinstance(other, DenseAnswers)
            and np.array_equal(self.key, other.key)
            and (self.seg, self.kinds) == (other.seg, other.kinds)
            and all(np.array_equal(one, two) for one, two in zip(self._truth(), other._truth(), strict=True))
        )

    def _truth(self) -> tuple[Counts, Counts]:
        """The true pixels of each class, and the true objects: (n, classes) each."""
        none = np.zeros((len(self.key), 0), np.int64)
        pixels = none if self.tables is None else self.tables.sum(2)
        return pixels, none if self.hits is None else self.hits[:, :, 0] + self.hits[:, :, 2]


def write_counts(path: Path, answers: DenseAnswers) -> None:
    """Write the counts of each sample, so that any other score can be computed later."""
    arrays: dict[str, NDArray[Any]] = {"key": answers.key, "group": answers.group}
    arrays |= {"seg_classes": np.array(answers.seg, np.str_), "point_classes": np.array(answers.kinds, np.str_)}
    if answers.tables is not None:
        arrays["seg"] = answers.tables
    if answers.hits is not None:
        arrays["points"] = answers.hits
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_counts(path: Path) -> DenseAnswers | None:
    """Read a file of `write_counts`; return None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        seg, kinds = (tuple(map(str, arrays[name])) for name in ("seg_classes", "point_classes"))
        return DenseAnswers(arrays["key"], arrays["group"], arrays.get("seg"), arrays.get("points"), seg, kinds)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
