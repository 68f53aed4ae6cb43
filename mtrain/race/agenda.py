"""Decides from the results of a sweep which cells its race runs next. Nothing but the results matters.

Any number of processes, on machines that share the folder, work off one race together: each computes the same decisions
from the same files, in whatever order these arrived, and a killed race continues from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.errors import UsageError
from mtrain.evaluation.selecting.ranks import Values
from mtrain.evaluation.selecting.selection import score_of
from mtrain.race import decisions
from mtrain.race.decisions import Contest, Outcome, Rules, Rung, Verdict
from mtrain.sweep.cell_records import Result
from mtrain.sweep.cells import Cell, cells_of
from mtrain.sweep.combination import Combination
from mtrain.sweep.left_out import LeftOut
from mtrain.sweep.race_record import NAME, ContestRecord, RaceRecord, RungRecord, write_record
from mtrain.sweep.race_settings import Race
from mtrain.sweep.spec import Sweep
from mtrain.sweep.store import Store

Place = tuple[float, int, tuple[str, ...], Combination]  # share of the length, seed, tasks, combination


@dataclass(frozen=True)
class RaceAgenda:
    """The race of a sweep. ladder: cells of each length. groups: tasks that each training scores."""

    rules: Rules
    combinations: tuple[Combination, ...]
    groups: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]
    per_network: bool
    ladder: Mapping[Place, Cell]
    known: dict[str, Result] = field(default_factory=dict, compare=False)
    noted: set[int] = field(default_factory=set, compare=False)
    grows: bool = True

    @property
    def cells(self) -> Sequence[Cell]:
        return list(self.ladder.values())

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task for group in self.groups for task in group)

    def due(self, store: Store, report: Reporter) -> list[Cell]:
        """Cells to run according to the decisions so far; those of the last rungs come first. One whose beginning is
        needed too waits for it, and continues from there.
        """
        outcomes = self.outcomes(store)
        with store.claimed(NAME) as ours:  # otherwise another process is writing the record, and will see the results
            if ours:
                outcomes = self.outcomes(store)
                write_record(store, self.record(outcomes))
        for line in self._closed(outcomes):
            report.note(f"{store.name}: {line}")
        due = [cell for cell in self._asked_for(outcomes) if cell.digest not in self.known]
        begin = {cell.training for cell in due}
        # of few iterations, two rungs may be one training
        return [cell for cell in due if begin.isdisjoint({*cell.prefixes} - {cell.training})]

    def outcomes(self, store: Store) -> list[Outcome]:
        """What the existing results decide in each contest."""
        while True:
            outcomes = self._decided()
            new = False
            for cell in self._asked_for(outcomes):
                if cell.digest not in self.known and (result := store.result(cell.digest)) is not None:
                    self.known[cell.digest] = result
                    new = True
            if not new:
                return outcomes

    def record(self, outcomes: Sequence[Outcome]) -> RaceRecord:
        """The content of race.json."""
        tasks = self._scored_tasks()
        whole = len(self.combinations) * len(self.seeds)
        cost = decisions.cost(self.rules, decisions.wanted(outcomes)) / whole
        return RaceRecord(
            tasks=tasks, contests=tuple(self._contest(outcome, tasks) for outcome in outcomes), cost=round(cost, 6)
        )

    def failed(self) -> list[Cell]:
        """Requested cells without a score of some task, for a reason other than divergence."""
        by_digest = {cell.digest: cell for cell in self.cells}
        return [by_digest[digest] for digest, result in self.known.items() if result.state == "failed"]

    def _decided(self) -> list[Outcome]:
        tasks = self._scored_tasks()
        scores = [self._scores(rung, tasks) for rung in self.rules.rungs]
        return [decisions.decide(self.rules, contest, scores) for contest in self._contests(tasks)]

    def _scored_tasks(self) -> tuple[str, ...]:
        """All tasks except those whose metric is undefined on the scored set."""
        undefined = {
            task for result in self.known.values() for task, score in result.scores.items() if score.score is None
        }
        return tuple(task for task in self.tasks if task not in undefined)

    def _contests(self, tasks: Sequence[str]) -> list[Contest]:
        """One contest per target and one over all tasks; such a set per network if networks do not race together."""
        networks = list(dict.fromkeys(c.backbone for c in self.combinations)) if self.per_network else [None]
        targets = [None, *(range(len(tasks)) if len(tasks) > 1 else ())]
        return [
            Contest(target, tuple(c for c, one in enumerate(self.combinations) if network in (None, one.backbone)))
            for network in networks
            for target in targets
        ]

    def _scores(self, rung: Rung, tasks: Sequence[str]) -> Values:
        found = np.full((len(self.combinations), len(tasks), rung.seeds), math.nan)
        for c, combination in enumerate(self.combinations):
            for s, seed in enumerate(self.seeds[: rung.seeds]):
                for group in self.groups:
                    result = self.known.get(self.ladder[rung.share, seed, group, combination].digest)
                    for task in group if result is not None else ():
                        if result is not None and task in tasks:
                            score = score_of(result, task)
                            found[c, tasks.index(task), s] = math.nan if score is None else score
        return found

    def _asked_for(self, outcomes: Sequence[Outcome]) -> Iterator[Cell]:
        """Cells of the combinations in each rung, without repetition; those of the last rungs come first."""
        seen = set[str]()
        for rung, combinations in reversed(list(zip(self.rules.rungs, decisions.wanted(outcomes), strict=False))):
            for seed in self.seeds[: rung.seeds]:
                for group in self.groups:
                    for c in sorted(combinations):
                        cell = self.ladder[rung.share, seed, group, self.combinations[c]]
                        if cell.digest not in seen:
                            seen.add(cell.digest)
                            yield cell

    def _closed(self, outcomes: Sequence[Outcome]) -> Iterator[str]:
        """One line for each rung that has closed in all contests since the last call."""
        for number, rung in enumerate(self.rules.rungs[:-1]):
            verdicts = [outcome.verdicts[number] for outcome in outcomes if len(outcome.verdicts) > number]
            if number not in self.noted and len(verdicts) == len(outcomes) and not any(one.open for one in verdicts):
                self.noted.add(number)
                entered, stay = ({c for one in verdicts for c in of(one)} for of in (_entrants, _stay))
                of = counted(len(entered), "combination")
                yield f"{describe(rung.share, rung.seeds)}: {len(stay)} of {of} can still win"

    def _contest(self, outcome: Outcome, tasks: Sequence[str]) -> ContestRecord:
        target, entrants = outcome.contest.target, outcome.contest.entrants
        return ContestRecord(
            target=None if target is None else tasks[target],
            network=self.combinations[entrants[0]].backbone if self.per_network else None,
            rungs=tuple(
                self._rung(rung, verdict) for rung, verdict in zip(self.rules.rungs, outcome.verdicts, strict=False)
            ),
            finalists=None if outcome.finalists is None else self._named(outcome.finalists),
            winner=None if outcome.winner is None else self.combinations[outcome.winner],
        )

    def _rung(self, rung: Rung, verdict: Verdict) -> RungRecord:
        return RungRecord(
            share=rung.share,
            seeds=rung.seeds,
            entrants=len(verdict.entrants),
            stay=self._named(verdict.stay),
            dropped={str(self.combinations[c]): why for c, why in sorted(verdict.dropped.items())},
            undecided=len(verdict.open),
            friedman=verdict.friedman,
        )

    def _named(self, numbers: Sequence[int]) -> tuple[Combination, ...]:
        return tuple(self.combinations[c] for c in numbers)


def race_agenda(sweep: Sweep, sets: dict[tuple[str, ...], LeftOut], cells: Sequence[Cell]) -> RaceAgenda:
    """The race of a sweep whose full grid has these cells.

    Raises:
        UsageError: under this schedule the beginning of a training differs from a shorter one, or there is only one
            task.
    """
    groups = tuple(dict.fromkeys(cell.tasks for cell in cells))
    if sum(map(len, groups)) < 2:
        raise UsageError("a race needs two left-out tasks: the target's own scores do not count")
    combinations = tuple(dict.fromkeys(cell.combination for cell in cells))
    rules = rules_of(sweep.race, _entering(sweep.race, combinations), len(sweep.seeds))
    shares = {rung.share for rung in rules.rungs} - {1.0}
    if shares and any(cell.config.schedule != "constant" for cell in cells):
        raise UsageError(
            "the beginning of a training is a shorter training only under a constant learning rate",
            found='fit.schedule = "cosine"',
            remedy="set race.lengths = [1], which races only on seeds",
        )
    shorter = {share: cells_of(sweep, sets, share)[: len(cells) // len(sweep.seeds)] for share in sorted(shares)}
    ladder = {_place(share, cell): cell for share, of in {**shorter, 1.0: list(cells)}.items() for cell in of}
    return RaceAgenda(rules, combinations, groups, sweep.seeds, sweep.race.per_network, ladder)


def rules_of(race: Race, entrants: int, seeds: int) -> Rules:
    """The rungs of a race with this many combinations and seeds."""
    counts = race.seeds or (*(2**n for n in range(seeds.bit_length()) if 2 ** (n + 1) <= seeds), seeds)
    stages = [(length, 1) for length in race.lengths[:-1]] + [(1.0, count) for count in counts]
    keeps = [max(race.least, math.ceil(entrants * race.keep**number - 1e-9)) for number in range(1, len(stages) + 1)]
    rungs = tuple(Rung(share, count, keep) for (share, count), keep in zip(stages, keeps, strict=True))
    return Rules(rungs, race.unlikely)


def describe(share: float, seeds: int) -> str:
    """A rung in words, such as '10% of the length, 1 seed'."""
    length = "" if share == 1 else f"{100 * share:g}% of the length, "
    return f"{length}{counted(seeds, 'seed')}"


def _entering(race: Race, combinations: Sequence[Combination]) -> int:
    """The number of combinations in the largest contest."""
    networks = [combination.backbone for combination in combinations]
    return max(map(networks.count, networks)) if race.per_network else len(networks)


def _place(share: float, cell: Cell) -> Place:
    return share, cell.config.seed, cell.tasks, cell.combination


def _entrants(verdict: Verdict) -> tuple[int, ...]:
    return verdict.entrants


def _stay(verdict: Verdict) -> tuple[int, ...]:
    return verdict.stay
