"""Does training on masks and points change the transfer to tasks of classes, and the other way round?

    python benchmarks/dense/compare.py --shards shards --target WhiteBloodCells --target LC25000Lung \
        --target WhiteBloodCellMasks

Three pools are trained on, with equal settings, each with several seeds; all targets are left out of all of them:

    classes    every other task, by its classes alone
    both       the same tasks, and the masks and points of those that have them
    dense      the tasks with masks or points alone, by their classes, masks and points

"both" beside "classes" shows what masks and points add, "both" beside "dense" what the other tasks of classes add. A
target with masks or points is scored by `--mode dense` (a decoder on the frozen network), any other by `--mode svm`, on
its validation set; no test set is read. Losses are scaled alike in all pools (--loss-scale log-classes). The ImageNet
weights of the network are scored in the same way.

A score is the mean over seeds; +- is their standard deviation. Intervals of differences are 95%, by the bootstrap
over groups (patients, slides, images) of the target: all seeds of both pools are scored on the same groups in each
draw. They do not show how much a difference depends on the seeds, so the difference of each seed is printed, too. An
interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dpconvert.runtime.progress import Reporter
from mtrain.data.pool import open_pool
from mtrain.data.task import Task
from mtrain.disk.atomic import write_json
from mtrain.evaluation.comparing.paired import draws, kept_answers
from mtrain.runs.run_folder import Run
from mtrain.scoring.bootstrap import interval
from mtrain.settings import fit_config
from mtrain.train.fit import fit
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.transfer import TransferOptions, result_path, source_of, transfer

POOLS = ("classes", "both", "dense")
PAIRS = (("both", "classes"), ("both", "dense"), ("classes", "imagenet"), ("both", "imagenet"))


@dataclass
class Scored:
    """The scores of a pool on a target, one per seed, and the files of answers."""

    metric: str = ""
    scores: list[float] = field(default_factory=list)
    answers: list[Path] = field(default_factory=list)


Table = dict[str, dict[str, Scored]]  # target -> pool


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def settings(options: argparse.Namespace, tasks: Sequence[Task], pool: str, seed: int) -> dict[str, Any]:
    """The settings of one training."""
    left = set(options.target)
    if pool == "dense":
        left |= {task.name for task in tasks if task.dense is None}
    return {
        "shards": options.shards,
        "leave_out": tuple(sorted(left)),
        "backbone": options.backbone,
        "size": options.size,
        "iterations": options.iterations,
        "batch": options.batch,
        "lr": options.lr,
        "seed": seed,
        "train_on": "train",
        "dense": pool != "classes",
        "loss_scale": "log-classes",
        "adapt_batches": 10,
        "workers": options.workers,
        "validate_every": options.iterations,
        "device": options.device,
    }


def score(run: Run, weights: str, seed: int, targets: Sequence[Task], options: argparse.Namespace) -> Iterator[Any]:
    """Each target with its result and the path of its answers."""
    source = source_of(run, weights)
    recipe = Recipe(batch=options.batch, seed=seed, device=options.device)
    for task in targets:
        mode = "svm" if task.dense is None else "dense"
        how = TransferOptions(mode, workers=options.workers, recipe=recipe, steps=options.steps)
        found = transfer(source, task, how, Reporter(quiet=True))
        yield task.name, found, result_path(source, task, how).with_suffix(".npz")


def run_all(options: argparse.Namespace) -> tuple[Table, dict[str, float]]:
    """All trainings and transfers: the scores, and the seconds of training of each pool."""
    tasks = open_pool(options.shards).tasks
    targets = [task for task in tasks if task.name in options.target]
    table: Table = {task.name: {pool: Scored() for pool in (*POOLS, "imagenet")} for task in targets}
    seconds = dict.fromkeys(POOLS, 0.0)
    for seed in range(options.seeds):
        for pool in POOLS:
            run, begun = Run(options.out / f"{pool}-{seed}"), time.monotonic()
            if fit(fit_config(None, settings(options, tasks, pool, seed)), run, Reporter(quiet=True)) != "finished":
                sys.exit("interrupted: run the same command again")
            seconds[pool] += time.monotonic() - begun
            scored = [(pool, one) for one in score(run, "run", seed, targets, options)]
            if pool == POOLS[0]:
                scored += [("imagenet", one) for one in score(run, "imagenet", seed, targets, options)]
            for name, (task, found, path) in scored:
                entry = table[task][name]
                entry.metric = found["metric"]
                entry.scores.append(found["score"])
                entry.answers.append(path)
            say(f"seed {seed}, {pool}: " + ", ".join(f"{t} {f['score']:.4f}" for n, (t, f, _) in scored if n == pool))
    return table, seconds


def difference(of: Mapping[str, Scored], one: str, other: str) -> dict[str, Any]:
    """The difference of two pools in percentage points, its interval over groups, and that of each seed."""
    files = {name: [kept_answers(path) for path in of[name].answers] for name in (one, other)}
    drawn = draws({name: [part for part in parts if part] for name, parts in files.items()}, of[one].metric)
    span = interval(drawn[one] - drawn[other]) if len(drawn) == 2 else None
    each = [100 * (a - b) for a, b in zip(of[one].scores, of[other].scores, strict=True)]
    return {
        "of": one,
        "less": other,
        "difference": float(np.mean(each)),
        "seeds": each,
        "interval": None if span is None else [100 * edge for edge in span],
    }


def tell(table: Table, seconds: Mapping[str, float], options: argparse.Namespace) -> dict[str, Any]:
    """Print and return everything that was found."""
    found: dict[str, Any] = {"seconds": dict(seconds), "seeds": options.seeds, "targets": {}}
    say("\n| target | score | " + " | ".join((*POOLS, "imagenet")) + " |\n|---|---|" + "---:|" * 4)
    for task, of in table.items():
        cells = [f"{100 * np.mean(one.scores):.2f} +- {100 * np.std(one.scores, ddof=1):.2f}" for one in of.values()]
        say(f"| {task} | {of['both'].metric} | {' | '.join(cells)} |")
    say("\n| target | difference | points | 95% interval | seeds |\n|---|---|---:|---|---|")
    for task, of in table.items():
        rows = [difference(of, one, other) for one, other in PAIRS]
        scores = {pool: one.scores for pool, one in of.items()}
        found["targets"][task] = {"metric": of["both"].metric, "scores": scores, "differences": rows}
        for row in rows:
            span = row["interval"] or [float("nan")] * 2
            seeds = ", ".join(f"{value:+.2f}" for value in row["seeds"])
            words = f"{row['of']} - {row['less']} | {row['difference']:+.2f} | [{span[0]:+.2f}, {span[1]:+.2f}]"
            say(f"| {task} | {words} | {seeds} |")
    say("\nseconds of training: " + ", ".join(f"{pool} {taken:.0f}" for pool, taken in seconds.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--target", action="append", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs-dense"))
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--seeds", type=int, default=3)
    for name, value in {"iterations": 100, "batch": 16, "size": 64, "steps": 100, "workers": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    table, seconds = run_all(options)
    found = tell(table, seconds, options)
    write_json(options.out / "found.json", json.loads(json.dumps(found)))


if __name__ == "__main__":
    main()
