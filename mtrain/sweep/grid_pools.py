"""The pool as an axis of a sweep: which of the tasks that are not left out a training takes.

A pool is a list of tasks, or a file of `mtrain influence` for each target. Such a file may have seen the training and
validation sets of its target, never its test set (`mtrain.data.choice`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from dpconvert.names import plain
from mtrain.config import FitConfig
from mtrain.data.choice import read_advice
from mtrain.data.pool import Pool, find_task
from mtrain.errors import UsageError
from mtrain.sweep.combination import WHOLE

TARGET = "{target}"  # in the path of a file, stands for the name of the left-out task
SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
PoolTasks = Annotated[
    str | Annotated[tuple[str, ...], Field(min_length=1)],
    WithJsonSchema(SCHEMA),
]


def check_pools(
    pools: Mapping[str, PoolTasks], axis: Sequence[str] | None, fit: Mapping[str, Any], together: int
) -> None:
    """Check the pools of a sweep file against its other settings.

    Raises:
        ValueError: a name is unknown, is not used or stands for something else; the message names it.
    """
    if WHOLE in pools:
        raise ValueError(f'pools.{WHOLE}: "{WHOLE}" is the whole pool: choose another name')
    if unknown := [name for name in axis or () if name not in (WHOLE, *pools)]:
        raise ValueError(f"grid.pool: {unknown[0]!r} is neither {WHOLE!r} nor a name in [pools]")
    if unused := [name for name in pools if name not in (axis or ())]:
        raise ValueError(f"pools.{unused[0]}: grid.pool does not list it")
    if both := [name for name in ("tasks", "drop") if pools and name in fit]:
        raise ValueError(f"fit.{both[0]}: grid.pool chooses the tasks too")
    if together > 1 and (files := [name for name, given in pools.items() if isinstance(given, str)]):
        raise ValueError(f"pools.{files[0]}: a file for each target needs together = 1")


def in_pool(
    config: FitConfig, name: str, given: PoolTasks | None, whole: Pool, remaining: Pool, left: Sequence[str]
) -> FitConfig:
    """The training on a pool of the sweep. given: the pool called `name`; None for the whole one. remaining: the tasks
    of `whole` that are not left out. left: the names of the left-out set, in the order of the file.

    Raises:
        UsageError: an unknown task, none remains, or the file is not for this target or may not be used.
        RunError: the file is damaged.
    """
    if given is None:
        return config
    if isinstance(given, str):
        target = find_task(whole, left[0]).name
        path = Path(given.replace(TARGET, target)).absolute()
        advice, _ = read_advice(path)
        if plain(advice.target) not in map(plain, (target, *left)):
            raise UsageError(
                f"the file of pools.{name} advises for another target than the one that is left out",
                where=path,
                found=advice.target,
                expected=target,
                remedy=f"give the path with {TARGET} in place of the name",
            )
        return config.model_copy(update={"drop": str(path)})
    named = {find_task(whole, task).name for task in given}
    kept = tuple(task.name for task in remaining.tasks if task.name in named)
    if not kept:
        raise UsageError(
            f"pools.{name}: without {', '.join(left)} and what is related to it, no task remains to train on",
            found=", ".join(given),
            remedy="add a task",
        )
    return config.model_copy(update={"tasks": kept})


def advice_in(config: FitConfig) -> str | None:
    """The digest of the content of the file of influence that the training reads; None if it reads none.

    Raises:
        UsageError: the file does not exist, or may not be used.
        RunError: it is damaged.
    """
    return None if config.drop is None else read_advice(Path(config.drop))[1]
