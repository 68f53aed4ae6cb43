"""The sampling probabilities of tasks and classes (`sampling.Mixture`), from a training's settings and pool."""

from __future__ import annotations

from mtrain.config import FitConfig
from mtrain.data.labels import strata
from mtrain.data.pool import Pool, find_task
from mtrain.data.sampling import UNIFORM, Mixture
from mtrain.errors import UsageError


def mixture(config: FitConfig, pool: Pool) -> Mixture:
    """The mixture of the settings; by default that of the paper.

    Raises:
        UsageError: a weight is given for a task that is not in the pool, or every task has probability 0.
    """
    shares = _shares(config, pool)
    labels = [strata(task, task.rows["train"]) for task in pool.tasks] if config.class_balanced else None
    return UNIFORM if shares is None and labels is None else Mixture(shares, labels)


def _shares(config: FitConfig, pool: Pool) -> list[float] | None:
    """Relative probability of each task; None if all are equal."""
    if config.temperature is None and not config.task_weights:
        return None
    names = [task.name for task in pool.tasks]
    weights: dict[str, float] = {}
    for name, weight in config.task_weights.items():
        task = find_task(pool, name).name
        if task in weights:
            raise UsageError(f"--task-weight: {task} has two weights", remedy="give one")
        weights[task] = weight
    largest = max(len(task.rows["train"]) for task in pool.tasks)
    exponent = 0.0 if config.temperature is None else 1 / config.temperature
    sizes = [(len(task.rows["train"]) / largest) ** exponent for task in pool.tasks]
    shares = [size * weights.get(name, 1.0) for name, size in zip(names, sizes, strict=True)]
    if not sum(shares) > 0:
        raise UsageError("--task-weight: every weight is 0", remedy="give at least one task a weight above 0")
    return shares
