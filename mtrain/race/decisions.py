"""Scores of the rungs of a race in; which combinations stay, which drop out and why, and which wins, out. Arrays only.

A race consists of one contest per target (and, where asked, per network), all of which share their trainings. A
contest never sees the scores on its own target: ranks are computed among the combinations that are left in it, on the
other tasks, so that the choice for a target does not depend on the target at all.

A decision depends only on the scores of its rung, not on the order in which they arrive. It is made as soon as no
score that is still missing can change it (`rank_bounds`): a combination can enter the next rung, or drop out, while
other trainings of its rung are running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mtrain.evaluation import ranks
from mtrain.evaluation.ranks import ScoreGrid, Values

DRAWS = 1000
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Rung:
    """Trainings of this share of their length, with the first `seeds` seeds.

    keep: number of combinations that stay for a target afterwards, and those that tie with the last of them.
    """

    share: float
    seeds: int
    keep: int


@dataclass(frozen=True)
class Rules:
    """The rungs, the last of which chooses. unlikely: share of bootstrap draws that a combination trained to the end
    must win to stay; 0 to let all stay. draws: number of draws.
    """

    rungs: tuple[Rung, ...]
    unlikely: float = 0.0
    draws: int = DRAWS


@dataclass(frozen=True)
class Contest:
    """target: the number of the task whose scores are not looked at, None for a choice over all tasks. entrants:
    numbers of combinations.
    """

    target: int | None
    entrants: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """One rung of a contest: who stays, who drops out and why. friedman: p of the test whether the combinations differ
    at all, which is made before the bootstrap; None where it was not made, or is not defined.
    """

    entrants: tuple[int, ...]
    stay: tuple[int, ...] = ()
    dropped: Mapping[int, str] = field(default_factory=dict)
    friedman: float | None = None

    @property
    def open(self) -> tuple[int, ...]:
        """Combinations about which a missing score decides."""
        return tuple(c for c in self.entrants if c not in self.stay and c not in self.dropped)


@dataclass(frozen=True)
class Outcome:
    """verdicts: of the rungs so far but the last. finalists: the entrants of the last rung, None before they are known.
    winner: None before it is known.
    """

    contest: Contest
    verdicts: tuple[Verdict, ...]
    finalists: tuple[int, ...] | None = None
    winner: int | None = None


def decide(rules: Rules, contest: Contest, scores: Sequence[Values]) -> Outcome:
    """What the scores that are there decide in a contest.

    scores: for each rung (combinations, tasks, seeds of the rung), higher is better; nan where there is none yet, -inf
    for a diverged training.
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
    """The paper's rule, on the scores (combinations, tasks, seeds) that a contest may see: the smallest mean rank."""
    return ranks.best(ranks.mean_ranks(ranks.task_ranks(ranks.seed_means(scores))))


def wanted(outcomes: Sequence[Outcome]) -> list[set[int]]:
    """For each rung that a contest has reached, the combinations whose trainings it takes as far as is decided."""
    found: dict[int, set[int]] = {}
    for outcome in outcomes:
        entering = [outcome.contest.entrants, *(verdict.stay for verdict in outcome.verdicts)]
        for number, combinations in enumerate(entering):
            found.setdefault(number, set()).update(combinations)
    return [found[number] for number in sorted(found)]


def cost(rules: Rules, entering: Sequence[set[int]]) -> float:
    """What trainings of these combinations (rung by rung) cost, in whole trainings of one left-out set."""
    last = {c: rung for rung, combinations in zip(rules.rungs, entering, strict=False) for c in combinations}
    return sum(rung.share if rung.share < 1 else rung.seeds for rung in last.values())


def rank_bounds(means: Values) -> tuple[Values, Values]:
    """The smallest and the largest mean rank that each combination can come to, whatever the missing scores turn out
    to be.

    means: (combinations, tasks), nan where unknown. Returns two arrays (combinations,), which are equal where nothing
    is missing.
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
    """Who stays by its place, then of those trained to the end, whom the bootstrap does not rule out."""
    means = scores.mean(axis=-1)
    if np.isnan(means).all(axis=0).any():  # perhaps a task whose metric is not defined, which does not count
        return Verdict(entrants)
    low, high = rank_bounds(means)
    ahead = (low[None] < high[:, None]).sum(axis=1) - (low < high)  # others that may be better
    behind = (high[None] < low[:, None]).sum(axis=1)  # others that are better for certain
    stays, drops = ahead < rung.keep, behind >= rung.keep
    complete = not np.isnan(means).any()
    dropped = {
        c: _place(low[row], behind[row], len(entrants), rung.keep, complete=complete)
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
    """How often each combination wins when tasks and seeds are drawn again."""
    names, tasks, seeds = (tuple(map(str, range(size))) for size in scores.shape)
    return ranks.bootstrap(ScoreGrid(names, tasks, tuple(map(int, seeds)), scores), rules.draws).wins
