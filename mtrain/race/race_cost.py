"""Estimates the cost of a race before it is run: the expected cost, from simulated sweeps, and the worst case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dpconvert.plural import counted
from mtrain.race import decisions
from mtrain.race.agenda import RaceAgenda, describe
from mtrain.race.decisions import Rules
from mtrain.race.simulation import race
from mtrain.race.worlds import ScoreModel, world
from mtrain.sweep.cells import Cell
from mtrain.sweep.left_out import LeftOut
from mtrain.sweep.sweep_cost import Kind, Pace, images_of, kind_of, span

WORLDS, DRAWS = 20, 100


@dataclass(frozen=True)
class Stage:
    """One rung: the combinations that enter it, and the hours that it adds (further training and scoring)."""

    share: float
    seeds: int
    expected: float
    worst: int
    hours_each: float


@dataclass(frozen=True)
class RacePlan:
    """Cost in shares of the full grid's iterations and in hours on one device. Existing results are not subtracted."""

    combinations: int
    contests: int
    stages: tuple[Stage, ...]
    share_expected: float
    share_worst: float
    hours_expected: float
    hours_worst: float
    hours_full: float

    def json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self, sweep: str) -> list[str]:
        """The plan in words."""
        head = f"{sweep}: race of {counted(self.combinations, 'combination')} in {counted(self.contests, 'contest')}"
        return [
            head,
            *(
                f"  {describe(stage.share, stage.seeds)}: {stage.expected:.1f} combinations expected, "
                f"{stage.worst} at worst"
                for stage in self.stages
            ),
            f"expected: {span(self.hours_expected)} on one device like this, {self.share_expected:.1%} of the "
            f"iterations of the full grid (mean of {WORLDS} simulated sweeps)",
            f"at worst: {span(self.hours_worst)}, {self.share_worst:.1%}; the full grid: {span(self.hours_full)}",
        ]


def plan(agenda: RaceAgenda, sets: Sequence[LeftOut], paces: Mapping[Kind, Pace]) -> RacePlan:
    """Plan a race. paces: seconds per step, by kind of cell."""
    rules, combinations = agenda.rules, len(agenda.combinations)
    networks = [combination.backbone for combination in agenda.combinations]
    of = [networks.index(network) for network in networks] if agenda.per_network else None
    contests = (1 + len(agenda.tasks)) * len(set(of or [0]))
    whole = combinations * len(agenda.seeds)
    expected = _entering(agenda, of)
    worst = [min(combinations, contests * keep) for keep in _keeps(rules, combinations)]
    hours = _hours(agenda, sets, paces)
    full = _hours_of(agenda, sets, paces, 0.0, 1.0) * whole
    stages = tuple(
        Stage(rung.share, rung.seeds, float(mean), most, each)
        for rung, mean, most, each in zip(rules.rungs, expected, worst, hours, strict=True)
    )
    return RacePlan(
        combinations=combinations,
        contests=contests,
        stages=stages,
        share_expected=_share(rules, expected) / whole,
        share_worst=_share(rules, worst) / whole,
        hours_expected=sum(stage.expected * stage.hours_each for stage in stages),
        hours_worst=sum(stage.worst * stage.hours_each for stage in stages),
        hours_full=full,
    )


def _keeps(rules: Rules, combinations: int) -> list[int]:
    """Number of combinations that enter each rung for one target."""
    return [combinations, *(rung.keep for rung in rules.rungs[:-1])]


def _entering(agenda: RaceAgenda, networks: Sequence[int] | None) -> list[float]:
    """Mean number of combinations that enter each rung in simulated sweeps."""
    rules = replace(agenda.rules, draws=DRAWS)
    shape = len(agenda.tasks), len(agenda.seeds)
    found = [
        race(rules, world(ScoreModel(), agenda.combinations, *shape, np.random.default_rng(number)), networks).entering
        for number in range(WORLDS)
    ]
    return [float(mean) for mean in np.mean(found, axis=0)]


def _share(rules: Rules, entering: Sequence[float]) -> float:
    """Cost, in complete runs of one left-out set, if so many combinations enter each rung from the one below."""
    numbers = [decisions.cost(Rules((rung,)), [{0}]) for rung in rules.rungs]
    return sum(count * (cost - below) for count, cost, below in zip(entering, numbers, [0.0, *numbers], strict=False))


def _hours(agenda: RaceAgenda, sets: Sequence[LeftOut], paces: Mapping[Kind, Pace]) -> list[float]:
    """Hours that a combination adds in each rung: the rest of its first run, and runs with further seeds."""
    whole, share, seeds, found = _hours_of(agenda, sets, paces, 0.0, 1.0), 0.0, 1, []
    for rung in agenda.rules.rungs:
        first = _hours_of(agenda, sets, paces, share, rung.share) if rung.share > share else 0.0
        found.append(first + (rung.seeds - seeds) * whole)
        share, seeds = rung.share, rung.seeds
    return found


def _hours_of(
    agenda: RaceAgenda, sets: Sequence[LeftOut], paces: Mapping[Kind, Pace], share: float, to: float
) -> float:
    """Mean hours to train a combination and seed from one share of its length to another and to score it there, in all
    left-out sets. A shared warm-up is counted in equal parts.
    """
    images = {left.names: images_of(left, agenda.cells[0].transfer) for left in sets}
    cells = [cell for cell in agenda.cells if cell.whole and cell.config.seed == agenda.seeds[0]]
    sharing = Counter(cell.warmup for cell in cells)

    def seconds(cell: Cell) -> float:
        pace, config = paces[kind_of(cell)], cell.config
        warm = 0.0 if share else config.warmup * pace.warm / sharing[cell.warmup]
        return warm + (to - share) * (config.iterations - config.warmup) * pace.step + images[cell.tasks] * pace.image

    return sum(map(seconds, cells)) / len(agenda.combinations) / 3600
