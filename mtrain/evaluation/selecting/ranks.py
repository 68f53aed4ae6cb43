"""From scores by combination, task and seed to seed means, ranks and winners with their uncertainty. Arrays only.

The selection rule is the paper's: for each task, combinations are ranked by their mean over the seeds (1 = best). The
ranks are averaged over the tasks. The winner for a target has the smallest average, in which the target's own rank does
not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mtrain.errors import UsageError

Values = NDArray[np.float64]
DIGITS = 9  # means that differ by less count as equal, since the order of summation changes them
INTERVAL = (2.5, 97.5)
AT_ONCE = 100  # draws of a bootstrap


@dataclass(frozen=True)
class ScoreGrid:
    """scores: (combinations, tasks, seeds), higher is better. NaN: missing. -inf: the training diverged."""

    combinations: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: Values

    def holes(self) -> list[str]:
        """The missing scores, for messages."""
        return [
            f"{self.combinations[c]} on {self.tasks[t]} with seed {self.seeds[s]}"
            for c, t, s in np.argwhere(np.isnan(self.scores))
        ]


@dataclass(frozen=True)
class Bootstrap:
    """low, high: 95% interval of the mean rank of each combination. wins: share of draws in which it was smallest."""

    low: Values
    high: Values
    wins: Values


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (over n - 1) of the scores of several seeds.

    std: None if there is a single value, for which it is unknown; 0 if the value does not depend on a seed.
    """

    mean: float
    std: float | None
    count: int

    @property
    def spread(self) -> float | None:
        """The standard deviation if there are two or more values, else None."""
        return self.std if self.count > 1 else None


def check_complete(grid: ScoreGrid, remedy: str) -> None:
    """Raises:
    UsageError: scores are missing; the message has their number and the first ones.
    """
    if not grid.scores.size:
        raise UsageError("no score yet: nothing to compare", remedy=remedy)
    holes = grid.holes()
    if holes:
        more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
        what = f"{len(holes)} of {grid.scores.size} scores are missing: {', '.join(holes[:3])}{more}"
        raise UsageError(what, remedy=remedy)


def seed_means(scores: Values) -> Values:
    """The mean over the available seeds: (combinations, tasks). NaN if there is none, -inf if one diverged."""
    defined = ~np.isnan(scores)
    counts = defined.sum(axis=-1)
    sums = np.where(defined, scores, 0.0).sum(axis=-1)
    means: Values = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def task_ranks(means: Values) -> Values:
    """The rank of each combination (axis -2) on each task (axis -1). 1: highest mean. Ties are averaged; NaN stays."""
    missing = np.isnan(means)
    policy: Literal["omit", "propagate"] = "omit" if missing.any() else "propagate"  # the latter is fast
    ranks: Values = stats.rankdata(-np.round(means, DIGITS), axis=-2, nan_policy=policy)
    return np.where(missing, np.nan, ranks)


def mean_ranks(ranks: Values, without: int | None = None) -> Values:
    """The average over the tasks except number `without`; NaN for a combination without ranks."""
    kept = ranks if without is None else np.delete(ranks, without, axis=-1)
    return seed_means(kept)


def winners(ranks: Values) -> list[int | None]:
    """For each task as the target: the combination with the smallest mean rank on the others; of equals, the first.

    None if there is no other task.
    """
    return [best(mean_ranks(ranks, task)) for task in range(ranks.shape[-1])]


def best(means: Values) -> int | None:
    """The index of the smallest mean rank (of equals, the first); None if all are NaN."""
    rounded = np.round(means, DIGITS)
    return None if np.isnan(rounded).all() else int(np.nanargmin(rounded))


def friedman(ranks: Values) -> tuple[float, float] | None:
    """Chi-square and p-value of Friedman's test, with the tasks as blocks: do the combinations differ at all?

    None if the test is undefined: fewer than three combinations, fewer than two complete tasks, or only ties.
    """
    complete = ranks[:, ~np.isnan(ranks).any(axis=0)]
    if complete.shape[0] < 3 or complete.shape[1] < 2 or (complete == complete[0]).all():
        return None
    statistic, p = stats.friedmanchisquare(*complete)
    return float(statistic), float(p)


def bootstrap(grid: ScoreGrid, draws: int = 1000, seed: int = 0) -> Bootstrap:
    """Mean ranks of resampled grids. Tasks are drawn with replacement, as are the seeds of a task and combination."""
    rng = np.random.default_rng(seed)
    shape = grid.scores.shape
    ordered = np.sort(grid.scores, axis=-1)  # NaN comes last
    defined = (~np.isnan(ordered)).sum(axis=-1, keepdims=True)
    parts = []
    for start in range(0, draws, AT_ONCE):
        drawn = [(rng.integers(shape[1], size=shape[1]), rng.random(shape)) for _ in range(min(AT_ONCE, draws - start))]
        chosen = (np.stack([seeds for _, seeds in drawn]) * defined).astype(int)
        table = task_ranks(seed_means(np.take_along_axis(ordered[None], chosen, axis=-1)))
        tasks = np.stack([tasks for tasks, _ in drawn])[:, None]
        parts.append(mean_ranks(np.take_along_axis(table, tasks, axis=-1)))
    found = np.concatenate(parts)
    low, high = _percentiles(found)
    rounded = np.round(found, DIGITS)
    first = rounded == np.fmin.reduce(rounded, axis=1, keepdims=True)
    return Bootstrap(low, high, (first / np.maximum(first.sum(axis=1, keepdims=True), 1)).mean(axis=0))


def _percentiles(found: Values) -> tuple[Values, Values]:
    bounds = [np.percentile(v[~np.isnan(v)], INTERVAL) if (~np.isnan(v)).any() else (np.nan, np.nan) for v in found.T]
    low, high = np.asarray(bounds, dtype=np.float64).reshape(-1, 2).T
    return low, high


def summary(values: Sequence[float], *, seeded: bool = True) -> Summary:
    """The summary of one or more values. seeded: whether the values depend on a seed."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None if seeded else 0.0
    return Summary(float(np.mean(values)), spread, len(values))


def significant(one: Summary, other: Summary) -> bool:
    """The paper's rule: whether the difference of the means exceeds twice the larger standard deviation.

    False where the rule is undefined: see `margin`.
    """
    apart, least = abs(one.mean - other.mean), margin(one, other)
    return least is not None and apart > least and not math.isclose(apart, least, rel_tol=1e-9, abs_tol=1e-12)


def margin(one: Summary, other: Summary) -> float | None:
    """Twice the larger standard deviation; None if one is unknown, or if both are 0 and the seeds do not differ."""
    return None if one.std is None or other.std is None else 2 * max(one.std, other.std) or None
