"""Open the tasks to train on, from folders of shards to a `Pool`.

A pool contains every subfolder of the shards folder that has a `task.json`; the folder may be a URL (`shard_cache`).
Tasks whose conversion is unfinished are not used but listed in `Pool.unfinished`. `leave_out` removes tasks together
with those that share their slides or annotations (`related` in task.json).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from dpconvert import card as cards
from dpconvert.arguments import named
from dpconvert.names import plain
from dpconvert.plural import counted
from mtrain.data import shard_cache
from mtrain.data.addresses import url_of
from mtrain.data.rows import Rows
from mtrain.data.task import NAME_IT, OPEN, Task, open_task
from mtrain.errors import ShardError, UsageError

EMPTY_SETS = 6  # maximum number of sets to list per task


@dataclasses.dataclass(frozen=True, repr=False)
class Pool:
    """Tasks in name order. `digest` identifies their data, and the sets trained on if these are not the training sets.

    unfinished: names of the folders beside these tasks that hold an unfinished conversion.
    """

    tasks: tuple[Task, ...]
    digest: str
    unfinished: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Pool({counted(len(self.tasks), 'task')}: {', '.join(task.name for task in self.tasks)})"

    @property
    def notes(self) -> list[str]:
        """Notes on tasks that exist but are not used."""
        if not self.unfinished:
            return []
        number, names = counted(len(self.unfinished), "unfinished task"), ", ".join(self.unfinished)
        return [f"{number} not used: {names}; run the conversion again (`dpconvert verify` lists what is missing)"]

    @property
    def empty_sets(self) -> list[str]:
        """A line for each task with an empty set, or with a class that one of its sets lacks."""
        return [f"{task.name}: {lines}" for task in self.tasks if (lines := _empty_sets(task))]

    @classmethod
    def open(cls, shards: Path | str = "shards", leave_out: str | Sequence[str] = ()) -> Pool:
        """Open every task under `shards`, a folder or a URL, except those left out and the tasks related to them.

        The tasks are opened without their test sets.

        Raises:
            UsageError: There is no such folder, no task in it, or no task with a given name.
            ShardError: A task is unfinished or does not match its card.
        """
        names = (leave_out,) if isinstance(leave_out, str) else tuple(leave_out)
        if unusable := [name for name in names if not isinstance(name, str)]:
            raise UsageError("leave_out: must be names of tasks", found=repr(unusable[0]))
        with named({"shards": "shards", "leave-out": "leave_out"}):
            return _without(open_pool(shards), names)


def open_pool(shards: Path | str) -> Pool:
    """Open every task under `shards`, a folder or a URL.

    Raises:
        UsageError: there is no such folder, or no finished task in it.
        ShardError: a task does not match its card.
        RunError: the URL cannot be read.
    """
    if (url := url_of(shards)) is not None:
        return pool_of(open_task(task) for task in shard_cache.task_folders(url))
    finished, unfinished = _folders(Path(shards))
    return dataclasses.replace(pool_of(open_task(folder) for folder in finished), unfinished=unfinished)


def _folders(shards: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The folders of finished tasks, and the names of unfinished ones."""
    if not shards.is_dir():
        raise UsageError("no such folder of shards", where=shards, remedy=NAME_IT)
    finished, unfinished = cards.begun(shards)
    names = tuple(folder.name for folder in unfinished)
    if not finished and not names and (shards / cards.FILE_NAME).is_file():
        raise UsageError("this is one task, not the folder of the tasks", where=shards, remedy=f"give {shards.parent}")
    if not finished:
        remedy = NAME_IT if not names else f"finish the conversion of {names[0]}"
        found = f"unfinished: {', '.join(names)}" if names else None
        raise UsageError("no task in this folder", where=shards, found=found, remedy=remedy)
    return finished, names


def outlined(shards: Path | str) -> Pool:
    """The tasks in a folder without their samples: only the cards are read, which is fast and enough to check names.

    Raises:
        UsageError, ShardError: as `open_pool`.
    """
    finished, _ = _folders(Path(shards))
    found = [(folder, cards.load(folder)) for folder in finished]
    return pool_of(Task(card.task, folder, card, (), {}) for folder, card in found)


def training_on(pool: Pool, splits: Sequence[str], *, but: Iterable[str] = ()) -> Pool:
    """The pool with the samples of these splits as the training set of each task; the tasks named in `but`, and those
    related to them, keep their training sets.

    A split that is trained on becomes empty, so that nothing can be validated on it.

    Raises:
        UsageError: a name in `but` is not that of a task in the pool.
    """
    unchanged = sorted(task.name for task in _with_relatives(pool, but)[0])
    if tuple(splits) == ("train",):
        return pool
    tasks = tuple(task if task.name in unchanged else _training_on(task, splits) for task in pool.tasks)
    identity = " ".join(["+".join(splits), *unchanged, pool.digest])
    return dataclasses.replace(pool, tasks=tasks, digest=hashlib.sha256(identity.encode()).hexdigest())


def _training_on(task: Task, splits: Sequence[str]) -> Task:
    joined = Rows.joined([task.rows[split] for split in splits])
    remaining: dict[str, Rows] = {
        split: task.rows[split].take([]) if split in splits else task.rows[split] for split in OPEN
    }
    return dataclasses.replace(task, rows={**remaining, "train": joined}, trains=tuple(splits))


def pool_of(tasks: Iterable[Task]) -> Pool:
    """A pool of these tasks.

    Raises:
        ShardError: two tasks have one name, except for case, `-` and `_`.
    """
    ordered = tuple(sorted(tasks, key=lambda task: task.name))
    first: dict[str, Task] = {}
    for task in ordered:
        if (other := first.setdefault(plain(task.name), task)) is not task:
            raise ShardError(
                f"two tasks are called {task.name}, except for case, - and _",
                where=task.folder,
                found=f"another in {other.folder}",
                remedy="move one of them to another folder",
            )
    lines = "".join(f"{task.name} {task.card.digest}\n" for task in ordered)
    return Pool(ordered, hashlib.sha256(lines.encode()).hexdigest())


def leave_out(pool: Pool, names: Sequence[str]) -> tuple[Pool, tuple[Task, ...], tuple[str, ...]]:
    """Remove the named tasks and those related to them.

    Returns the remaining pool, the removed tasks, and a note for each task removed because of a relation. Relations are
    symmetric and transitive. Names match ignoring case, `-` and `_`.

    Raises:
        UsageError: a name is unknown, or no task remains.
    """
    leaving, pairs = _with_relatives(pool, names)
    gone = {task.name for task in leaving}
    notes = [f"{other} is left out too: related to {task}" for task, other in pairs]
    kept = [task for task in pool.tasks if task.name not in gone]
    if not kept:
        raise UsageError(
            "every task is left out, so none remains to train on",
            found="; ".join([f"--leave-out {', '.join(dict.fromkeys(names))}", *notes]),
        )
    remaining = dataclasses.replace(pool_of(kept), unfinished=pool.unfinished) if gone else pool
    return remaining, tuple(sorted(leaving, key=lambda task: task.name)), tuple(notes)


def _with_relatives(pool: Pool, names: Iterable[str]) -> tuple[list[Task], list[tuple[str, str]]]:
    """Return the named tasks and those related to them, and the task through which each relative was found."""
    found = list({task.name: task for task in (find_task(pool, name) for name in names)}.values())
    known = {task.name for task in found}
    pairs = []
    for task in found:  # grows during the iteration, to include relatives of relatives
        for other in pool.tasks:
            if other.name not in known and _related(task, other):
                found.append(other)
                known.add(other.name)
                pairs.append((task.name, other.name))
    return found, pairs


def _empty_sets(task: Task) -> str:
    """Return the empty sets and classes of a task; its training set comprises all samples that it trains on."""
    counts = {split: task.card.sizes(content) for split, content in task.card.splits.items()}
    trained = [of for split, of in counts.items() if split in task.trains]
    counts |= {"train": [sum(of_class) for of_class in zip(*trained, strict=True)]}
    samples = {split: content.samples for split, content in task.card.splits.items()}
    samples |= {"train": sum(samples[split] for split in counts if split in task.trains)}
    lines = cards.empty_sets(task.classes, counts, samples)
    if task.target == "class" and sum(map(bool, counts["train"])) == 1:
        lines = [*lines, "what it trains on is of one class, from which a network learns nothing"]
    more = f"; and {len(lines) - EMPTY_SETS} more" if len(lines) > EMPTY_SETS else ""
    return "; ".join(lines[:EMPTY_SETS]) + more


def _without(pool: Pool, names: Sequence[str]) -> Pool:
    return leave_out(pool, names)[0]


def find_task(pool: Pool, name: str) -> Task:
    """The task called `name`, ignoring case, `-` and `_`."""
    by_name = {plain(task.name): task for task in pool.tasks}
    if (task := by_name.get(plain(name))) is not None:
        return task
    for unfinished in pool.unfinished:
        if plain(unfinished) == plain(name):
            raise UsageError(f"the conversion of {unfinished} is unfinished", remedy="run it again")
    near = difflib.get_close_matches(plain(name), by_name, n=3)
    likely, known = [by_name[match].name for match in near], [task.name for task in pool.tasks]
    remedy = f"did you mean {' or '.join(likely)}?" if likely else f"its tasks: {', '.join(known)}"
    raise UsageError(f"no task {name!r} in the pool", remedy=remedy)


def _related(one: Task, other: Task) -> bool:
    return plain(other.name) in map(plain, one.card.related) or plain(one.name) in map(plain, other.card.related)
