"""The work of the transfer commands: options -> results. A target that fails stops no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.data.task import Task
from mtrain.errors import UsageError, UserError
from mtrain.evaluation import evaluate as final
from mtrain.runs.run_folder import Run
from mtrain.settings import fit_config
from mtrain.sweep.store import Store
from mtrain.transfers.dense.dense_tuned import Moving
from mtrain.transfers.features import write_features
from mtrain.transfers.finetune_rate import RATES, Recipe
from mtrain.transfers.request import DENSE_LR, FROZEN_NETWORK, targets
from mtrain.transfers.transfer import Pretrained, TransferOptions, source_of, transfer_runs

T = TypeVar("T", Task, str)
R = TypeVar("R")


def recipe(
    epochs: int,
    rates: Sequence[float],
    batch: int,
    early_stop: int,
    seed: int,
    device: str = "auto",
    tune: str | None = None,
    layer_decay: float | None = None,
) -> Recipe:
    """The fine-tuning recipe for these options; without rates, those of the paper.

    Raises:
        UsageError: a rate is not positive and finite, or is given twice; tune or layer_decay is not a valid setting.
    """
    fit_config(None, {"tune": tune or "all", "layer_decay": layer_decay})
    for rate in rates:
        if not 0 < rate < float("inf") or list(rates).count(rate) > 1:
            raise UsageError("--lr: invalid", expected="positive, distinct numbers", found=f"{rate:g}")
    return Recipe(
        epochs=epochs,
        rates=tuple(rates) or RATES,
        batch=batch,
        early_stop=early_stop,
        seed=seed,
        device=device,
        tune=tune or "all",
        layer_decay=layer_decay,
    )


def moved(tuning: dict[str, Any]) -> tuple[Sequence[float], str | None, float | None]:
    """The rates, what is trained of the network, and the factor from block to block, as `moving` takes them."""
    return tuning["rates"], tuning["tune"], tuning["layer_decay"]


def moving(rates: Sequence[float], tune: str | None, layer_decay: float | None) -> Moving:
    """What `--mode dense` trains of the network, by these options; nothing by default.

    Raises:
        UsageError: several rates are given, between which nothing chooses.
    """
    if tune in (None, FROZEN_NETWORK):
        return Moving()
    if len(rates) > 1:
        given = " ".join(f"{rate:g}" for rate in rates)
        raise UsageError("--mode dense trains the network at one --lr", found=given, remedy="give one")
    return Moving(tune or FROZEN_NETWORK, rates[0] if rates else DENSE_LR, layer_decay)


def unmoved(modes: Sequence[str], tune: str | None) -> dict[str, str]:
    """Options that have no effect if only masks and points are scored, on a frozen network -> why."""
    still = set(modes) == {"dense"} and tune in (None, FROZEN_NETWORK)
    return dict.fromkeys(("rates", "layer_decay"), "the network stays as it is without --tune") if still else {}


def each(items: Sequence[T], do: Callable[[T], Iterable[R]]) -> tuple[list[R], list[str]]:
    """The results of `do` for all items, and an error text for each item that it fails for.

    Raises:
        UserError: there is only one item, and it fails.
    """
    if len(items) == 1:
        return list(do(items[0])), []
    results: list[R] = []
    failures = []
    for one in items:
        try:
            results += do(one)
        except UserError as error:
            name = one.name if isinstance(one, Task) else str(one)
            failures.append(f"{name}: {error}")
    return results, failures


def transfers(
    run: Run,
    tasks: Sequence[Task],
    weights: str,
    options: TransferOptions,
    report: Reporter,
    key: str | None = None,
    seed: int | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The result of the transfer to each target, and an error text for each that failed.

    seed: of random weights; that of the run if None.
    """
    source = source_of(run, weights, seed, key)

    def scored(task: Task) -> list[dict[str, Any]]:
        (target,) = final.opened([task]) if options.final else [task]
        return transfer_runs(source, target, options, report)

    return each(tasks, scored)


def feature_files(
    source: Pretrained, tasks: Sequence[Task], out: Path, dtype: str, workers: int, device: str, report: Reporter
) -> tuple[list[Path], list[str]]:
    """The files written, <out>/<Task>-<split>.npy for train and val; and an error text for each task that failed."""

    def written(task: Task) -> list[Path]:
        paths = []
        for split, rows in task.rows.items():
            if len(rows):
                extracted = source.features(task, split, workers=workers, report=report, device=device, dtype=dtype)
                paths.append(out / f"{task.name}-{split}.npy")
                write_features(extracted, task, rows, paths[-1])
        return paths

    return each(tasks, written)


def evaluations(
    runs: Sequence[Run], tasks: Sequence[Task], request: final.EvaluateRequest, report: Reporter
) -> tuple[list[dict[str, Any]], list[str]]:
    """The final evaluation of these runs on each target, and an error text for each target that failed."""
    _announce([(runs, task) for task in tasks], request, report)
    return each(tasks, lambda task: final.evaluate(runs, task, request, report))


def sweep_evaluations(
    sweep: Path, names: Sequence[str], shards: Path | None, request: final.EvaluateRequest, report: Reporter
) -> tuple[list[dict[str, Any]], list[str]]:
    """The final evaluation of the runs that a sweep's selection chose: for the named targets, or for all."""

    def chosen(name: str) -> tuple[list[Run], Task]:
        runs = final.winners(sweep, name)
        (task,) = targets(runs[0], shards, [name])
        return runs, task

    names = names or final.selected_targets(sweep)
    known = []
    for name in names:
        with suppress(UserError):  # reported when its turn comes
            known.append(chosen(name))
    _announce(known, request, report)
    return each(names, lambda name: final.evaluate(*chosen(name), request, report))


def _announce(chosen: Sequence[tuple[Sequence[Run], Task]], request: final.EvaluateRequest, report: Reporter) -> None:
    """Say before the first transfer how many there are, and what the longest of them train."""
    jobs: Counter[str] = Counter()
    for runs, task in chosen:
        with suppress(UserError):  # reported when its turn comes
            jobs.update(job.mode for job in final.jobs(runs, task, request))
    if not jobs:
        return
    recipe = request.options.recipe
    tuned = " and ".join(mode for mode in ("finetune", "scratch") if jobs[mode])
    rates = counted(len(recipe.rates), "learning rate")
    cost = f"; {tuned} at {rates}, up to {counted(recipe.epochs, 'epoch')} each" if tuned else ""
    report.note(
        f"{counted(jobs.total(), 'transfer')} on {counted(len(chosen), 'test set')}: "
        f"{', '.join(f'{number} {mode}' for mode, number in jobs.items())}{cost}; finished ones are kept"
    )


def other_decoder(sweep: Path, modes: Sequence[str], options: TransferOptions) -> str | None:
    """What to say if decoders of masks and points are trained otherwise than those that the sweep's choice rests on."""
    cells = Store(sweep).transfer()
    theirs, ours = (cells.steps, cells.batch), (options.steps, options.recipe.batch)
    if cells.mode != "dense" or "dense" not in modes or theirs == ours:
        return None
    decoder = "{} steps of {} images".format
    return (
        f"the sweep scored its cells with decoders of {decoder(*theirs)}, the evaluation trains {decoder(*ours)} "
        f"(--steps {theirs[0]} --batch {theirs[1]}: as the sweep)"
    )
