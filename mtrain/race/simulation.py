"""Simulates races and full grids: what they cost, and how good their choices are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mtrain.evaluation.selecting import ranks
from mtrain.evaluation.selecting.ranks import Values
from mtrain.race import decisions
from mtrain.race.decisions import Contest, Rules


class ScoredGrid(Protocol):
    """A sweep whose scores are known: a simulated or a recorded one."""

    @property
    def quality(self) -> Values:
        """(combinations, tasks): the expected score of a complete training."""

    def scores(self, share: float, seeds: int, *, together: bool = False) -> Values:
        """Scores (combinations, tasks, seeds) of training runs up to this share of their length."""


@dataclass(frozen=True)
class Raced:
    """The outcome of a race in known scores.

    entering: number of combinations in each rung.
    cost: in complete runs of one left-out set.
    chosen: combination chosen for each task as the target.
    """

    entering: tuple[int, ...]
    cost: float
    chosen: tuple[int, ...]


def race(rules: Rules, world: ScoredGrid, networks: Sequence[int] | None = None, *, together: bool = False) -> Raced:
    """Race a sweep to its end.

    networks: network of each combination if each network has a separate race; the choice for a target is then made
        among the finalists of all networks.
    """
    if len(rules.rungs) == 1:  # a grid
        return _grid(rules, world, together=together)
    scores = [world.scores(rung.share, rung.seeds, together=together) for rung in rules.rungs]
    combinations, tasks = world.quality.shape
    of = np.zeros(combinations, int) if networks is None else np.asarray(networks)
    fields = [tuple(map(int, np.flatnonzero(of == network))) for network in np.unique(of)]
    outcomes = {
        (target, number): decisions.decide(rules, Contest(target, field), scores)
        for target in (None, *range(tasks))
        for number, field in enumerate(fields)
    }
    entering = decisions.wanted(list(outcomes.values()))
    chosen = []
    for target in range(tasks):
        finalists = sorted(c for number in range(len(fields)) for c in outcomes[target, number].finalists or ())
        best = decisions.choose(np.delete(scores[-1][finalists], target, axis=1))
        chosen.append(finalists[best or 0])
    return Raced(tuple(map(len, entering)), decisions.cost(rules, entering), tuple(chosen))


def _grid(rules: Rules, world: ScoredGrid, *, together: bool) -> Raced:
    """The paper's protocol, applied to all combinations."""
    rung, combinations = rules.rungs[0], len(world.quality)
    table = ranks.task_ranks(ranks.seed_means(world.scores(rung.share, rung.seeds, together=together)))
    cost = decisions.cost(rules, [set(range(combinations))])
    return Raced((combinations,), cost, tuple(best or 0 for best in ranks.winners(table)))


def regret(world: ScoredGrid, chosen: Sequence[int]) -> float:
    """How much worse the chosen combinations are than the best one of each task, on average."""
    tasks = np.arange(len(chosen))
    lost: float = np.mean(world.quality.max(axis=0) - world.quality[np.asarray(chosen), tasks])
    return lost
