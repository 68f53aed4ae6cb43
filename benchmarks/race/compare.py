"""What a race costs and loses against the full grid, in simulated sweeps.

Each world is a sweep of the paper's size (48 combinations, 8 left-out sets with 10 tasks, 5 seeds) whose true qualities
are known (`mtrain/race/worlds.py`). Each protocol chooses a combination for every task; its regret is the quality of
the best combination less that of the chosen one. The loss is its regret less that of the full grid in the same worlds.

    python benchmarks/race/compare.py --worlds 1000 --jobs 2

For each model of the noise, a table is written to results-MODEL.csv beside this file; results.md and results.svg show
all of them.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mtrain.evaluation.selecting.ranks import Values
from mtrain.race.agenda import rules_of
from mtrain.race.decisions import Rules, Rung
from mtrain.race.simulation import Raced, race, regret
from mtrain.race.worlds import ScoreModel, World, world
from mtrain.sweep.combination import Combination
from mtrain.sweep.race_settings import Race
from mtrain.sweep.spec import load_sweep

DRAWS = 100  # of a bootstrap, where asked: a tenth of what `mtrain sweep --race` takes
SETS, TASKS = 8, 10
HERE = Path(__file__).parent
Row = dict[str, float | str]
MODELS = {
    "default": ScoreModel(),
    "noisy-seeds": ScoreModel(seed=0.7),
    "misleading-beginnings": ScoreModel(late=2.0, early=0.6, kept=0.2),
    "small-differences": ScoreModel(rate=0.2, axis=0.1, by_task=0.1, rest=0.05),
    # what `recorded.py` finds in real scores, in points: few combinations, so rough
    "as-recorded": ScoreModel(
        2.6, 1.4, 0.0, 0.0, seed=3.0, unstable=2.1, late=4.4, early=0.7, kept=0.05, smaller_pool=0.3
    ),
}


@dataclass(frozen=True)
class Protocol:
    """together: left-out sets in one training."""

    name: str
    run: Callable[[World], Raced]
    together: int = 1


def protocols(combinations: int, seeds: int, networks: list[int], *, bootstrap: bool) -> Iterator[Protocol]:
    """What is compared: the full grid first."""
    ruled_out = {} if bootstrap else {"unlikely": 0.0}

    def rules(**given: object) -> Rules:
        return replace(rules_of(Race.model_validate(ruled_out | given), combinations, seeds), draws=DRAWS)

    def grid(share: float, count: int, *, together: bool = False) -> Callable[[World], Raced]:
        return lambda one: race(Rules((Rung(share, count, 1),)), one, together=together)

    yield Protocol("full grid", grid(1.0, seeds))
    yield Protocol("1 seed", grid(1.0, 1))
    yield Protocol("2 seeds", grid(1.0, 2))
    yield Protocol("4 seeds", grid(1.0, 4))
    yield Protocol("10% of the length, 1 seed", grid(0.1, 1))
    yield Protocol("race on seeds", lambda one: race(rules(lengths=(1.0,)), one))
    yield Protocol("race, keep 40%", lambda one: race(rules(keep=0.4), one))
    yield Protocol("race, keep 60%", lambda one: race(rules(keep=0.6), one))
    each = replace(
        rules_of(Race.model_validate(ruled_out | {"per_network": True, "keep": 0.4}), combinations // 2, seeds),
        draws=DRAWS,
    )
    yield Protocol("race, keep 40%, each network its own", lambda one: race(each, one, networks))
    yield Protocol("4 sets together", grid(1.0, seeds, together=True), 4)
    yield Protocol("4 sets together, 2 seeds", grid(1.0, 2, together=True), 4)
    yield Protocol("4 sets together, race on seeds", lambda one: race(rules(lengths=(1.0,)), one, together=True), 4)
    yield Protocol("4 sets together, race, keep 40%", lambda one: race(rules(keep=0.4), one, together=True), 4)
    yield Protocol("4 sets together, race, keep 60%", lambda one: race(rules(keep=0.6), one, together=True), 4)
    for share in (0.3, 0.5):  # what search.py has found on other worlds
        late = rules(lengths=(share, 1.0), keep=0.5)
        yield Protocol(f"4 sets together, race from {share:.0%}, keep 50%", partial(race, late, together=True), 4)


@cache
def paper(*, bootstrap: bool) -> tuple[list[Combination], int, list[Protocol]]:
    """The paper's combinations and number of seeds, and what is compared on them."""
    sweep = load_sweep("paper")
    combinations, seeds = sweep.grid.combinations(), len(sweep.seeds)
    networks = [sweep.grid.backbone.index(one.backbone) for one in combinations]
    return combinations, seeds, list(protocols(len(combinations), seeds, networks, bootstrap=bootstrap))


def raced(model: ScoreModel, seed: int, bootstrap: bool, number: int) -> Values:
    """(3, protocols): cost as a share of the full grid, regret, and share of the tasks with the full grid's choice."""
    combinations, seeds, compared = paper(bootstrap=bootstrap)
    one = world(model, combinations, TASKS, seeds, np.random.default_rng([seed, number]))
    found = [protocol.run(one) for protocol in compared]
    costs = [r.cost / p.together / (len(combinations) * seeds) for p, r in zip(compared, found, strict=True)]
    same = [np.mean(np.equal(r.chosen, found[0].chosen)) for r in found]
    return np.array([costs, [regret(one, r.chosen) for r in found], same])


def compare(model: ScoreModel, worlds: int, seed: int, jobs: int, *, bootstrap: bool) -> list[Row]:
    """A row a protocol."""
    combinations, seeds, compared = paper(bootstrap=bootstrap)
    with ProcessPoolExecutor(jobs) as pool:
        costs, regrets, same = np.stack(
            [*pool.map(partial(raced, model, seed, bootstrap), range(worlds), chunksize=5)], axis=-1
        )
    losses = regrets - regrets[0]
    return [
        {
            "protocol": protocol.name,
            "worlds": worlds,
            "trainings": SETS * len(combinations) * seeds * costs[row].mean(),
            "cost": costs[row].mean(),
            "cost_95": np.quantile(costs[row], 0.95),
            "cost_max": costs[row].max(),
            "regret": regrets[row].mean(),
            "loss": losses[row].mean(),
            "loss_error": losses[row].std(ddof=1) / np.sqrt(worlds),
            "same_choice": same[row].mean(),
        }
        for row, protocol in enumerate(compared)
    ]


def table(rows: list[Row]) -> Iterator[str]:
    """Markdown."""
    yield "| protocol | trainings | cost | 95% of worlds below | regret | loss against the full grid | same choice |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        loss = f"{row['loss']:+.3f} ± {1.96 * float(row['loss_error']):.3f}"
        loss = "0" if row is rows[0] else loss
        yield (
            f"| {row['protocol']} | {row['trainings']:.0f} | {row['cost']:.1%} | {row['cost_95']:.1%} "
            f"| {row['regret']:.3f} | {loss} | {row['same_choice']:.0%} |"
        )


def draw(found: dict[str, list[Row]]) -> Figure:
    """Cost and loss of each protocol, a panel a model."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 3)
    axes.flat[-1].set_axis_off()
    for axis, (name, rows) in zip(axes.flat, found.items(), strict=False):
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.axvline(0.1, color="0.6", linewidth=0.8, linestyle=":")
        for number, row in enumerate(rows):
            error = 1.96 * float(row["loss_error"])
            marker = "os^Dv<>PX*hpd8HD"[number % 16]
            axis.errorbar(
                row["cost"], row["loss"], yerr=error, linestyle="", marker=marker, label=row["protocol"], capsize=2
            )
        axis.set(xscale="log", title=name, xlabel="cost, share of the full grid", ylabel="loss against the full grid")
    axes.flat[-1].legend(*axes.flat[0].get_legend_handles_labels(), loc="center", fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--bootstrap", action="store_true", help="rule out combinations by the bootstrap too; slow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    for name in args.model or MODELS:
        begun = time.monotonic()
        rows = compare(MODELS[name], args.worlds, args.seed, args.jobs, bootstrap=args.bootstrap)
        head = f"{name}: {args.worlds} worlds, {time.monotonic() - begun:.0f} s"
        sys.stdout.write("\n".join([head, "", *table(rows), "", ""]))
        sys.stdout.flush()
        write(args.out / f"results-{name}.csv", rows)
    found = {name: read(path) for name in MODELS if (path := args.out / f"results-{name}.csv").is_file()}
    parts = [
        f"## {name}\n\n{rows[0]['worlds']:.0f} worlds\n\n" + "\n".join(table(rows)) for name, rows in found.items()
    ]
    (args.out / "results.md").write_text("\n\n".join(["# Races in simulated sweeps", *parts]) + "\n")
    draw(found).savefig(args.out / "results.svg", metadata={"Date": None})


def write(path: Path, rows: list[Row]) -> None:
    """CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()})


def read(path: Path) -> list[Row]:
    """The inverse of `write`."""
    with path.open(newline="") as file:
        return [{k: v if k == "protocol" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


if __name__ == "__main__":
    main()
