"""Ranks the combinations of a sweep, and selects the winner for each target."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dpconvert.plural import counted
from mtrain.errors import RunError
from mtrain.evaluation.selecting import ranks
from mtrain.evaluation.selecting.ranks import Bootstrap, ScoreGrid, Values
from mtrain.sweep.cell_records import Planned, Result
from mtrain.sweep.combination import Combination
from mtrain.sweep.race_record import RaceRecord, read_record
from mtrain.sweep.replaced import replaced
from mtrain.sweep.store import Store


@dataclass(frozen=True)
class Selection:
    """`ranks`: (combinations, tasks). `mean_ranks`: over all tasks, for targets that are not among them.

    race: of a grid that a race left incomplete; `combinations` are then those that reached its last rung.
    """

    sweep: str
    combinations: tuple[Combination, ...]
    grid: ScoreGrid
    ranks: Values
    bootstrap: Bootstrap
    friedman: tuple[float, float] | None
    notes: tuple[str, ...]
    mode: str  # transfer mode of the scores
    metrics: Mapping[str, str]  # task -> name of its metric
    race: RaceRecord | None = None
    missing: bool = False  # whether scores are missing or diverged

    @property
    def mean_ranks(self) -> Values:
        return ranks.mean_ranks(self.ranks)

    @property
    def order(self) -> list[int]:
        """The combinations in order of mean rank; those without a rank come last."""
        return [int(c) for c in np.argsort(np.round(self.mean_ranks, ranks.DIGITS), kind="stable")]

    def winner(self, target: str | None, backbone: str | None = None) -> tuple[int, float] | None:
        """The combination of this network with the smallest mean rank on tasks other than the target, and that rank.

        None if no other task was scored. After a race, the combinations that remained in it for this target are ranked
        among themselves.
        """
        places, means = self._ranked(target, backbone)
        chosen = ranks.best(means) if len(means) else None
        return None if chosen is None else (places[chosen], float(means[chosen]))

    def tied(self, target: str | None, backbone: str | None = None) -> int:
        """The number of combinations with the mean rank of the winner, of which it is the first; 0 without a winner."""
        _, means = self._ranked(target, backbone)
        rounded = np.round(means, ranks.DIGITS)
        return 0 if np.isnan(rounded).all() else int((rounded == np.nanmin(rounded)).sum())

    def _ranked(self, target: str | None, backbone: str | None) -> tuple[Sequence[int], Values]:
        """The combinations to choose from and their mean ranks; NaN for those of other networks."""
        rows = self._raced(target, backbone)
        table = self.ranks if rows is None else ranks.task_ranks(ranks.seed_means(self.grid.scores[rows]))
        means = ranks.mean_ranks(table, None if target is None else self.grid.tasks.index(target))
        places = range(len(self.combinations)) if rows is None else rows
        others = [backbone not in (None, self.combinations[place].backbone) for place in places]
        return places, np.where(others, np.nan, means)

    def _raced(self, target: str | None, backbone: str | None) -> list[int] | None:
        """The combinations that a race left for a target; None without a race."""
        if self.race is None:
            return None
        contests = [one for one in self.race.contests if one.target == target and one.network in (None, backbone)]
        contests = contests or [one for one in self.race.contests if one.target == target]
        return sorted({self.combinations.index(c) for one in contests for c in one.finalists or ()})

    @property
    def backbones(self) -> list[str]:
        return list(dict.fromkeys(combination.backbone for combination in self.combinations))


def select(store: Store, *, incomplete: bool = False) -> Selection:
    """Rank the combinations of a sweep.

    Raises:
        RunError: this is not the folder of a sweep, or a result is damaged.
        UsageError: results are missing or cells failed, unless `incomplete` is set; or there are no results.
    """
    planned = store.planned()
    results = store.results(planned)
    combinations = tuple(dict.fromkeys(one.combination for one in planned))
    grid, notes = grid_of(planned, results, combinations)
    metrics, mode = metrics_of(store, results), str(store.transfer_settings()["mode"])
    notes += [*store.notes(), *replaced(store, planned, results)]
    raced = None if not grid.holes() else _after_race(store, combinations, grid, mode, metrics)
    if raced is not None:
        return _with_ties(replace(raced, notes=(*raced.notes, *notes)))
    remedy = "continue with `mtrain sweep`, or compare the existing scores with --incomplete"
    if failed := failures(results):
        again = "`mtrain sweep --retry-failed` tries again"
        remedy = f"{failed[0]}; {again}, `select --incomplete` compares the existing scores"
    if not incomplete or not results:
        ranks.check_complete(replace(grid, scores=np.where(np.isfinite(grid.scores), grid.scores, np.nan)), remedy)
    elif holes := len(grid.holes()):
        notes.append(f"{holes} of {grid.scores.size} scores are missing: ranks compare the existing ones")
    table = ranks.task_ranks(ranks.seed_means(grid.scores))
    found = Selection(
        store.name,
        combinations,
        grid,
        table,
        ranks.bootstrap(grid),
        ranks.friedman(table),
        tuple(notes),
        mode,
        metrics,
        missing=not bool(np.isfinite(grid.scores).all()),
    )
    return _with_ties(found)


def _with_ties(found: Selection) -> Selection:
    """The same with a note on each choice among combinations of equal mean ranks."""
    several = len(found.backbones) > 1
    said = "combinations have the smallest mean rank; the first is chosen"
    notes = [
        f"{task}{f', {backbone}' if several else ''}: {count} {said}"
        for task in found.grid.tasks
        for backbone in found.backbones
        if (count := found.tied(task, backbone)) > 1
    ]
    return replace(found, notes=(*found.notes, *notes))


def _after_race(
    store: Store, combinations: Sequence[Combination], grid: ScoreGrid, mode: str, metrics: Mapping[str, str]
) -> Selection | None:
    """The selection among the combinations that reached the end of a finished race; None if there is none, or if
    it was one of other tasks, combinations or seeds.
    """
    record = read_record(store)
    if record is None or not record.finished or record.tasks != grid.tasks:
        return None
    finalists = {combination for contest in record.contests for combination in contest.finalists or ()}
    rows = [row for row, combination in enumerate(combinations) if combination in finalists]
    scores = grid.scores[rows]
    if len(rows) < len(finalists) or np.isnan(scores).any():
        return None
    left = replace(grid, combinations=tuple(grid.combinations[row] for row in rows), scores=scores)
    table = ranks.task_ranks(ranks.seed_means(scores))
    note = (
        f"a race dropped {len(combinations) - len(rows)} of {counted(len(combinations), 'combination')}: "
        "ranks compare those that are left; `mtrain sweep` without --race completes the grid"
    )
    return Selection(
        store.name,
        tuple(combinations[row] for row in rows),
        left,
        table,
        ranks.bootstrap(left),
        ranks.friedman(table),
        (note,),
        mode,
        metrics,
        record,
    )


def grid_of(
    planned: Sequence[Planned], results: Mapping[str, Result], combinations: Sequence[Combination]
) -> tuple[ScoreGrid, list[str]]:
    """The scores by combination, task and seed, and notes on undefined ones. Missing results are NaN."""
    tasks = list(dict.fromkeys(task for one in planned for task in one.tasks))
    seeds = list(dict.fromkeys(one.seed for one in planned))
    scores = np.full((len(combinations), len(tasks), len(seeds)), np.nan)
    undefined, diverged = set[str](), 0
    for one in planned:
        result = results.get(one.cell)
        if result is None:
            continue
        diverged += result.state == "diverged"
        for task in one.tasks:
            place = combinations.index(one.combination), tasks.index(task), seeds.index(one.seed)
            score = score_of(result, task)
            scores[place] = math.nan if score is None else score
            if score is None:
                undefined.add(task)
    notes = [f"{task}: its metric is not defined on what was scored; it does not count" for task in sorted(undefined)]
    notes += failures(results)
    if diverged:
        notes.append(f"{counted(diverged, 'training run')} diverged: their combinations rank last there")
    kept = [number for number, task in enumerate(tasks) if task not in undefined]
    names = tuple(map(str, combinations))
    return ScoreGrid(names, tuple(tasks[k] for k in kept), tuple(seeds), scores[:, kept]), notes


def metrics_of(store: Store, results: Mapping[str, Result]) -> dict[str, str]:
    """Task -> the metric of all its scores.

    Raises:
        RunError: a task has scores by several metrics, which cannot be ranked together.
    """
    found: dict[str, str] = {}
    for result in results.values():
        for task, score in result.scores.items():
            if found.setdefault(task, score.metric) != score.metric:
                raise RunError(
                    f"{task} is scored by {score.metric}",
                    where=store.result_path(result.cell),
                    expected=f"{found[task]}, as in other cells",
                    remedy="remove the file, and run the sweep again",
                )
    return found


def score_of(result: Result, task: str) -> float | None:
    """-inf if the training diverged, NaN if there is no score for another reason, None if the metric is undefined."""
    if task in result.scores:
        return result.scores[task].score
    return -math.inf if result.state == "diverged" else math.nan


def failures(results: Mapping[str, Result]) -> list[str]:
    """A line for each task without scores in some cells: how many, and why."""
    counts = Counter(pair for result in results.values() for pair in result.failures.items())
    return [f"{task} failed in {counted(count, 'cell')}: {why}" for (task, why), count in sorted(counts.items())]
