"""Scores by combination, task and seed in; seed means, ranks, winners and how sure they are out. Arrays only.

The rule of selection is the paper's: per task the combinations are ranked by their mean over the seeds (1 = best), the
ranks are averaged over the tasks, and what wins for a target is the smallest average that leaves the target's own rank
out.
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
DIGITS = 9  # means that differ by less are equal: they were summed in another order
INTERVAL = (2.5, 97.5)
AT_ONCE = 100  # draws of a bootstrap


@dataclass(frozen=True)
class ScoreGrid:
    """scores (combinations, tasks, seeds): higher is better, nan where there is none, -inf for a diverged training."""

    combinations: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: Values

    def holes(self) -> list[str]:
        """What is missing, in words."""
        return [
            f"{self.combinations[c]} on {self.tasks[t]} with seed {self.seeds[s]}"
            for c, t, s in np.argwhere(np.isnan(self.scores))
        ]


@dataclass(frozen=True)
class Bootstrap:
    """low, high: 95 % interval of each combination's mean rank; wins: how often it had the smallest."""

    low: Values
    high: Values
    wins: Values


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (over n - 1) of the scores of several seeds.

    std: None for one value, of which it is not known; 0 for one that depends on no seed.
    """

    mean: float
    std: float | None
    count: int

    @property
    def spread(self) -> float | None:
        """The deviation where there is one to be shown: of two values or more."""
        return self.std if self.count > 1 else None


def check_complete(grid: ScoreGrid, remedy: str) -> None:
    """Raises:
    UsageError: a score is missing; names the first ones and how many there are.
    """
    if not grid.scores.size:
        raise UsageError("no score yet: nothing to compare", remedy=remedy)
    holes = grid.holes()
    if holes:
        more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
        what = f"{len(holes)} of {grid.scores.size} scores are missing: {', '.join(holes[:3])}{more}"
        raise UsageError(what, remedy=remedy)


def seed_means(scores: Values) -> Values:
    """(combinations, tasks): the mean over the seeds that are there, nan without any; -inf if one diverged."""
    there = ~np.isnan(scores)
    counts = there.sum(axis=-1)
    sums = np.where(there, scores, 0.0).sum(axis=-1)
    means: Values = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def task_ranks(means: Values) -> Values:
    """The rank of each combination (axis -2) on each task (axis -1): 1 = highest mean, ties averaged, nan stays."""
    missing = np.isnan(means)
    policy: Literal["omit", "propagate"] = "omit" if missing.any() else "propagate"  # the latter is fast
    ranks: Values = stats.rankdata(-np.round(means, DIGITS), axis=-2, nan_policy=policy)
    return np.where(missing, np.nan, ranks)


def mean_ranks(ranks: Values, without: int | None = None) -> Values:
    """The average over the tasks, less the task number `without`; nan for a combination with no rank left."""
    kept = ranks if without is None else np.delete(ranks, without, axis=-1)
    return seed_means(kept)


def winners(ranks: Values) -> list[int | None]:
    """For each task as the target: the combination with the smallest mean rank on the others, the first of equals.

    None where there is no other task to judge by.
    """
    return [best(mean_ranks(ranks, task)) for task in range(ranks.shape[-1])]


def best(means: Values) -> int | None:
    """Where the smallest mean rank is; the first of equals; None when all are nan."""
    rounded = np.round(means, DIGITS)
    return None if np.isnan(rounded).all() else int(np.nanargmin(rounded))


def friedman(ranks: Values) -> tuple[float, float] | None:
    """Friedman's chi-square and its p: do the combinations differ at all, with the tasks as blocks?

    None where the test is not defined: fewer than three combinations or two tasks with all of them, or nothing but
    ties.
    """
    complete = ranks[:, ~np.isnan(ranks).any(axis=0)]
    if complete.shape[0] < 3 or complete.shape[1] < 2 or (complete == complete[0]).all():
        return None
    statistic, p = stats.friedmanchisquare(*complete)
    return float(statistic), float(p)


def bootstrap(grid: ScoreGrid, draws: int = 1000, seed: int = 0) -> Bootstrap:
    """Mean ranks of grids in which the tasks, and within each task and combination the seeds, were drawn again."""
    rng = np.random.default_rng(seed)
    shape = grid.scores.shape
    ordered = np.sort(grid.scores, axis=-1)  # nan last
    there = (~np.isnan(ordered)).sum(axis=-1, keepdims=True)
    parts = []
    for start in range(0, draws, AT_ONCE):
        drawn = [(rng.integers(shape[1], size=shape[1]), rng.random(shape)) for _ in range(min(AT_ONCE, draws - start))]
        chosen = (np.stack([seeds for _, seeds in drawn]) * there).astype(int)
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
    """Of at least one value. seeded: whether another seed would give another value."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None if seeded else 0.0
    return Summary(float(np.mean(values)), spread, len(values))


def significant(one: Summary, other: Summary) -> bool:
    """The paper's rule: the difference of the means exceeds twice the larger of the two standard deviations.

    Never where a deviation is not known.
    """
    apart, least = abs(one.mean - other.mean), margin(one, other)
    return least is not None and apart > least and not math.isclose(apart, least, rel_tol=1e-9, abs_tol=1e-12)


def margin(one: Summary, other: Summary) -> float | None:
    """Twice the larger standard deviation; None where one is not known."""
    return None if one.std is None or other.std is None else 2 * max(one.std, other.std)
