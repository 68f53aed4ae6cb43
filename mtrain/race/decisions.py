"""Decides from the scores of a race which combinations stay, which drop out and why, and which one wins. Only arrays.

A race consists of one contest per target (and, if requested, per network), all of which share their training runs. A
contest never sees the scores on its own target: it ranks the combinations that are left in it on the other tasks, so
the choice for a target does not depend on the target at all.

A decision depends only on the scores of its rung, not on the order in which they arrive. It is made as soon as no
score that is still missing can change it (`rank_bounds`): a combination can enter the next rung, or drop out, while
other runs of its rung are in progress.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mtrain.evaluation.selecting import ranks
from mtrain.evaluation.selecting.ranks import ScoreGrid, Values

DRAWS = 1000
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Rung:
    """Trainings up to this share of their length, with the first `seeds` seeds.

    keep: number of combinations that stay for a target, in addition to ties with the last of them.
    """

    share: float
    seeds: int
    keep: int


@dataclass(frozen=True)
class Rules:
    """The rungs of a race; the last one chooses.

    unlikely: share of bootstrap draws that a fully trained combination must win to stay; with 0, all stay.
    draws: number of bootstrap draws.
    """

    rungs: tuple[Rung, ...]
    unlikely: float = 0.0
    draws: int = DRAWS


@dataclass(frozen=True)
class Contest:
    """One choice of a combination.

    target: number of the task whose scores are ignored, or None for a choice over all tasks.
    entrants: numbers of the combinations.
    """

    target: int | None
    entrants: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """One rung of a contest: which combinations stay, which drop out, and why.

    friedman: p-value of the Friedman test, which precedes the bootstrap; None if it was not made or is undefined.
    """

    entrants: tuple[int, ...]
    stay: tuple[int, ...] = ()
    dropped: Mapping[int, str] = field(default_factory=dict)
    friedman: float | None = None

    @property
    def open(self) -> tuple[int, ...]:
        """Combinations whose fate depends on a missing score."""
        return tuple(c for c in self.entrants if c not in self.stay and c not in self.dropped)


@dataclass(frozen=True)
class Outcome:
    """The state of a contest.

    verdicts: one for each rung so far except the last rung.
    finalists: entrants of the last rung, None until they are known.
    winner: None until it is known.
    """

    contest: Contest
    verdicts: tuple[Verdict, ...]
    finalists: tuple[int, ...] | None = None
    winner: int | None = None


def decide(rules: Rules, contest: Contest, scores: Sequence[Values]) -> Outcome:
    """What the existing scores decide in a contest.

    scores: for each rung an array (combinations, tasks, seeds of the rung), where higher is better; nan for a missing
        score, -inf for a diverged training.
    """
    verdicts: list[Verdict] = []
    entrants = contest.entrants
    for rung, of_rung in zip(rules.rungs[:-1], scores, strict=False):
        verdict = _verdict(rules, rung, entrants, _others(of_rung, contest.target)[list(entrants)])
        verdicts.append(verdict)
        if verdict.open:
            return Outcome(contest, tuple(verdicts))
        entrants = verdict.stay
    last = _others(scores[-1], contest.target)[list(entrants)]
    winner = None if np.isnan(last).any() else choose(last)
    return Outcome(contest, tuple(verdicts), entrants, None if winner is None else entrants[winner])


def choose(scores: Values) -> int | None:
    """Apply the paper's rule, the smallest mean rank, to scores (combinations, tasks, seeds)."""
    return ranks.best(ranks.mean_ranks(ranks.task_ranks(ranks.seed_means(scores))))


def wanted(outcomes: Sequence[Outcome]) -> list[set[int]]:
    """For each rung that a contest has reached, the combinations whose runs it needs."""
    found: dict[int, set[int]] = {}
    for outcome in outcomes:
        entering = [outcome.contest.entrants, *(verdict.stay for verdict in outcome.verdicts)]
        for number, combinations in enumerate(entering):
            found.setdefault(number, set()).update(combinations)
    return [found[number] for number in sorted(found)]


def cost(rules: Rules, entering: Sequence[set[int]]) -> float:
    """Cost of training these combinations (rung by rung), in complete runs of one left-out set."""
    last = {c: rung for rung, combinations in zip(rules.rungs, entering, strict=False) for c in combinations}
    return sum(rung.share if rung.share < 1 else rung.seeds for rung in last.values())


def rank_bounds(means: Values) -> tuple[Values, Values]:
    """Bounds on the mean rank of each combination, whatever the missing scores turn out to be.

    means: (combinations, tasks), nan where unknown. Returns the smallest and the largest possible mean ranks: two
    arrays (combinations,), which are equal if nothing is missing.
    """
    number = len(means)
    rounded = np.round(means, ranks.DIGITS)
    one, other = rounded[:, None], rounded[None]
    better, equal = (other > one).sum(axis=1), (other == one).sum(axis=1) - 1  # comparisons with nan are false
    known = ~np.isnan(means)
    missing = number - known.sum(axis=0)
    low = np.where(known, 1 + better + equal / 2, 1)
    high = np.where(known, 1 + better + equal / 2 + missing, number)
    return np.round(low.mean(axis=1), ranks.DIGITS), np.round(high.mean(axis=1), ranks.DIGITS)


def _others(scores: Values, target: int | None) -> Values:
    return scores if target is None else np.delete(scores, target, axis=1)


def _verdict(rules: Rules, rung: Rung, entrants: tuple[int, ...], scores: Values) -> Verdict:
    """Which combinations stay: by their place, and once trained to the end, by the bootstrap."""
    means = scores.mean(axis=-1)
    if np.isnan(means).all(axis=0).any():  # perhaps a task whose metric is undefined; it does not count
        return Verdict(entrants)
    low, high = rank_bounds(means)
    ahead = (low[None] < high[:, None]).sum(axis=1) - (low < high)  # combinations that may be better
    behind = (high[None] < low[:, None]).sum(axis=1)  # combinations that are certainly better
    stays, drops = ahead < rung.keep, behind >= rung.keep
    complete = not np.isnan(means).any()
    dropped = {
        c: _place(low[row], behind[row], len(entrants), int(stays.sum()) if complete else rung.keep, complete=complete)
        for row, c in enumerate(entrants)
        if drops[row]
    }
    p = None
    if rung.share == 1 and rules.unlikely:
        if not complete:
            return Verdict(entrants, (), dropped)
        tested = ranks.friedman(ranks.task_ranks(means))
        p = None if tested is None else tested[1]
        if p is not None and p < SIGNIFICANT:
            wins = _wins(rules, scores)
            ruled_out = stays & (wins < rules.unlikely) & (low > low.min())
            dropped |= {
                c: f"wins {wins[row]:.1%} of bootstrap draws" for row, c in enumerate(entrants) if ruled_out[row]
            }
            stays &= ~ruled_out
    return Verdict(entrants, tuple(c for row, c in enumerate(entrants) if stays[row]), dropped, p)


def _place(mean_rank: float, better: int, entrants: int, keep: int, *, complete: bool) -> str:
    if not complete:
        return f"at least {keep} of {entrants} are better, whatever is still missing"
    return f"place {better + 1} of {entrants} (mean rank {mean_rank:.2f}), {keep} stay"


def _wins(rules: Rules, scores: Values) -> Values:
    """Share of bootstrap draws of tasks and seeds in which each combination wins."""
    names, tasks, seeds = (tuple(map(str, range(size))) for size in scores.shape)
    return ranks.bootstrap(ScoreGrid(names, tasks, tuple(map(int, seeds)), scores), rules.draws).wins
