"""Expand a sweep and its shards into cells: what each one trains and scores, and the digests that identify it.

A cell is one training and its transfers. The warm-up (which is independent of learning rate and tau), the training and
the cell each have a digest, which covers everything that determines the result and nothing else.

With a constant learning rate, the first iterations of a training are bit for bit a shorter training. So a cell of a
shorter training is a cell like any other, and a longer training can start from the end of a shorter one, as it starts
from a warm-up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpconvert.plural import counted
from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.data.labels import constant
from mtrain.data.pool import Pool, find_task, leave_out, open_pool
from mtrain.data.task import Task
from mtrain.disk.documents import short_digest
from mtrain.errors import RunError, UsageError
from mtrain.model.weight_files.weights_file import weights_digest, weights_in, weights_kind
from mtrain.sweep.combination import Combination
from mtrain.sweep.spec import Sweep, Transfer
from mtrain.transfers.request import OF_TARGETS

# increase a number when a change to the code changes the result of equal settings
RULES = {"training": 1, "transfer": 1}


@dataclass(frozen=True)
class Cell:
    """One training and the transfers to `tasks`.

    training, warmup, prefixes: digests, which are also the names of the run folders. prefixes: shorter runs with
    which this one begins, the longest first. whole: whether the training is not a prefix of another one, so that its
    checkpoints are not needed once it is scored.
    """

    digest: str
    training: str
    warmup: str | None
    config: FitConfig
    combination: Combination
    tasks: tuple[str, ...]
    pool: str
    transfer: Transfer
    prefixes: tuple[str, ...] = ()
    whole: bool = True

    def __str__(self) -> str:
        length = "" if self.whole else f", {counted(self.config.iterations, 'iteration')}"
        return f"{self.combination}, seed {self.config.seed}, left out: {', '.join(self.tasks)}{length}"


@dataclass(frozen=True)
class LeftOut:
    """A left-out set on the available shards: the tasks to train on, and those left out that can be scored.

    notes: on related tasks that are left out too but cannot be scored.
    """

    pool: Pool
    tasks: tuple[Task, ...]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)


def left_out_sets(sweep: Sweep) -> dict[tuple[str, ...], LeftOut]:
    """Resolve each left-out set of the file on the available tasks; related tasks are left out with those named.

    Raises:
        UsageError, ShardError: a task or the shards do not exist, or two sets are equal once related tasks are added.
    """
    pool = open_pool(sweep.shards)
    chosen = {find_task(pool, name).name for name in _chosen(sweep)}
    found: dict[tuple[str, ...], LeftOut] = {}
    for given in sweep.groups():
        kept, gone, _ = leave_out(pool, given)
        if both := chosen & {task.name for task in gone}:
            raise UsageError(
                f"{min(both)} is both chosen and left out, itself or through a related task",
                where="fit.tasks",
                remedy="leave it out of `tasks`; for a sweep over a part of the pool, give a folder of that part as "
                "`shards`",
            )
        reasons = {task.name: reason for task in gone if (reason := _unscorable(task, sweep.transfer.mode))}
        for task in (find_task(pool, name) for name in given):
            if task.name in reasons:
                remedy = "remove it from leave_out; related tasks are left out automatically"
                raise UsageError(f"{reasons[task.name]}: it cannot be scored", where=task.folder, remedy=remedy)
        notes = tuple(f"{name} is left out, but not scored: {reason}" for name, reason in reasons.items())
        found[given] = LeftOut(kept, tuple(task for task in gone if task.name not in reasons), notes)
    twice = [names for names, count in Counter(left.names for left in found.values()).items() if count > 1]
    if twice:
        raise UsageError(
            f"two left-out sets become {', '.join(twice[0])} once related tasks leave with those named",
            remedy="keep one of them",
        )
    return found


def _chosen(sweep: Sweep) -> list[str]:
    """The tasks that every training is to be limited to; none if it is not limited, or if they are no list of names."""
    stated = sweep.fit.get("tasks")
    return [name for name in stated if isinstance(name, str)] if isinstance(stated, list | tuple) else []


def _unscorable(task: Task, mode: str) -> str | None:
    """Return why the task cannot be scored in this transfer mode, by its card and index; None if it can."""
    if mode == "dense":
        return _without_targets(task)
    if task.target != "class":
        if mode not in OF_TARGETS:
            return f"mode {mode!r} cannot score images that do not have one class each"
        empty = None if len(task.rows["train"]) else "this task has no training set"
        wrong = empty or constant(task, task.rows["train"])
        return empty or (f"its training set {wrong}" if wrong else None)
    classes = len(np.unique(task.rows["train"].label))
    return (
        ("its training set holds one class only" if classes else "this task has no training set")
        if classes < 2
        else None
    )


def _without_targets(task: Task) -> str | None:
    """Return why no decoder can be trained and scored on the task's masks and points; None if one can."""
    if (why := task.why_not_dense) is not None:
        return why[0]
    missing = [split for split in ("train", "val") if not len(task.rows[split])]
    return f"this task has no {'training' if missing[0] == 'train' else 'validation'} set" if missing else None


def cells_of(sweep: Sweep, sets: dict[tuple[str, ...], LeftOut], share: float = 1.0) -> list[Cell]:
    """Return all cells, those of the first seed first; cells that share a warm-up are adjacent.

    share: the share of the iterations after the warm-up for which the runs last.

    Raises:
        UsageError: two cells would have the same training.
    """
    digests: dict[tuple[str, str], str] = {}
    found = []
    for seed, given, combination in sweep.trainings():
        config = sweep.config(combination, sets[given].names, seed)
        if combination.warmup and not config.warmup:
            raise UsageError(
                "the grid has training runs with a warm-up, but it lasts 0 iterations",
                where="fit.warmup",
                remedy="set it, or give `warmup = [false]` in [grid]",
            )
        if combination.dense and not any(task.dense for task in sets[given].pool.tasks):
            raise UsageError(
                f"dense: without {', '.join(sets[given].names)}, no task of the pool has masks or exhaustive points",
                where=sweep.shards,
                remedy="convert a source with --dense, or set dense = false",
            )
        start = config.backbone, config.weights
        if start not in digests:
            digests[start] = _weights(config)
        shorter = _prefixes(config, [length for length in sweep.race.lengths if length < share])
        found.append(
            _cell(
                prefix(config, share),
                combination,
                sets[given],
                sweep.transfer,
                digests[start],
                shorter,
                whole=share == 1,
            )
        )
    order = {names: number for number, names in enumerate(left.names for left in sets.values())}
    seeds = {seed: number for number, seed in enumerate(sweep.seeds)}
    return sorted(found, key=lambda cell: (seeds[cell.config.seed], order[cell.tasks], cell.combination.backbone))


def warmup_config(config: FitConfig) -> FitConfig:
    """Return the warm-up of a training as a separate run; rates that it does not use have their defaults."""
    plain = {name: FitConfig.model_fields[name].default for name in ("lr", "tau", "layer_decay", "gradients")}
    return config.model_copy(update={"iterations": config.warmup, **plain})


def prefix(config: FitConfig, share: float) -> FitConfig:
    """Return a prefix of a training as a separate run: the warm-up and this share of the rest."""
    lasting = config.warmup + max(round(share * (config.iterations - config.warmup)), 1)
    return config.model_copy(update={"iterations": min(lasting, config.iterations)})


def _prefixes(config: FitConfig, shares: Sequence[float]) -> list[FitConfig]:
    """Return the prefixes of a training that are separate runs, the longest first."""
    if config.schedule != "constant":  # the learning rates depend on the length of the training
        return []
    return [prefix(config, share) for share in reversed(shares)]


def _cell(
    config: FitConfig,
    combination: Combination,
    left: LeftOut,
    transfer: Transfer,
    weights: str,
    shorter: Sequence[FitConfig],
    *,
    whole: bool,
) -> Cell:
    training = training_digest(config, left.pool.digest, weights)
    return Cell(
        digest=_cell_digest(training, left.tasks, transfer),
        training=training,
        warmup=training_digest(warmup_config(config), left.pool.digest, weights) if config.warmup else None,
        config=config,
        combination=combination,
        tasks=left.names,
        pool=left.pool.digest,
        transfer=transfer,
        prefixes=tuple(training_digest(one, left.pool.digest, weights) for one in shorter),
        whole=whole,
    )


def _cell_digest(training: str, targets: Sequence[Task], transfer: Transfer) -> str:
    scored = {task.name: task.card.digest for task in targets}
    return digest(
        {"training": training, "targets": scored, "transfer": transfer.determining(), "rules": RULES["transfer"]}
    )


def check_unchanged(cell: Cell) -> None:
    """Check that the shards are those that the cell was planned for: its digest, which names its result, states them.

    Raises:
        RunError: they are others.
    """
    pool = open_pool(cell.config.shards)
    targets = [find_task(pool, name) for name in cell.tasks]
    trained = leave_out(pool, cell.config.leave_out)[0].digest
    if trained != cell.pool or _cell_digest(cell.training, targets, cell.transfer) != cell.digest:
        raise RunError(
            "the shards have changed since the sweep began",
            where=cell.config.shards,
            remedy="run the same command again: it plans cells for the shards as they are now",
        )


def training_digest(config: FitConfig, pool: str, weights: str) -> str:
    """Return a digest of a training's final weights. weights: the initial weights, by name or digest."""
    settings = config.determining() | {"weights": weights}
    card = catalog.described(config.backbone, config.backbone_options)
    table = {} if card is None else {"network": card.determining()}
    return digest({"config": settings, **table, "pool": pool, "rules": RULES["training"]})


def digest(content: Any) -> str:
    """Return a short digest of a JSON value; the order of keys does not matter."""
    return short_digest(json.dumps(content, sort_keys=True, separators=(",", ":")))


def _weights(config: FitConfig) -> str:
    """Return the name of the initial weights, or the digest of their file."""
    given = config.weights
    if given in ("imagenet", "random"):
        return given
    card = catalog.described(config.backbone, config.backbone_options)
    path = weights_in(Path(given), card.files if card else ())
    weights_kind(path)
    try:
        return weights_digest(path)
    except OSError as error:
        raise RunError(f"no weights to start from: {error.strerror or error}", where=given) from None


def part_of(cells: Sequence[Cell], part: tuple[int, int]) -> list[Cell]:
    """Return the i-th (from 1) of n consecutive parts, whose sizes differ by at most one."""
    number, parts = part
    return list(cells[(number - 1) * len(cells) // parts : number * len(cells) // parts])
