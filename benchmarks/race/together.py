"""Compares a sweep that leaves out one set a training with the same sweep that leaves out several (`together = 4`).

For each target: the rank correlation of the combinations' mean scores in both, and, as what noise alone leaves of it,
that of two seeds of the first sweep. Intervals: 95%, by the bootstrap over combinations. Run both sweeps to the end
before:

    python benchmarks/race/together.py sweeps/one sweeps/four
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mtrain.evaluation.selecting import selection
from mtrain.sweep.store import Store

DRAWS = 2000


def main() -> None:
    """Print a line for each target and one for all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("several", type=Path)
    given = parser.parse_args()
    one, several = (selection.select(Store(path)) for path in (given.one, given.several))
    if (one.combinations, one.grid.tasks) != (several.combinations, several.grid.tasks):
        parser.error("the sweeps have other combinations or targets")
    a, b = one.grid.scores, several.grid.scores  # (combinations, tasks, seeds)
    print("| target | one and several | two seeds of one |\n|---|---:|---:|")  # noqa: T201
    rows: list[tuple[str, list[int]]] = [(task, [number]) for number, task in enumerate(one.grid.tasks)]
    for name, tasks in [*rows, ("mean of all", list(range(len(rows))))]:
        both = _told(a[:, tasks].mean(axis=2), b[:, tasks].mean(axis=2))
        print(f"| {name} | {both} | {_told(a[:, tasks, 0], a[:, tasks, 1])} |")  # noqa: T201
    print(f"\nshare of the deviation within combinations: {_noise(a):.0%} with one, {_noise(b):.0%} with several")  # noqa: T201


def _told(a: NDArray[Any], b: NDArray[Any]) -> str:
    """The mean of the rank correlations of the columns of two tables (combinations, tasks), with its interval."""
    random = np.random.default_rng(0)
    drawn = [_mean(a[rows], b[rows]) for rows in random.integers(0, len(a), (DRAWS, len(a)))]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return f"{_mean(a, b):+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")


def _mean(a: NDArray[Any], b: NDArray[Any]) -> float:
    """NaN if a column is constant: nothing is ranked."""
    varied = [t for t in range(a.shape[1]) if np.ptp(a[:, t]) > 0 and np.ptp(b[:, t]) > 0]
    return float(np.mean([spearmanr(a[:, t], b[:, t]).statistic for t in varied])) if varied else float("nan")


def _noise(scores: NDArray[Any]) -> float:
    """Mean over tasks of: deviation over the seeds of a combination, over that of all scores of the task."""
    within = np.sqrt(scores.var(axis=2).mean(axis=0))
    return float((within / scores.std(axis=(0, 2))).mean())


if __name__ == "__main__":
    main()
