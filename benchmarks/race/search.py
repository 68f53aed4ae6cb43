"""Looks for races that cost at most a tenth of the full grid and lose as little as possible, with 4 sets left out
together: 16 rungs and shares, 4 models of the noise.

    python benchmarks/race/search.py

The simulated sweeps are others than those of compare.py, whose table is therefore not flattered by this choice. The
rule: of the races whose mean cost is at most 10% under every model, the one whose largest mean loss is smallest.
Writes search.csv beside this file.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from compare import MODELS, TASKS

from mtrain.evaluation.selecting.ranks import Values
from mtrain.race.agenda import rules_of
from mtrain.race.decisions import Rules, Rung
from mtrain.race.simulation import race, regret
from mtrain.race.worlds import world
from mtrain.sweep.race_settings import Race
from mtrain.sweep.spec import Sweep, load_sweep

SEED = 1  # compare.py has 0
TOGETHER = 4
LENGTHS = ((0.1, 0.3, 1.0), (0.3, 1.0), (0.5, 1.0), (1.0,))
KEEPS = (0.5, 0.6, 0.7, 0.8)
CHOOSING = ("default", "noisy-seeds", "misleading-beginnings", "small-differences")
CANDIDATES = tuple(itertools.product(LENGTHS, KEEPS))


@cache
def paper() -> Sweep:
    """The sweep of the paper."""
    return load_sweep("paper")


def raced(model: str, number: int) -> Values:
    """(candidates, 2): cost as a share of the full grid, and loss against it, in one simulated sweep."""
    combinations, seeds = paper().grid.combinations(), len(paper().seeds)
    one = world(MODELS[model], combinations, TASKS, seeds, np.random.default_rng([SEED, number]))
    full = regret(one, race(Rules((Rung(1.0, seeds, 1),)), one).chosen)
    found = []
    for lengths, keep in CANDIDATES:
        settings = Race(lengths=lengths, keep=keep, unlikely=0.0)
        raced = race(rules_of(settings, len(combinations), seeds), one, together=True)
        found.append((raced.cost / TOGETHER / (len(combinations) * seeds), regret(one, raced.chosen) - full))
    return np.array(found)


def table(found: dict[str, Values]) -> Iterator[str]:
    """Markdown. found: model -> (worlds, candidates, 2)."""
    yield f"| rungs | keep | highest cost | {' | '.join(found)} |"
    yield f"|---|---:|---:|{'---:|' * len(found)}"
    for number, (lengths, keep) in enumerate(CANDIDATES):
        of = [one[:, number] for one in found.values()]
        losses = [f"{c[:, 1].mean():+.3f} ± {1.96 * c[:, 1].std(ddof=1) / len(c) ** 0.5:.3f}" for c in of]
        cost = max(c[:, 0].mean() for c in of)
        rungs = ", ".join(f"{share:.0%}" for share in lengths)
        yield f"| {rungs} | {keep:.0%} | {cost:.1%} | {' | '.join(losses)} |"


def best(found: dict[str, Values]) -> int:
    """The candidate that the rule chooses."""
    costs, losses = (np.array([one[:, :, k].mean(axis=0) for one in found.values()]).max(axis=0) for k in range(2))
    return int(np.argmin(np.where(costs <= 0.1, losses, np.inf)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("search.csv"))
    given = parser.parse_args()
    with ProcessPoolExecutor(given.jobs) as pool:
        found = {name: np.stack([*pool.map(partial(raced, name), range(given.worlds), chunksize=5)]) for name in MODELS}
    lengths, keep = CANDIDATES[best(found)]
    chosen = f"chosen: lengths = {list(lengths)}, keep = {keep}"
    sys.stdout.write("\n".join([f"{given.worlds} worlds of each model", "", *table(found), "", chosen, ""]))
    with given.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "lengths", "keep", "worlds", "cost", "loss", "loss_error"])
        for (name, one), (number, (lengths, keep)) in itertools.product(found.items(), enumerate(CANDIDATES)):
            cost, loss = one[:, number].mean(axis=0)
            error = one[:, number, 1].std(ddof=1) / given.worlds**0.5
            rungs = " ".join(f"{share:g}" for share in lengths)
            writer.writerow([name, rungs, keep, given.worlds, f"{cost:.5g}", f"{loss:.5g}", f"{error:.5g}"])


if __name__ == "__main__":
    main()
