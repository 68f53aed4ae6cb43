"""What the commands on transfers do: options in, lines to print out. The printing is the command line's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dpconvert.runtime.progress import Reporter
from mtrain.data.pool import Task
from mtrain.errors import UsageError, UserError
from mtrain.evaluation import evaluate as final
from mtrain.runs import Run
from mtrain.transfers.features import features, write_features
from mtrain.transfers.finetune_rate import RATES, Recipe
from mtrain.transfers.request import targets
from mtrain.transfers.transfer import Options, Source, source_of, transfer

T = TypeVar("T", Task, str)
R = TypeVar("R")


def recipe(epochs: int, rates: Sequence[float], batch: int, early_stop: int, seed: int, device: str = "auto") -> Recipe:
    """A recipe from options; without rates, those of the paper.

    Raises:
        UsageError: a rate that is none, or given twice.
    """
    for rate in rates:
        if not 0 < rate < float("inf") or list(rates).count(rate) > 1:
            raise UsageError("--lr: not a learning rate, or given twice", found=f"{rate:g}")
    return Recipe(
        epochs=epochs, rates=tuple(rates) or RATES, batch=batch, early_stop=early_stop, seed=seed, device=device
    )  # fmt: skip


def each(of: Sequence[T], do: Callable[[T], Iterable[R]]) -> tuple[list[R], list[str]]:
    """What `do` finds for each, and of those that it fails for, why.

    Raises:
        UserError: it fails for the only one.
    """
    if len(of) == 1:
        return list(do(of[0])), []
    found: list[R] = []
    failures = []
    for one in of:
        try:
            found += do(one)
        except UserError as error:
            name = one.name if isinstance(one, Task) else str(one)
            failures.append(f"{name}: {error}")
    return found, failures


def transfers(
    run: Run,
    tasks: Sequence[Task],
    weights: str,
    options: Options,
    report: Reporter,
    key: str | None = None,
    seed: int | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """One transfer a target, and why others have none. seed: of random weights; that of the run if None."""
    source = source_of(run, weights, seed, key)

    def scored(task: Task) -> list[dict[str, Any]]:
        (target,) = final.opened([task]) if options.final else [task]
        return [transfer(source, target, options, report)]

    return each(tasks, scored)


def transfer_lines(found: Iterable[dict[str, Any]], run: Run) -> list[str]:
    """One a result, and one a note."""
    lines = []
    for result in found:
        how = f"{result['mode']}, weights: {result['weights']} of {run.name}{_chosen(result)}"
        lines.append(f"{result['task']}: {result['metric']} {_score(result)} on {result['set']} ({how})")
        for row in result.get("curve", []):
            spread = "" if row["std"] is None else f" +- {row['std']:.4f}"
            mean = "not defined" if row["mean"] is None else f"{row['mean']:.4f}"
            lines.append(f"  {row['k']:>3} a class: {mean}{spread}")
        lines += [f"note: {note}" for note in result["notes"]]
    return lines


def feature_files(
    source: Source, tasks: Sequence[Task], out: Path, dtype: str, workers: int, device: str, report: Reporter
) -> tuple[list[Path], list[str]]:
    """<out>/<Task>-<split>.npy of train and val, each with a .csv of its rows; and why others have none."""

    def written(task: Task) -> list[Path]:
        paths = []
        for split, rows in task.rows.items():
            if len(rows):
                found = features(
                    source.network, task, split, size=source.run.config().size, cache=source.cache, workers=workers,
                    report=report, dtype=dtype, device=device, weights=source.origin,
                )  # fmt: skip
                paths.append(out / f"{task.name}-{split}.npy")
                write_features(found, rows, paths[-1])
        return paths

    return each(tasks, written)


def evaluations(
    runs: Sequence[Run], tasks: Sequence[Task], asked: final.Asked, report: Reporter
) -> tuple[list[dict[str, Any]], list[str]]:
    """The final evaluation of these runs on these targets, and why others have none."""
    return each(tasks, lambda task: final.evaluate(runs, task, asked, report))


def sweep_evaluations(
    sweep: Path, names: Sequence[str], shards: Path | None, asked: final.Asked, report: Reporter
) -> tuple[list[dict[str, Any]], list[str]]:
    """The final evaluation of the runs that a sweep's selection chose for each target, or for those named."""

    def scored(name: str) -> list[dict[str, Any]]:
        chosen = final.winners(sweep, name)
        (task,) = targets(chosen[0], shards, [name])
        return final.evaluate(chosen, task, asked, report)

    return each(names or final.selected_targets(sweep), scored)


def evaluation_lines(found: Iterable[dict[str, Any]]) -> list[str]:
    """One an evaluation."""
    return [
        f"{one['task']}: {one['metric']} {_score(one)} on {one['set']} "
        f"({one['mode']}, {one['source']}, {one['backbone']}, seed {one['seed']})"
        for one in found
    ]


def breakhis_lines(found: dict[str, Any]) -> list[str]:
    """One a magnification."""
    lines = []
    for magnification, one in found["magnifications"].items():
        spread = "" if one["std"] is None else f" +- {100 * one['std']:.2f}"
        lines.append(
            f"{magnification}: patient accuracy {100 * one['mean']:.2f}{spread} over {len(one['folds'])} folds"
        )
    return lines


def _score(result: dict[str, Any]) -> str:
    if result["score"] is None:
        return "not defined"
    interval = result["intervals"].get(result["metric"])
    return f"{result['score']:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def _chosen(result: dict[str, Any]) -> str:
    if "C" in result:
        return f", C = {result['C']:g}"
    if "k" in result:
        return f", k = {result['k']}"
    return f", lr {result['lr']:g}, epoch {result['epoch']}" if "lr" in result else ""
