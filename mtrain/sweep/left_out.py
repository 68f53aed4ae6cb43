"""The left-out sets of a sweep on the available shards: what remains to train on, and what can be scored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mtrain.data.labels import constant
from mtrain.data.pool import Pool, find_task, leave_out, open_pool
from mtrain.data.task import Task
from mtrain.errors import UsageError
from mtrain.sweep.spec import Sweep
from mtrain.transfers.request import OF_TARGETS


@dataclass(frozen=True)
class LeftOut:
    """A left-out set on the available shards: the tasks to train on, and those left out that can be scored.

    whole: all tasks. notes: on related tasks that are left out too but cannot be scored.
    """

    pool: Pool
    tasks: tuple[Task, ...]
    whole: Pool
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
        found[given] = LeftOut(kept, tuple(task for task in gone if task.name not in reasons), pool, notes)
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
