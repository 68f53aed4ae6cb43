"""Simulated sweeps: scores of combinations whose true quality is known, with stated noise.

They serve to estimate what a race costs before it is run, and to measure what it loses against the full grid
(`benchmarks/race`). The model follows what the paper reports about its own grid: the learning rate matters most, the
highest one is unstable, and tau and warm-up matter little and differently for each task. The parameters are
assumptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtrain.evaluation.selecting.ranks import Values
from mtrain.sweep.combination import Combination
from mtrain.sweep.spec import TUNING

ALWAYS = ("backbone", "lr", "tau", "warmup")  # axes of every sweep


@dataclass(frozen=True)
class ScoreModel:
    """Standard deviations of what a score consists of, in arbitrary units of the score.

    rate, axis: effects of the values of the learning rate and of every other axis, common to all tasks. by_task: of
    each value on each task. rest: of each combination on each task. seed: of two runs that differ in their seed;
    `unstable` times as much at the highest rate. late: how much a beginning of no length underrates the lowest rate
    relative to the highest one. early: further errors of a beginning of no length, of each combination on each task.
    kept: correlation of the seed's noise between a beginning and the whole training. smaller_pool: of each combination
    on each task where several sets are left out together.
    """

    rate: float = 1.0
    axis: float = 0.15
    by_task: float = 0.2
    rest: float = 0.1
    seed: float = 0.35
    unstable: float = 2.0
    late: float = 1.0
    early: float = 0.3
    kept: float = 0.5
    smaller_pool: float = 0.1


@dataclass(frozen=True)
class World:
    """A simulated sweep.

    quality: (combinations, tasks), the expected score of a whole training.
    noise: (combinations, tasks, seeds), and that of partial runs.
    penalty: (combinations, tasks), by how much a training of length zero is underrated.
    """

    quality: Values
    noise: Values
    early_noise: Values
    penalty: Values
    shift: Values
    kept: float

    def scores(self, share: float, seeds: int, *, together: bool = False) -> Values:
        """Scores (combinations, tasks, seeds) of runs up to this share of their length."""
        quality = self.quality + self.shift if together else self.quality
        whole, apart = self.noise[:, :, :seeds], self.early_noise[:, :, :seeds]
        noise = whole if share == 1 else self.kept * whole + np.sqrt(1 - self.kept**2) * apart
        found: Values = (quality - (1 - share) * self.penalty)[:, :, None] + noise
        return found


def world(
    model: ScoreModel, combinations: Sequence[Combination], tasks: int, seeds: int, rng: np.random.Generator
) -> World:
    """Draw a sweep."""
    shape = len(combinations), tasks
    quality = rng.normal(0, model.rest, shape)
    for name in (*ALWAYS, *TUNING):
        values = sorted({getattr(combination, name) for combination in combinations})
        if len(values) == 1 and name not in ALWAYS:
            continue
        rows = [values.index(getattr(combination, name)) for combination in combinations]
        common = rng.normal(0, model.rate if name == "lr" else model.axis, (len(values), 1))
        quality += (common + rng.normal(0, model.by_task, (len(values), tasks)))[rows]
    rates = np.log([combination.lr for combination in combinations])
    low = (rates.max() - rates) / max(np.ptp(rates), 1e-9)  # 0 for the highest rate, 1 for the lowest one
    deviation = (model.seed * np.where(low == 0, model.unstable, 1))[:, None, None]
    noise, early_noise = (deviation * rng.normal(size=(*shape, seeds)) for _ in range(2))
    penalty = model.late * low[:, None] + rng.normal(0, model.early, shape)
    return World(quality, noise, early_noise, penalty, rng.normal(0, model.smaller_pool, shape), model.kept)
