"""What a race costs and loses against the full grid, in the recorded scores of real training runs.

Each sweep must have been run with `--race`, one seed, `keep = 1` and `unlikely = 0`, so that every combination has its
scores at every length. The seeds are divided in all ways: the first few choose, by each protocol, and the others tell
how good the choices are. A loss is therefore not flattered by the noise that has led to the choice.

    python benchmarks/race/recorded.py sweeps/seed0 sweeps/seed1 sweeps/seed2 ... --choosing 2

prints a table and writes recorded.csv beside this file: the score of every combination, task, seed and length.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from mtrain.evaluation.selecting.ranks import Values
from mtrain.evaluation.selecting.selection import score_of
from mtrain.race.agenda import rules_of
from mtrain.race.decisions import Rules, Rung
from mtrain.race.simulation import Raced, race, regret
from mtrain.sweep.race_settings import Race
from mtrain.sweep.store import Store

HERE = Path(__file__).parent
LENGTHS = (0.1, 0.3, 1.0)
KEYS = ("lr", "tau")


@dataclass(frozen=True)
class Recorded:
    """Scores of some seeds, and those of others as the quality. tables: share of the length -> (combinations, tasks,
    seeds).
    """

    tables: dict[float, Values]
    quality: Values

    def scores(self, share: float, seeds: int, *, together: bool = False) -> Values:
        """As that of a simulated sweep; what was left out together is a property of the record."""
        found: Values = self.tables[share][:, :, :seeds]
        return found


def table_of(path: Path) -> tuple[list[str], list[str], Values]:
    """Names of the combinations and of the tasks, and the scores (lengths, combinations, tasks) of a sweep."""
    store = Store(path)
    results = [store.result(file.stem) for file in sorted((path / "cells").glob("*.json"))]
    found = {}
    for file, result in zip(sorted((path / "cells").glob("*.json")), results, strict=True):
        assert result is not None
        iterations = store.known(file.stem)["config"]["iterations"]  # type: ignore[index]
        found[str(result.combination), iterations] = {task: score_of(result, task) for task in result.scores}
    combinations = sorted({name for name, _ in found})
    lengths = sorted({length for _, length in found})
    tasks = sorted(next(iter(found.values())))
    if len(lengths) != len(LENGTHS):
        raise SystemExit(f"{path}: {len(lengths)} lengths; expected {len(LENGTHS)}, of a race with keep = 1")
    scores = np.array([[[found[c, length][t] for t in tasks] for c in combinations] for length in lengths], float)
    return combinations, tasks, scores


def protocols(combinations: int, seeds: int) -> Iterator[tuple[str, Rules]]:
    """What is compared: the full grid first."""

    def grid(share: float, count: int) -> Rules:
        return Rules((Rung(share, count, 1),))

    def rules(**given: object) -> Rules:
        return rules_of(Race.model_validate({"unlikely": 0.0} | given), combinations, seeds)

    yield "full grid", grid(1.0, seeds)
    yield "1 seed", grid(1.0, 1)
    yield "10% of the length, 1 seed", grid(0.1, 1)
    yield "30% of the length, 1 seed", grid(0.3, 1)
    yield "race on seeds", rules(lengths=(1.0,))
    yield "race, keep 60%", rules(keep=0.6)
    yield "race, keep 40%", rules(keep=0.4)
    yield "race from 30%, keep 50%", rules(lengths=(0.3, 1.0), keep=0.5)


def worlds(scores: Values, choosing: int) -> Iterator[Recorded]:
    """scores: (lengths, combinations, tasks, seeds). One division for each ordered choice of the seeds that choose: a
    race trains the first of them most."""
    seeds = range(scores.shape[-1])
    for chosen in itertools.permutations(seeds, choosing):
        rest = [seed for seed in seeds if seed not in chosen]
        tables = {length: scores[number][:, :, list(chosen)] for number, length in enumerate(LENGTHS)}
        yield Recorded(tables, scores[-1][:, :, rest].mean(axis=2))


def compared(scores: Values, choosing: int) -> Iterator[str]:
    """A Markdown table, a row a protocol: losses in points (hundredths of the score)."""
    all_worlds = list(worlds(scores, choosing))
    combinations = scores.shape[1]
    yield f"| protocol | cost | regret | loss against the full grid | {len(all_worlds)} divisions | same choice |"
    yield "|---|---:|---:|---:|---:|---:|"
    first: list[Raced] = []
    for name, rules in protocols(combinations, choosing):
        found = [race(rules, world) for world in all_worlds]
        first = first or found
        regrets = 100 * np.array([regret(w, r.chosen) for w, r in zip(all_worlds, found, strict=True)])
        losses = regrets - 100 * np.array([regret(w, r.chosen) for w, r in zip(all_worlds, first, strict=True)])
        cost = np.mean([r.cost for r in found]) / (combinations * choosing)
        same = np.mean([np.equal(r.chosen, f.chosen) for r, f in zip(found, first, strict=True)])
        spread = f"{losses.min():+.2f} to {losses.max():+.2f}"
        yield f"| {name} | {cost:.1%} | {regrets.mean():.2f} | {losses.mean():+.2f} | {spread} | {same:.0%} |"
    chance = 100 * np.mean([w.quality.max(axis=0).mean() - w.quality.mean() for w in all_worlds])
    yield f"| any combination, at random | 0% | {chance:.2f} | | | {1 / combinations:.0%} |"


def agreement(scores: Values, tasks: Sequence[str]) -> Iterator[str]:
    """How well beginnings and other seeds order the combinations: rank correlations with the end, by task."""
    yield "| target | 10% and end, same seed | 30% and end, same seed | end, two seeds |"
    yield "|---|---:|---:|---:|"
    seeds = range(scores.shape[-1])
    for t, task in enumerate(tasks):
        ends = scores[-1][:, t]
        early = [np.nanmean([spearmanr(scores[n][:, t, s], ends[:, s]).statistic for s in seeds]) for n in range(2)]
        pairs = itertools.combinations(seeds, 2)
        between = np.nanmean([spearmanr(ends[:, a], ends[:, b]).statistic for a, b in pairs])
        yield f"| {task} | {early[0]:+.2f} | {early[1]:+.2f} | {between:+.2f} |"


def components(scores: Values, combinations: Sequence[str]) -> str:
    """What the scores consist of, in points, as a ScoreModel states it: by the method of moments, so that a component
    which the noise explains is 0. The penalty of beginnings and what they keep of the noise are means over both.
    """
    points, seeds = 100 * scores, scores.shape[-1]
    rates, taus = (np.array([float(re.findall(rf"{name} (\S+)", one)[0]) for one in combinations]) for name in KEYS)
    noise = points[-1].var(axis=-1, ddof=1)
    top = rates == rates.max()
    means = points[-1].mean(axis=-1)
    means -= means.mean(axis=0)
    common = means.mean(axis=1)
    rows, columns = (number / (number - 1) for number in means.shape)
    rest = (means - common[:, None]).var() * rows * columns - noise.mean() / seeds
    each = (noise.mean() / seeds + max(rest, 0)) / means.shape[1]  # variance of a combination's mean over tasks

    def deviation(axis: Values) -> float:
        of = [common[axis == value] for value in np.unique(axis)]
        return float(np.sqrt(max(np.var([one.mean() for one in of], ddof=1) - each / len(of[0]), 0)))

    low = np.log(rates.max() / rates) / np.log(rates.max() / rates.min())
    late, early, kept = [], [], []
    for beginning, share in zip(points, LENGTHS[:-1], strict=False):
        lost = (points[-1] - beginning) / (1 - share)
        mean = lost.mean(axis=-1) - lost.mean(axis=(0, 2))
        slope = np.polyfit(np.repeat(low, mean.shape[1]), mean.ravel(), 1)[0]
        apart = mean - slope * (low - low.mean())[:, None]
        late.append(slope)
        early.append(np.sqrt(max(apart.var() * rows - lost.var(axis=-1, ddof=1).mean() / seeds, 0)))
        ends = [(one - one.mean(axis=-1, keepdims=True)).ravel() for one in (beginning, points[-1])]
        kept.append(np.corrcoef(*ends)[0, 1])
    steady, unstable = (np.sqrt(noise[which].mean()) for which in (~top, top))
    return (
        f"in points: rate {deviation(rates):.1f}, axis {deviation(taus):.1f} (tau), rest {np.sqrt(max(rest, 0)):.1f}, "
        f"seed {steady:.1f}, unstable {unstable / steady:.1f}, late {np.mean(late):.1f}, early {np.mean(early):.1f}, "
        f"kept {np.mean(kept):.2f}"
    )


def write(path: Path, combinations: Sequence[str], tasks: Sequence[str], seeds: Sequence[str], scores: Values) -> None:
    """A row a score."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["length", "combination", "task", "seed", "score"])
        for (n, c, t, s), score in np.ndenumerate(scores):
            writer.writerow([LENGTHS[n], combinations[c], tasks[t], seeds[s], f"{score:.6f}"])


def read(path: Path) -> tuple[list[str], list[str], list[str], Values]:
    """The inverse of `write`."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [sorted({row[key] for row in rows}) for key in ("combination", "task", "seed")]
    scores = np.full((len(LENGTHS), *map(len, names)), np.nan)
    for row in rows:
        place = [of.index(row[key]) for of, key in zip(names, ("combination", "task", "seed"), strict=True)]
        scores[(LENGTHS.index(float(row["length"])), *place)] = float(row["score"])
    return names[0], names[1], names[2], scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=Path, nargs="*", help="without any, recorded.csv is read")
    parser.add_argument("--choosing", type=int, default=2, help="seeds that choose; the others judge")
    given = parser.parse_args()
    if given.sweeps:
        tables = [table_of(path) for path in given.sweeps]
        combinations, tasks, _ = tables[0]
        if any(table[:2] != (combinations, tasks) for table in tables):
            parser.error("the sweeps have other combinations or targets")
        scores = np.stack([table[2] for table in tables], axis=-1)
        write(HERE / "recorded.csv", combinations, tasks, [str(n) for n in range(len(tables))], scores)
    combinations, tasks, seeds, scores = read(HERE / "recorded.csv")
    if not np.isfinite(scores).all():
        parser.error("a score is missing, or a training run has diverged")
    head = f"{len(combinations)} combinations, {len(tasks)} targets, {len(seeds)} seeds, {given.choosing} choose"
    sys.stdout.write("\n".join([head, "", *compared(scores, given.choosing), "", *agreement(scores, tasks), ""]))
    sys.stdout.write(f"\n{components(scores, combinations)}\n")


if __name__ == "__main__":
    main()
