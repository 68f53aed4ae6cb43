"""Expand a sweep and its shards into cells: what each one trains and scores, and the digests that identify it.

A cell is one training and its transfers. The warm-up (which is independent of learning rate and tau), the training and
the cell each have a digest, which covers everything that determines the result and nothing else.

With a constant learning rate, the first iterations of a training are bit for bit a shorter training. So a cell of a
shorter training is a cell like any other, and a longer training can start from the end of a shorter one, as it starts
from a warm-up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpconvert.plural import counted
from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.data.pool import find_task, leave_out, open_pool
from mtrain.data.task import Task
from mtrain.disk.documents import short_digest
from mtrain.errors import RunError, UsageError
from mtrain.model.weight_files.weights_file import weights_digest, weights_in, weights_kind
from mtrain.sweep.combination import WHOLE, Combination
from mtrain.sweep.grid_pools import advice_in, in_pool
from mtrain.sweep.left_out import LeftOut
from mtrain.sweep.spec import Sweep, Transfer

# increase a number when a change to the code changes the result of equal settings
RULES = {"training": 1, "transfer": 1}


@dataclass(frozen=True)
class Cell:
    """One training and the transfers to `tasks`.

    training, warmup, prefixes: digests, which are also the names of the run folders. prefixes: shorter runs with
    which this one begins, the longest first. whole: whether the training is not a prefix of another one, so that its
    checkpoints are not needed once it is scored. advice: digest of the file of influence that chooses the tasks.
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
    advice: str | None = None

    def __str__(self) -> str:
        length = "" if self.whole else f", {counted(self.config.iterations, 'iteration')}"
        return f"{self.combination}, seed {self.config.seed}, left out: {', '.join(self.tasks)}{length}"


def cells_of(sweep: Sweep, sets: dict[tuple[str, ...], LeftOut], share: float = 1.0) -> list[Cell]:
    """Return all cells, those of the first seed first; cells that share a warm-up are adjacent.

    share: the share of the iterations after the warm-up for which the runs last.

    Raises:
        UsageError: two cells would have the same training.
    """
    digests: dict[tuple[str, str], str] = {}
    found = []
    for seed, given, combination in sweep.trainings():
        left, chosen = sets[given], sweep.pools.get(combination.pool)
        config = sweep.config(combination, left.names, seed)
        config = in_pool(config, combination.pool, chosen, left.whole, left.pool, given)
        if combination.warmup and not config.warmup:
            raise UsageError(
                "the grid has training runs with a warm-up, but it lasts 0 iterations",
                where="fit.warmup",
                remedy="set it, or give `warmup = [false]` in [grid]",
            )
        if combination.dense and not any(task.dense for task in left.pool.tasks):
            raise UsageError(
                f"dense: without {', '.join(left.names)}, no task of the pool has masks or exhaustive points",
                where=sweep.shards,
                remedy="convert a source with --dense, or set dense = false",
            )
        start = config.backbone, config.weights
        if start not in digests:
            digests[start] = _weights(config)
        shorter = _prefixes(config, [length for length in sweep.race.lengths if length < share])
        lasting = prefix(config, share)
        found.append(_cell(lasting, combination, left, sweep.transfer, digests[start], shorter, whole=share == 1))
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
    chosen = _chosen_by(config, combination)
    training = training_digest(config, left.pool.digest, weights, chosen)
    return Cell(
        digest=cell_digest(training, left.tasks, transfer),
        training=training,
        warmup=training_digest(warmup_config(config), left.pool.digest, weights, chosen) if config.warmup else None,
        config=config,
        combination=combination,
        tasks=left.names,
        pool=left.pool.digest,
        transfer=transfer,
        prefixes=tuple(training_digest(one, left.pool.digest, weights, chosen) for one in shorter),
        whole=whole,
        advice=chosen.get("drop"),
    )


def _chosen_by(config: FitConfig, combination: Combination) -> dict[str, str]:
    """Return what chooses the tasks: the name of the pool, since two pools can be equal without a left-out task, and
    the content of the file of influence, wherever it lies.
    """
    advice = advice_in(config)
    pool = {} if combination.pool == WHOLE else {"pool_name": combination.pool}
    return pool if advice is None else pool | {"drop": advice}


def cell_digest(training: str, targets: Sequence[Task], transfer: Transfer) -> str:
    """Return the digest of a cell: of its training, and of how it is scored on which shards."""
    scored = {task.name: task.card.digest for task in targets}
    return digest(
        {"training": training, "targets": scored, "transfer": transfer.determining(), "rules": RULES["transfer"]}
    )


def check_unchanged(cell: Cell) -> None:
    """Check that the shards, and the file that chooses among its tasks, are those that the cell was planned for: its
    digest, which names its result, states them.

    Raises:
        UsageError: the file does not exist.
        RunError: they are others.
    """
    if advice_in(cell.config) != cell.advice:
        raise RunError(
            "the file that chooses the tasks has changed since the sweep began",
            where=cell.config.drop,
            remedy="run the same command again: it plans cells for the file as it is now",
        )
    pool = open_pool(cell.config.shards)
    targets = [find_task(pool, name) for name in cell.tasks]
    trained = leave_out(pool, cell.config.leave_out)[0].digest
    if trained != cell.pool or cell_digest(cell.training, targets, cell.transfer) != cell.digest:
        raise RunError(
            "the shards have changed since the sweep began",
            where=cell.config.shards,
            remedy="run the same command again: it plans cells for the shards as they are now",
        )


def training_digest(config: FitConfig, pool: str, weights: str, chosen: Mapping[str, str] | None = None) -> str:
    """Return a digest of a training's final weights. weights: the initial weights, by name or digest. chosen: what
    chooses its tasks, in place of the settings of the same names.
    """
    settings = config.determining() | {"weights": weights} | dict(chosen or {})
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
